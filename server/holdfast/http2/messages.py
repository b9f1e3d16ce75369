"""Requests and responses: what DATA, HEADERS and CONTINUATION frames do to streams (RFC 9113 §5.1 and §8.1)."""

import time
from collections.abc import Callable

from holdfast.http2.endpoint import Endpoint, Events
from holdfast.http2.errors import ErrorCode, StreamFailedError
from holdfast.http2.fields import REQUEST, RESPONSE, TRAILERS, Fields
from holdfast.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PRIORITY_FLAG,
    SETTINGS,
)
from holdfast.http2.headers import BlockAssembler, HeaderDecoder
from holdfast.http2.limits import Budget, Limits
from holdfast.http2.payloads import (
    fragment,
)
from holdfast.http2.settings import TABLE_BYTES_DEFAULT
from holdfast.http2.streams import ENDED, PEER_BEGAN, PEER_ENDED, PEER_SENT, Stream, set_up
from holdfast.http2.violations import (
    failed,
    malformed,
    never_opened,
    on_stream_0,
    unexpected,
)


class MessageReader(Endpoint):
    """The part of `Connection` that reads messages."""

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
        self._blocks = BlockAssembler(limits)
        self._decoder = HeaderDecoder(limits, max(TABLE_BYTES_DEFAULT, limits.header_table_bytes_max))
        self._kept = self._decoder.kept
        self._expected: int | None = SETTINGS
        self._idle = Budget("frames that move nothing", limits.idle_frames_per_s, limits.idle_frames_burst, clock)

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
            self._past.check_late(HEADERS, stream_id)
            if self.is_server:
                self._idle.spend()
            return None
        if stream_id > self._highest_id + 2:
            self._past.jumped(self._highest_id, stream_id)
        self._highest_id = stream_id
        if stream_id > self._accepts_up_to:
            self._past.reset(stream_id)
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

    def _refuse_data(self, stream: Stream | None, stream_id: int) -> None:
        if stream is None:
            if not stream_id:
                raise on_stream_0(DATA)
            self._check_not_idle(DATA, stream_id)
            self._past.check_late(DATA, stream_id)
            return
        if stream.state & PEER_ENDED:
            raise StreamFailedError(ErrorCode.STREAM_CLOSED, f"DATA after the end of stream {stream_id}", stream_id)
        raise StreamFailedError(
            ErrorCode.PROTOCOL_ERROR, f"DATA before the response headers of stream {stream_id}", stream_id
        )

    def _check_not_idle(self, kind: int, stream_id: int) -> None:
        """Raises ConnectionFailedError for a frame on a stream that was never opened."""
        if not stream_id:
            raise on_stream_0(kind)
        if self._is_idle(stream_id):
            raise never_opened(kind, stream_id)
