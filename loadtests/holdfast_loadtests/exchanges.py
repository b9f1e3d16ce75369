"""One gRPC call on an HTTP/2 stream: messages and trailers in, an `Answer` out."""

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote

from holdfast.http2 import ErrorCode, Fields, Reset, Stream
from holdfast_loadtests.answers import Answer, broken, of_reset, over_bound, trouble_of
from holdfast_loadtests.codes import CODE_NAMES, CODES, ErrorClass
from holdfast_loadtests.compression import CompressionError, TooLongError, decompress
from holdfast_loadtests.room import UNCOUNTED_BYTES_MAX, Room

if TYPE_CHECKING:
    from holdfast_loadtests.links import Link

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest message taken; gRPC's own clients take 4 MiB. A longer one ends its call, not the load."""

_FRAME_BYTES_MAX: Final = 5 + UNCOUNTED_BYTES_MAX

DETAILS_CHARS_MAX: Final = 1_000

OnEnd = Callable[[Answer], None]


class Carrier(Protocol):
    """What carries calls: a channel."""

    minds_ends: bool
    """Whether it wants to hear of every call that ends."""

    room: Room
    """For what answers hold."""

    def cancel(self, exchange: "Exchange", code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Tells the server that a call is of no interest any more."""

    def ended(self) -> None:
        """A call has ended."""

    def is_past(self, at_s: float) -> bool:
        """Whether it is that late, by the clock of deadlines."""
        ...


class Exchange(Stream):
    """A call that is under way, or waits for a connection.

    Args:
        carrier: what it is sent by.
        on_end: hears how it ended, once.
        receive: for streams: ended as OK after so many messages; None waits for the server's status.
        takes_many: whether the method answers with a stream.
    """

    __slots__ = (
        "_carrier",
        "_count",
        "_headers",
        "_held_bytes",
        "_last",
        "_on_end",
        "_part",
        "_receive",
        "_takes_many",
        "_trouble",
        "lane",
        "link",
    )

    is_whole = True
    """Whether nothing follows the data it is opened with."""

    def __init__(self, carrier: Carrier, on_end: OnEnd, receive: int | None, takes_many: bool) -> None:
        self._carrier = carrier
        self._on_end = on_end
        self._receive = receive
        self._takes_many = takes_many
        self._count = 0
        self._last: bytes | None = None
        self._part: bytearray | None = None
        self._held_bytes = 0
        self._headers: Fields | None = None
        self._trouble: Answer | None = None
        self.lane: MutableMapping[Exchange, float] | None = None
        self.link: Link | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.lane is None

    def on_headers(self, fields: Fields, ends: bool) -> None:
        """The response's headers, or its trailers."""
        status = fields.status
        if 100 <= status < 200:
            return
        if status:
            self._headers = fields
            self._trouble = trouble_of(fields)
        if ends:
            self._end_answered(self._status(fields))

    def on_data(self, data: bytes, ends: bool) -> None:
        """A piece of the messages."""
        if self._trouble is None:
            part = self._part
            # Nearly always one whole message in a frame: its flag, which is 0, and its length are one number.
            if part is None and 5 <= len(data) <= _FRAME_BYTES_MAX and int.from_bytes(data[:5], "big") == len(data) - 5:
                self._take(data[5:])
                if self._held_bytes:
                    self._weigh()
            elif data:
                self._gather(data)
        if ends and not self.is_over:
            self._end_answered(self._trouble or broken("Unknown", "the stream ended without a status", "other"))

    def on_reset(self, reset: Reset) -> None:
        """The stream ended before its time."""
        lane = self.lane
        if reset.code == ErrorCode.CANCEL and lane is not None and self._carrier.is_past(lane[self]):
            # Servers end a call so at its deadline, which they may notice first; grpc's own clients read it so, too.
            self.end(broken("DeadlineExceeded", "the server cancelled the call at its deadline", "deadline"))
        else:
            self.end(of_reset(reset))

    def _end_answered(self, answer: Answer) -> None:
        """The server has said all of its answer, perhaps before it took all of the request: the rest is not sent."""
        if self.is_sending:
            self._carrier.cancel(self, ErrorCode.NO_ERROR)
        self.end(answer)

    def end(self, answer: Answer) -> None:
        """Ends it; the first end counts."""
        lane = self.lane
        if lane is None:
            return
        self.lane = None
        lane.pop(self, None)
        if self._held_bytes:
            self._carrier.room.take(-self._held_bytes)
            self._held_bytes, self._part, self._last = 0, None, None
        if self._carrier.minds_ends:
            self._carrier.ended()
        self._on_end(answer)

    def _gather(self, data: bytes) -> None:
        part = self._part
        if part is None:
            part = self._part = bytearray()
        part += data
        position, there = 0, len(part)
        while there - position >= 5 and not self.is_over:
            size = int.from_bytes(part[position + 1 : position + 5], "big")
            if size > MESSAGE_BYTES_MAX:
                self.stop(over_bound(f"a message of {size} bytes; at most {MESSAGE_BYTES_MAX} are taken"))
            elif there - position - 5 < size:
                break
            else:
                message = bytes(part[position + 5 : position + 5 + size])
                if part[position]:
                    self._take_compressed(message)
                else:
                    self._take(message)
                position += 5 + size
        del part[:position]
        if not part:
            self._part = None
        self._weigh()

    def _weigh(self) -> None:
        """Tells the room what is held now; ends the call where that is too much."""
        if self.is_over:
            self._part = None
            return
        held_bytes = len(self._part or b"") + len(self._last or b"")
        more_bytes, self._held_bytes = held_bytes - self._held_bytes, held_bytes
        if not self._carrier.room.take(more_bytes):
            self.stop(over_bound(self._carrier.room.problem))

    def _take_compressed(self, message: bytes) -> None:
        encoding = self._headers.get(b"grpc-encoding") if self._headers is not None else None
        try:
            plain = decompress(encoding, message, MESSAGE_BYTES_MAX)
        except TooLongError as error:
            self.stop(over_bound(str(error)))
        except CompressionError as error:
            self.stop(broken("Internal", str(error), "other"))
        else:
            self._take(plain)

    def _take(self, message: bytes) -> None:
        self._last = message
        self._count += 1
        if self._count == self._receive:
            self.stop(Answer("OK", message))
        elif self._count > 1 and not self._takes_many:
            self.stop(broken("Internal", "more than one message to a call that has one answer", "other"))

    def stop(self, answer: Answer) -> None:
        """Ends it before the server does."""
        self._carrier.cancel(self)
        self.end(answer)

    def _status(self, trailers: Fields) -> Answer:
        text = trailers.get(b"grpc-status")
        if text is None:
            return self._trouble or broken("Unknown", "the answer ended without a grpc-status", "other")
        if text == b"0":
            if self._count == 0 and not self._takes_many:
                return broken("Internal", "OK without a message", "other")
            if self._part:
                return broken("Internal", "the answer ended within a message", "other")
            short = self._receive is not None and self._count < self._receive
            missing = f"the stream ended after {self._count} of {self._receive} messages" if short else ""
            return Answer("OK", self._last, short=missing)
        number = int(text) if text.isdigit() and len(text) < 4 else -1
        code = CODE_NAMES[number] if 0 <= number < len(CODE_NAMES) else "Unknown"
        details = unquote((trailers.get(b"grpc-message") or b"").decode("latin-1"), errors="replace")
        if code == "Unknown" and number != 2:
            details = f"grpc-status is {text!r}, which no code has. {details}"
        if CODES[code]:
            return Answer(code, None, details[:DETAILS_CHARS_MAX], outcome="definite")
        broke: ErrorClass = "deadline" if code == "DeadlineExceeded" else "other"
        return Answer(code, None, details[:DETAILS_CHARS_MAX], outcome="indefinite", broke=broke)
