"""Reading what the peer sends on a connection: frames to calls of `Stream` and `Events`, as RFC 9113 §5 and §6 say."""

import time
from collections import deque
from collections.abc import Callable

from holdfast.http2.endpoint import Endpoint, Events
from holdfast.http2.errors import ConnectionFailedError, ErrorCode, StreamFailedError, code_name
from holdfast.http2.fields import REQUEST, RESPONSE, TRAILERS, Fields
from holdfast.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FrameReader,
    kind_name,
)
from holdfast.http2.headers import BlockAssembler, HeaderDecoder
from holdfast.http2.limits import Budget, Limits
from holdfast.http2.payloads import (
    SETTINGS_ACK,
    check_ping,
    check_priority,
    fragment,
    goaway_parts,
    ping_frame,
    reset_code,
    settings_pairs,
    window_increment,
)
from holdfast.http2.settings import INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, TABLE_BYTES_DEFAULT
from holdfast.http2.streams import ENDED, PEER_BEGAN, PEER_ENDED, PEER_SENT, Ender, Reset, Stream, set_up
from holdfast.http2.violations import (
    check_expected,
    failed,
    malformed,
    never_opened,
    on_stream,
    on_stream_0,
    unexpected,
)

GAPS_MAX = 100
"""Ranges of stream ids that a client jumped over which are remembered, to name the error right when one comes late."""


