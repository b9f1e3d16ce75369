"""Streams as programs see them: subclass `Stream`, and hear of what comes by its methods."""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from holdfast.http2.fields import Fields

ENDING: Final = 1
"""The caller has said what the last of this stream is; it may wait for windows still."""

ENDED: Final = 2
"""This end has sent END_STREAM."""

PEER_ENDED: Final = 4
"""The peer has sent END_STREAM."""

PEER_BEGAN: Final = 8
"""The peer's headers have come; those that follow are trailers."""

PEER_SENT: Final = 32
"""Content has come, where its length was told."""

GONE: Final = 16
"""Reset by either side, or its connection ended."""

Unsent = deque[tuple[memoryview | None, bytes, bool]]
"""What waits, in order: data (or None for a header block), the block, whether it ends the stream."""


class Ender(Enum):
    """Who ended a stream before its time."""

    PEER = "the peer"
    CODEC = "this end, since the peer broke a rule"
    CONNECTION = "the end of its connection"


@dataclass(frozen=True, slots=True)
class Reset:
    """How a stream ended before its time.

    Attributes:
        code: Of RST_STREAM or of the connection's end; an ErrorCode where RFC 9113 knows it.
        message: What happened, for people.
        by: Who ended it.
        unprocessed: The peer says that it did nothing about it (REFUSED_STREAM, or GOAWAY with a smaller stream id:
            RFC 9113 §8.7); it may be tried again whatever it was.
    """

    code: int
    message: str
    by: Ender
    unprocessed: bool = False


class Stream:
    """One stream. The connection sets it up when it is opened, so a subclass need not call `__init__`.

    The methods are called from within `Connection.receive` (`on_reset` from whatever ends the connection too). They may
    give orders to the connection. An exception from one is a bug: it ends the connection and comes out of `receive`.

    Attributes:
        id: Its number; 0 before it is opened.
        send_window: Bytes of it that the peer takes before it says more; negative when it has shrunk its settings.
        state: Bits, see this module.
    """

    __slots__ = ("content_left", "given_back", "id", "received", "send_window", "state", "unsent")

    id: int
    send_window: int
    state: int
    received: int
    """Bytes received that the peer was not given back yet."""
    given_back: int
    """Of those, what the caller has acknowledged, where it does so itself."""
    content_left: int | None
    """What content-length leaves to come, in bytes."""
    unsent: Unsent | None

    @property
    def is_sending(self) -> bool:
        """Whether this end has not sent all of it: something waits for the peer's windows, or is not ordered yet."""
        return not self.state & ENDED

    @property
    def unsent_bytes(self) -> int:
        """Data of it that waits for the peer's windows."""
        return sum(len(data) for data, _, _ in self.unsent or () if data is not None)

    def on_headers(self, fields: Fields, ends: bool) -> None:
        """Header fields came: of a request, of a response (informational ones, 1xx, before it), or trailers.

        They are well-formed and of the right kind. `ends`: nothing follows.
        """

    def on_data(self, data: bytes, ends: bool) -> None:
        """Data came, cut as the peer's frames cut it. `ends`: nothing follows. It may be empty where it ends."""

    def on_reset(self, reset: Reset) -> None:
        """The stream ended before its time, and not by `Connection.reset`. Nothing follows.

        It may come after the end of what the peer sent, where this end had more to send (RFC 9113 §8.1: NO_ERROR).
        """

    def on_sent(self) -> None:
        """What had waited for the peer's windows is on its way."""


def set_up(stream: Stream, stream_id: int, send_window: int, state: int) -> None:
    """Makes a stream ready for use."""
    stream.id = stream_id
    stream.send_window = send_window
    stream.state = state
    stream.received = 0
    stream.given_back = 0
    stream.content_left = None
    stream.unsent = None
