"""One TCP or TLS connection that speaks HTTP/2: bytes between the socket and the codec."""

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, Protocol, cast

from holdfast.http2 import Connection, ConnectionFailedError, Events, Limits, Settings

if TYPE_CHECKING:
    from holdfast_loadtests.codes import ErrorClass

LIMITS: Final = Limits(stream_window_bytes=4 << 20, connection_window_bytes=16 << 20, frame_bytes_max=1 << 20)
"""Windows of one large message for a stream and four for a connection; frames as large as servers like to send."""

PART_WITHIN_S: Final = 2.0
"""How long a connection that was closed may take to send its last bytes: a peer that does not read is cut off then."""


class Owner(Protocol):
    """Who uses a link."""

    def on_ready(self, link: "Link") -> None:
        """The server's settings came: calls may be sent."""

    def on_room(self) -> None:
        """More streams may be open than before."""

    def on_retired(self, link: "Link") -> None:
        """No more calls may be begun; those under way go on."""

    def on_lost(self, link: "Link") -> None:
        """Its socket is closed."""


class Link(asyncio.Protocol, Events):
    """A connection, from its TCP handshake to its end.

    Args:
        owner: hears what becomes of it.
        first_stream_id: of the first call, odd.

    Attributes:
        codec: reads and writes its frames.
        made: why it could not be made, "" once the server's settings came.
        broke: how calls that wait for it failed where it could not be made.
        is_ready: whether the server's settings came.
        is_retired: whether no more calls may be begun.
        ready_s: when the settings came, by the loop's clock.
    """

    def __init__(self, owner: "Owner", first_stream_id: int = 1) -> None:
        self.codec = Connection(is_server=False, events=self, limits=LIMITS, first_stream_id=first_stream_id)
        self.broke: ErrorClass = "reset"
        self.is_ready = False
        self.is_retired = False
        self.ready_s = 0.0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.made: asyncio.Future[str] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._flush_due = False
        self._cut_off: asyncio.TimerHandle | None = None
        self._began = b""
        self._why = ""

    @property
    def is_open(self) -> bool:
        """Whether it has a socket."""
        return self._transport is not None

    def flush_soon(self) -> None:
        """Sends what the codec has once this turn of the loop is over: one system call for all calls made in it."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def close(self, why: str = "this end closed the connection") -> None:
        """Ends it; what is under way hears of it, and what the server sends from now on is not heard."""
        self._why = self._why or why
        self.codec.close(message=why)
        self._part()

    # As the transport's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open, TLS agreed on: sends the preface and the settings."""
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if isinstance(tls, ssl.SSLObject | ssl.SSLSocket) and tls.selected_alpn_protocol() != "h2":
            self._fail("the server does not offer HTTP/2 (ALPN h2) over TLS: gRPC needs it")
        elif self.codec.is_closed:  # it was given up while it was being made
            self._transport.abort()
        else:
            self._transport.write(self.codec.take_output())

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        if not self.is_ready:
            self._began = (self._began + data[:16])[:16]
        try:
            self.codec.receive(data)
        except ConnectionFailedError as error:
            self._fail(_foreign(self._began) or f"the server broke a rule of HTTP/2: {error}")
        except Exception as error:  # noqa: BLE001  # told here: event loops take an OSError for the connection's own
            context = {"message": "what takes the answers failed", "exception": error, "protocol": self}
            self._loop.call_exception_handler(context)
            self._fail("this end failed")
        else:
            if self.codec.has_output:
                self.flush_soon()

    def eof_received(self) -> bool:
        """The server will send nothing more."""
        if foreign := _foreign(self._began):
            self.broke = "other"
        self._why = self._why or foreign or "the server closed the connection"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: every call under way hears it."""
        why = self._why or (f"connection reset: {exc}" if exc else "the server closed the connection")
        self._transport = None
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._settle(why)
        self.codec.lost(why)
        self._owner.on_lost(self)

    def pause_writing(self) -> None:
        """The socket is full: what there is to send waits in the codec, at most what the calls under way send."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._is_paused = False
        self._flush()

    # As the codec's events.

    def on_settings(self, settings: Settings) -> None:
        """The server's settings."""
        del settings
        if not self.is_ready:
            self.is_ready = True
            self.ready_s = self._loop.time()
            self._settle("")
            self._owner.on_ready(self)
        self._owner.on_room()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The server takes no more calls."""
        del last_stream_id, code, debug
        self.retire()

    def retire(self) -> None:
        """Begins no more calls on it, and ends it with the last that is under way."""
        if not self.is_retired:
            self.is_retired = True
            self._owner.on_retired(self)
        self._loop.call_soon(self.close_if_done)  # not at once: the codec is in the middle of a frame

    def close_if_done(self) -> None:
        """A retired connection is closed after its last call."""
        if self.is_retired and not self.codec.streams_open:
            self.close()

    def _fail(self, why: str) -> None:
        """It cannot be used any more: the codec has ended, or must."""
        self._why = why
        self.broke = "other"
        self._settle(why)
        self.retire()
        self.close(why)

    def _settle(self, why: str) -> None:
        if not self.made.done():
            self.made.set_result(why)

    def _part(self) -> None:
        """Sends what is left, and closes the socket, in time whether or not the server reads."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._flush()
        transport.close()
        self._cut_off = self._loop.call_later(PART_WITHIN_S, transport.abort)

    def _flush(self) -> None:
        self._flush_due = False
        transport = self._transport
        if transport is None or self._is_paused or transport.is_closing():
            return
        if self.codec.has_output:
            transport.write(self.codec.take_output())


def _foreign(began: bytes) -> str:
    """What the server speaks instead of HTTP/2, told by its first bytes; `""` where they do not tell."""
    if began.startswith(b"HTTP/1"):
        return "the server speaks HTTP/1, not HTTP/2: check the port, and whether it wants TLS"
    if len(began) > 2 and began[0] in (0x15, 0x16) and began[1] == 3:
        return "the server speaks TLS: give --tls, or the CA that signed its certificate"
    return ""
