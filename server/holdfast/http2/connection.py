"""Reading what the peer sends: each frame to what it does to streams or the connection (RFC 9113 §6)."""

import time
from collections.abc import Callable

from holdfast.http2.endpoint import Events
from holdfast.http2.errors import ConnectionFailedError, ErrorCode, StreamFailedError, code_name
from holdfast.http2.frames import (
    ACK,
    GOAWAY,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FrameReader,
)
from holdfast.http2.limits import Budget, Limits
from holdfast.http2.messages import MessageReader
from holdfast.http2.payloads import (
    SETTINGS_ACK,
    check_ping,
    check_priority,
    goaway_parts,
    ping_frame,
    reset_code,
    settings_pairs,
    window_increment,
)
from holdfast.http2.settings import INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE
from holdfast.http2.streams import PEER_BEGAN, Ender, Reset
from holdfast.http2.violations import (
    check_expected,
    failed,
    on_stream,
    on_stream_0,
)


class Connection(MessageReader):
    """One HTTP/2 connection, without a socket: see this package, `Endpoint` for arguments and orders."""

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
        super().__init__(
            is_server=is_server,
            events=events,
            limits=limits,
            acknowledges=acknowledges,
            clock=clock,
            first_stream_id=first_stream_id,
        )
        limits = self.limits
        self._reader = FrameReader(limits.frame_bytes_max)
        self._preface = PREFACE if is_server else b""
        self._late_resets = 0
        self._updates = Budget("WINDOW_UPDATEs", limits.window_updates_per_s, limits.window_updates_burst, clock)
        self._takers = (
            self._take_data,
            self._take_headers,
            self._take_priority,
            self._take_rst_stream,
            self._take_settings,
            self._take_push_promise,
            self._take_ping,
            self._take_goaway,
            self._take_window_update,
            self._take_continuation,
        )

    def receive(self, data: bytes) -> None:
        """Takes bytes from the peer, and calls streams and events about what is in them.

        Afterwards there may be bytes to send. Once the connection has ended, what comes is dropped.

        Raises:
            ConnectionFailedError: The peer broke a rule or a bound of the connection. Every stream has heard; send what
                is left to send, a GOAWAY last, and close the transport.
        """
        was_closed = self.is_closed
        if was_closed:
            return
        try:
            if self._preface:
                data = self._take_preface(data)
            reader = self._reader
            for kind, flags, stream_id, start, end in reader.feed(data):
                if self._expected is not None:
                    check_expected(self._expected, kind, stream_id)
                take = self._takers[kind] if kind < len(self._takers) else self._take_unknown
                try:
                    take(flags, stream_id, reader.data[start:end])
                except StreamFailedError as error:
                    self._fail_stream(error)
                if self.is_closed:
                    return
            self._check_answers()
        except ConnectionFailedError as error:
            self._fail(error)
            raise
        except BaseException:  # a bug in a callback: what was read is lost, so nothing can go on
            self.close(ErrorCode.INTERNAL_ERROR, "this end failed")
            raise

    def received_end(self) -> None:
        """The peer has closed its side of the transport: the same as `lost`, with what was cut off."""
        held = self._reader.held_bytes
        self.lost(f"the peer closed the connection{f' within a frame, {held} bytes into it' if held else ''}")

    def _take_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise on_stream_0(PRIORITY)
        self._idle.spend()
        check_priority(stream_id, payload)

    def _take_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        code = reset_code(payload)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_not_idle(RST_STREAM, stream_id)
            if not self.is_server:
                self._late_resets += 1
                if self._late_resets > self.streams_opened:  # a server can reset each stream once
                    self._idle.spend()
            elif not self._past.was_reset(stream_id):  # else both may have reset it at once
                self._idle.spend()
            return
        message = f"the peer reset stream {stream_id}: {code_name(code)}"
        unprocessed = code == ErrorCode.REFUSED_STREAM and not stream.state & PEER_BEGAN
        self._end_early(stream, Reset(code, message, Ender.PEER, unprocessed=unprocessed))
        if self.is_server:
            self._resets.spend()

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise on_stream(SETTINGS, stream_id)
        pairs = settings_pairs(flags, payload)
        if flags & ACK:
            if self._expected == SETTINGS:
                raise failed(ErrorCode.PROTOCOL_ERROR, "the first frame acknowledges settings; it must give some")
            self._take_acknowledgement()
            return
        if self._expected == SETTINGS:
            self._expected = None
        else:
            self._idle.spend()
        settings = self.peer_settings
        for key, value in pairs:
            settings.take(key, value, of_server=not self.is_server)
        keys = {key for key, _ in pairs}
        if INITIAL_WINDOW_SIZE in keys:
            self._sender.set_stream_window(settings.window_bytes, list(self._streams.values()))
        if MAX_FRAME_SIZE in keys:
            self._sender.frame_bytes_max = settings.frame_bytes_max
        if not self.is_server and not self._peer_goes_away:
            self._streams_allowed = settings.streams_max
        self._put_answer(SETTINGS_ACK)
        self.events.on_settings(settings)

    def _take_acknowledgement(self) -> None:
        """From here on the peer keeps to this end's settings: RFC 9113 §6.5.3."""
        if self.settings_acknowledged:
            self._idle.spend()
            return
        self.settings_acknowledged = True
        self._stream_window = self.limits.stream_window_bytes
        self._decoder.allow_table(self.limits.header_table_bytes_max)
        for stream in self._streams.values():  # where the window shrank, what is to be given back may be all of it
            self.acknowledge(stream, 0)

    def _take_push_promise(self, _flags: int, stream_id: int, _payload: bytes) -> None:
        why = "only servers push" if self.is_server else "SETTINGS_ENABLE_PUSH is 0"
        raise failed(ErrorCode.PROTOCOL_ERROR, f"a PUSH_PROMISE on stream {stream_id}: {why}")

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise on_stream(PING, stream_id)
        check_ping(payload)
        if flags & ACK:
            self.events.on_pong(payload)
        else:
            self._put_answer(ping_frame(payload, ack=True))

    def _take_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise on_stream(GOAWAY, stream_id)
        last_id, code, debug = goaway_parts(payload)
        self._idle.spend()
        self._peer_goes_away = True
        self._streams_allowed = 0
        self.events.on_goaway(last_id, code, debug)
        if self.is_server:
            return
        message = f"the peer goes away, and did not look at stream %d: {code_name(code)} {debug[:100]!r}"
        for stream in [each for each in self._streams.values() if each.id > last_id]:
            unprocessed = not stream.state & PEER_BEGAN  # an answer has begun, whatever it says
            self._end_early(stream, Reset(code, message % stream.id, Ender.PEER, unprocessed=unprocessed))

    def _take_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        self._updates.spend()
        stream = self._streams.get(stream_id)
        increment = window_increment(stream_id, payload)
        if stream is not None:
            self._sender.open_stream_window(stream, increment)
        elif not stream_id:
            self._sender.open_window(increment)
        else:
            self._check_not_idle(WINDOW_UPDATE, stream_id)

    def _take_unknown(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        """RFC 9113 §5.5: frames of unknown kinds are dropped."""
        self._idle.spend()

    def _check_answers(self) -> None:
        if self._answers_waiting > self.limits.answers_waiting_max:
            raise failed(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"{self._answers_waiting} answers wait to be read; {self.limits.answers_waiting_max} may",
            )

    def _take_preface(self, data: bytes) -> bytes:
        """Takes the client's preface off. Raises ConnectionFailedError for anything else."""
        count = min(len(data), len(self._preface))
        if data[:count] != self._preface[:count]:
            raise failed(
                ErrorCode.PROTOCOL_ERROR,
                f"this is not HTTP/2: {data[:24]!r} came where {PREFACE!r} begins a connection",
            )
        self._preface = self._preface[count:]
        return data[count:]