class Connection(Endpoint):
    """One HTTP/2 connection, without a socket: see this package, `Endpoint` for arguments and orders."""

    def __init__(
        self,
        *,
        is_server: bool,
        events: Events,
        limits: Limits | None = None,
        acknowledges: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(is_server=is_server, events=events, limits=limits, acknowledges=acknowledges, clock=clock)
        limits = self.limits
        self._reader = FrameReader(limits.frame_bytes_max)
        self._blocks = BlockAssembler(limits)
        self._decoder = HeaderDecoder(limits, max(TABLE_BYTES_DEFAULT, limits.header_table_bytes_max))
        self._kept = self._decoder.kept
        self._preface = PREFACE if is_server else b""
        self._expected: int | None = SETTINGS
        self._gaps: deque[tuple[int, int]] = deque(maxlen=GAPS_MAX)
        self._idle = Budget("frames that move nothing", limits.idle_frames_per_s, limits.idle_frames_burst, clock)
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

    # Frames, kind by kind.

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received > self.limits.connection_window_bytes:
            raise failed(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"{self._received} bytes came on the connection; its window was {self.limits.connection_window_bytes}",
            )
        stream = self._streams.get(stream_id)
        if stream is None or stream.state & (PEER_ENDED | PEER_BEGAN) != PEER_BEGAN:
            self._give_back(size)
            self._refuse_data(stream, stream_id)
            return
        stream.received += size
        if stream.received > self._stream_window:
            self._give_back(size)
            raise StreamFailedError(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"{stream.received} bytes came on stream {stream_id}; its window was {self._stream_window}",
                stream_id,
            )
        if flags & PADDED:
            payload = fragment(DATA, flags, stream_id, payload)
        ends = flags & END_STREAM
        if not payload and not ends:
            self._idle.spend()
        if stream.content_left is not None:
            self._count_content(stream, len(payload), size, bool(ends))
        if ends:
            stream.state |= PEER_ENDED
            if stream.state & ENDED:
                del self._streams[stream_id]
        if self._acknowledges:
            self.acknowledge(stream, size)
        elif len(payload) != size:
            self.acknowledge(stream, size - len(payload))
        stream.on_data(payload, bool(ends))

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise on_stream_0(HEADERS)
        if flags & (PADDED | PRIORITY_FLAG):
            payload = fragment(HEADERS, flags, stream_id, payload)
        if flags & END_HEADERS:
            self._take_block(stream_id, payload, bool(flags & END_STREAM))
            return
        if not payload:
            self._idle.spend()
        self._blocks.begin(stream_id, payload, ends=bool(flags & END_STREAM))
        self._expected = CONTINUATION

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._expected is None or stream_id != self._blocks.stream_id:
            raise unexpected(self._expected, CONTINUATION, stream_id)
        if not payload:
            self._idle.spend()
        block = self._blocks.go_on(payload, is_last=bool(flags & END_HEADERS))
        if block is not None:
            self._expected = None
            self._take_block(stream_id, block, self._blocks.ends)

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
            self._idle.spend()
            return
        message = f"the peer reset stream {stream_id}: {code_name(code)}"
        self._end_early(stream, Reset(code, message, Ender.PEER, unprocessed=code == ErrorCode.REFUSED_STREAM))
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
            self._end_early(stream, Reset(code, message % stream.id, Ender.PEER, unprocessed=True))

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

    # Streams.

    def _take_block(self, stream_id: int, block: bytes, ends: bool) -> None:
        fields = self._kept.get(block) or self._decoder.decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._accept(stream_id, fields)
            if stream is None:
                return
        elif stream.state & PEER_BEGAN:
            if stream.state & PEER_ENDED:
                message = f"HEADERS after the end of stream {stream_id}"
                raise StreamFailedError(ErrorCode.STREAM_CLOSED, message, stream_id)
            if not (ends and fields.are_trailers):
                raise malformed(stream_id, fields, TRAILERS)
        elif fields.status >= 200:
            stream.state |= PEER_BEGAN
            stream.content_left = fields.content_length
        else:
            self._take_informational(stream, fields, ends)
            return
        if ends:
            if stream.content_left is not None:
                self._count_content(stream, 0, 0, True)
            stream.state |= PEER_ENDED
            if stream.state & ENDED:
                del self._streams[stream_id]
        stream.on_headers(fields, ends)

    def _take_informational(self, stream: Stream, fields: Fields, ends: bool) -> None:
        if ends or fields.status in (0, 101):
            raise malformed(stream.id, fields, RESPONSE)
        self._idle.spend()
        stream.on_headers(fields, False)

    def _accept(self, stream_id: int, fields: Fields) -> Stream | None:
        """A request's stream; None for one that is not looked at."""
        if not self.is_server or stream_id % 2 == 0 or stream_id <= self._highest_id:
            self._check_not_idle(HEADERS, stream_id)
            if any(below < stream_id < above for below, above in self._gaps):
                raise never_opened(HEADERS, stream_id)
            self._check_late(HEADERS, stream_id)
            return None
        if stream_id > self._highest_id + 2:
            self._gaps.append((self._highest_id, stream_id))
        self._highest_id = stream_id
        if stream_id > self._accepts_up_to:
            self._remember_reset(stream_id)
            self._resets.spend()
            return None
        if len(self._streams) >= self.limits.streams_open_max:
            raise StreamFailedError(
                ErrorCode.REFUSED_STREAM,
                f"stream {stream_id} would be one more than the {self.limits.streams_open_max} that may be open",
                stream_id,
            )
        if fields.kind is not REQUEST or fields.problem:
            raise malformed(stream_id, fields, REQUEST)
        stream = self.events.on_stream(fields)
        set_up(stream, stream_id, self._sender.stream_window, PEER_BEGAN)
        stream.content_left = fields.content_length
        self._streams[stream_id] = stream
        return stream

    def _count_content(self, stream: Stream, count: int, frame_bytes: int, ends: bool) -> None:
        """Holds content against content-length (RFC 9113 §8.1.1). Raises StreamFailedError.

        A response without content may have any: it can be one to HEAD, which this end cannot see.
        """
        assert stream.content_left is not None
        stream.content_left -= count
        if count:
            stream.state |= PEER_SENT
        may_lack = not self.is_server and not stream.state & PEER_SENT
        if stream.content_left < 0 or (ends and stream.content_left and not may_lack):
            self._give_back(frame_bytes)
            how = f"{-stream.content_left} bytes more" if stream.content_left < 0 else f"{stream.content_left} less"
            raise StreamFailedError(
                ErrorCode.PROTOCOL_ERROR, f"{how} came on stream {stream.id} than its content-length says", stream.id
            )

    # What is wrong.

    def _refuse_data(self, stream: Stream | None, stream_id: int) -> None:
        if stream is None:
            if not stream_id:
                raise on_stream_0(DATA)
            self._check_not_idle(DATA, stream_id)
            self._check_late(DATA, stream_id)
            return
        if stream.state & PEER_ENDED:
            raise StreamFailedError(ErrorCode.STREAM_CLOSED, f"DATA after the end of stream {stream_id}", stream_id)
        raise StreamFailedError(
            ErrorCode.PROTOCOL_ERROR, f"DATA before the response headers of stream {stream_id}", stream_id
        )

    def _check_answers(self) -> None:
        if self._answers_waiting > self.limits.answers_waiting_max:
            raise failed(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"{self._answers_waiting} answers wait to be read; {self.limits.answers_waiting_max} may",
            )

    def _check_not_idle(self, kind: int, stream_id: int) -> None:
        """Raises ConnectionFailedError for a frame on a stream that was never opened."""
        if not stream_id:
            raise on_stream_0(kind)
        if self._is_idle(stream_id):
            raise never_opened(kind, stream_id)

    def _check_late(self, kind: int, stream_id: int) -> None:
        """Lets a frame pass that the peer may have sent before it heard of a reset; raises for any other."""
        if stream_id not in self._reset_ids and stream_id > self._reset_ids_forgotten:
            raise failed(ErrorCode.STREAM_CLOSED, f"a {kind_name(kind)} frame on stream {stream_id}, which has ended")

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
