"""One end of a connection: the state of its streams, and the orders that a program gives. `Connection` adds reading."""

import time
from collections.abc import Callable

from holdfast.http2.errors import (
    CallerError,
    CannotOpenError,
    ConnectionFailedError,
    ErrorCode,
    MisuseError,
    Obstacle,
    StreamFailedError,
)
from holdfast.http2.fields import Fields
from holdfast.http2.frames import PREFACE
from holdfast.http2.limits import STREAM_ID_MAX, Budget, Limits
from holdfast.http2.past import PastStreams
from holdfast.http2.payloads import goaway_frame, ping_frame, rst_stream_frame, settings_frame, window_update_frame
from holdfast.http2.sending import Sender, check_may_send
from holdfast.http2.settings import (
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    WINDOW_BYTES_DEFAULT,
    Settings,
)
from holdfast.http2.streams import GONE, PEER_ENDED, Ender, Reset, Stream, set_up

STREAMS_MAX_ASSUMED = 100
"""Streams that a server is taken to allow until its settings come, as Go does: more would only be refused."""

DEBUG_BYTES_MAX = 256
"""Of a message to the peer in GOAWAY."""


class Events:
    """What a program hears of a connection as a whole; subclass it. Called from within `Connection.receive`."""

    def on_stream(self, fields: Fields) -> Stream:
        """A request came (servers only). Returns its new stream, whose `on_headers` is called next."""
        raise NotImplementedError(f"a server makes a Stream of {fields.get(b':path')!r} here")

    def on_settings(self, settings: Settings) -> None:
        """The peer's settings changed, and with them perhaps how many streams may be open."""

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The peer takes no more streams. Those that it will not look at hear so next; others go on to their end."""

    def on_pong(self, payload: bytes) -> None:
        """The peer answered a PING."""


class Endpoint:
    """One end of a connection. Use `Connection`.

    Args:
        is_server: Which end.
        events: Hears of the connection.
        limits: Bounds; also what the peer is told of them.
        acknowledges: Give the peer's windows back as data comes; else `acknowledge` does, when the program has room.
        clock: A monotonic clock, in seconds, for bounds on what may happen in a second.
        first_stream_id: The id of the first stream that a client opens, odd (RFC 9113 §5.1.1); those below count as
            over. Near `STREAM_ID_MAX` a connection shows what becomes of one that is old.

    Raises:
        MisuseError: That id is none of a client's.

    Attributes:
        is_server, events, limits: As given.
        peer_settings: What the peer said of itself, or what holds until it does.
        settings_acknowledged: Whether the peer has acknowledged this end's settings.
        is_closed: Whether the connection has ended; whatever is received then is nothing.
    """

    def __init__(
        self,
        *,
        is_server: bool,
        events: Events,
        limits: Limits | None = None,
        acknowledges: bool = True,
        clock: Callable[[], float] = time.monotonic,
        first_stream_id: int = 1,
    ) -> None:
        if first_stream_id % 2 == 0 or not 0 < first_stream_id <= STREAM_ID_MAX:
            raise MisuseError(f"{first_stream_id} is no stream of a client's: give an odd number up to {STREAM_ID_MAX}")
        self.is_server = is_server
        self.events = events
        self.limits = limits = limits or Limits()
        self.peer_settings = Settings()
        self.settings_acknowledged = False
        self.is_closed = False
        self._acknowledges = acknowledges
        self._streams: dict[int, Stream] = {}
        self._first_id = self._next_id = first_stream_id
        self._highest_id = 0
        self._accepts_up_to = STREAM_ID_MAX
        self._peer_goes_away = False
        self._streams_allowed = STREAMS_MAX_ASSUMED
        self._sender = Sender(limits.unsent_bytes_max, self._on_ended)
        self._out = self._sender.out
        self._answers_waiting = 0
        self._past = PastStreams(limits.resets_remembered_max)
        self._resets = Budget("streams that came to nothing", limits.resets_per_s, limits.resets_burst, clock)
        # What the peer may send: until it has acknowledged the settings, whichever is more of the old and the new.
        self._stream_window = max(limits.stream_window_bytes, WINDOW_BYTES_DEFAULT)
        self._received = 0
        self._given_back = 0
        self._connection_lot = limits.connection_window_bytes >> 1
        self._greet()

    # The state.

    @property
    def streams_open(self) -> int:
        """How many streams are not at their end."""
        return len(self._streams)

    @property
    def streams_opened(self) -> int:
        """How many streams this end has opened in all."""
        return (self._next_id - self._first_id) // 2

    @property
    def streams_free(self) -> int:
        """How many streams this end could open now; 0 where `open` would raise CannotOpenError."""
        ids_left = max(0, STREAM_ID_MAX - self._next_id + 2) // 2
        return max(0, min(self._streams_allowed - len(self._streams), ids_left))

    @property
    def stream_ids_left(self) -> int:
        """How many more streams this connection can have in its life."""
        return max(0, STREAM_ID_MAX - self._next_id + 2) // 2

    @property
    def unsent_bytes(self) -> int:
        """Data that waits for the peer's windows."""
        return self._sender.unsent_bytes

    @property
    def has_output(self) -> bool:
        """Whether there are bytes to be sent."""
        return bool(self._out)

    def take_output(self) -> bytes:
        """The bytes to be sent, which are not given again.

        Take them when the transport has room, and leave them while it is paused: so a peer that asks without reading
        meets `Limits.answers_waiting_max`.
        """
        made = b"".join(self._out)
        self._out.clear()
        self._answers_waiting = 0
        return made

    # Orders.

    def open(self, stream: Stream, block: bytes, data: bytes = b"", *, ends: bool = False) -> None:
        """Opens a stream (clients only).

        Args:
            stream: A new one, of a subclass; afterwards its `id` is set.
            block: Request headers, from `encode`.
            data: The first data; none for none yet.
            ends: Nothing follows.

        Raises:
            CannotOpenError: Not now, or never on this connection.
            UnsentFullError: The data cannot go now, and would be too much to wait.
            MisuseError: This end is a server.
        """
        stream_id = self._next_id
        sender = self._sender
        if len(self._streams) >= self._streams_allowed or stream_id > STREAM_ID_MAX:
            raise self._refusal()
        if len(data) > sender.window or len(data) > sender.stream_window:
            sender.check_room(data, sender.stream_window, waits=False)
        self._next_id = stream_id + 2
        set_up(stream, stream_id, sender.stream_window, 0)
        self._streams[stream_id] = stream
        sender.begin(stream, block, data, ends)

    def send(self, stream: Stream, data: bytes, *, ends: bool = False) -> None:
        """Sends data, what the peer's windows hold back as soon as they let it; `ends`: nothing follows.

        Raises:
            UnsentFullError: Too much waits.
            MisuseError: This end has ended the stream, or it is gone.
        """
        check_may_send(stream)
        self._sender.data(stream, data, ends)

    def send_headers(self, stream: Stream, block: bytes, *, ends: bool = False) -> None:
        """Sends response headers or, with `ends`, trailers; after all data ordered before. Raises MisuseError."""
        check_may_send(stream)
        self._sender.headers(stream, block, ends)

    def reset(self, stream: Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Ends a stream at once; nothing more is heard of it. One that is over stays as it is."""
        if not stream.state & GONE and stream.id in self._streams:
            self._forget(stream)
            self._put_reset(stream.id, code)

    def acknowledge(self, stream: Stream, count: int) -> None:
        """Gives the peer back bytes of a stream, for ends that do so themselves. Padding was given back already.

        Also for streams that are over: their bytes count on the connection.
        """
        self._given_back += count
        if self._given_back > self._connection_lot:
            self._give_back(0)
        stream.given_back += count
        if stream.given_back > self._stream_window >> 1 and not stream.state & (PEER_ENDED | GONE):
            self._out.append(window_update_frame(stream.id, stream.given_back))
            stream.received -= stream.given_back
            stream.given_back = 0

    def ping(self, payload: bytes) -> None:
        """Asks the peer for a sign of life; `Events.on_pong` hears it. The payload has 8 bytes, else MisuseError."""
        if len(payload) != 8:
            raise MisuseError(f"a PING carries 8 bytes, not {len(payload)}")
        self._out.append(ping_frame(payload))

    def go_away(
        self, code: ErrorCode = ErrorCode.NO_ERROR, debug: bytes = b"", *, last_stream_id: int | None = None
    ) -> None:
        """Tells the peer that no more of its streams are taken; those that are open go on.

        Args:
            code: Why.
            debug: For people.
            last_stream_id: The last stream that is looked at, by default the last that came. A server that drains says
                `STREAM_ID_MAX` first and, a round trip later, this without.
        """
        last_id = min(self._accepts_up_to, self._highest_id if last_stream_id is None else last_stream_id)
        self._accepts_up_to = last_id
        self._out.append(goaway_frame(last_id, code, debug[:DEBUG_BYTES_MAX]))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, message: str = "this end closed the connection") -> None:
        """Ends the connection: a last GOAWAY, and the end of every stream."""
        if not self.is_closed:
            self.go_away(code, message.encode())
            self.lost(message, code)

    def lost(self, message: str = "the connection was lost", code: ErrorCode = ErrorCode.INTERNAL_ERROR) -> None:
        """The transport has ended: every stream ends, and nothing can be opened."""
        self.is_closed = True
        self._streams_allowed = 0
        for stream in list(self._streams.values()):
            self._end_early(stream, Reset(code, message, Ender.CONNECTION))

    # Inside.

    def _greet(self) -> None:
        limits = self.limits
        own = [
            (HEADER_TABLE_SIZE, limits.header_table_bytes_max),
            (INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (MAX_FRAME_SIZE, limits.frame_bytes_max),
            (MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
        ]
        if self.is_server:
            self._streams_allowed = 0
            own.append((MAX_CONCURRENT_STREAMS, limits.streams_open_max))
        else:
            self._out.append(PREFACE)
            own.append((ENABLE_PUSH, 0))
        self._out.append(settings_frame(own))
        if limits.connection_window_bytes > WINDOW_BYTES_DEFAULT:
            self._out.append(window_update_frame(0, limits.connection_window_bytes - WINDOW_BYTES_DEFAULT))

    def _refusal(self) -> CallerError:
        if self.is_server:
            return MisuseError("a server opens no streams: clients do, and Events.on_stream hears of them")
        if self.is_closed:
            return CannotOpenError(Obstacle.CLOSED)
        if self._peer_goes_away:
            return CannotOpenError(Obstacle.GOING_AWAY)
        return CannotOpenError(Obstacle.NO_STREAM_IDS if self._next_id > STREAM_ID_MAX else Obstacle.STREAMS_FULL)

    def _on_ended(self, stream: Stream) -> None:
        """This end's END_STREAM is out."""
        if stream.state & PEER_ENDED:
            self._streams.pop(stream.id, None)

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._sender.drop(stream)
        stream.state |= GONE

    def _end_early(self, stream: Stream, reset: Reset) -> None:
        self._forget(stream)
        stream.on_reset(reset)

    def _put_reset(self, stream_id: int, code: int) -> None:
        self._put_answer(rst_stream_frame(stream_id, code))
        self._past.reset(stream_id)

    def _put_answer(self, frame: bytes) -> None:
        self._out.append(frame)
        self._answers_waiting += 1

    def _fail_stream(self, error: StreamFailedError) -> None:
        """Resets a stream that the peer broke. Raises ConnectionFailedError when that happens too often."""
        stream = self._streams.get(error.stream_id)
        if self._is_idle(error.stream_id):  # nothing that could be reset
            raise ConnectionFailedError(error.code, error.message)
        self._put_reset(error.stream_id, error.code)
        if stream is not None:
            self._end_early(stream, Reset(error.code, error.message, Ender.CODEC))
        if self.is_server:
            self._resets.spend()

    def _is_idle(self, stream_id: int) -> bool:
        """Whether a stream was never opened, as far as one above it does not say otherwise."""
        return stream_id % 2 == 0 or stream_id > (self._highest_id if self.is_server else self._next_id - 2)

    def _fail(self, error: ConnectionFailedError) -> None:
        self.close(error.code, error.message)

    def _give_back(self, count: int) -> None:
        """Gives back bytes of the connection's window, in lots of half of it."""
        self._given_back += count
        if self._given_back > self._connection_lot:
            self._out.append(window_update_frame(0, self._given_back))
            self._received -= self._given_back
            self._given_back = 0
