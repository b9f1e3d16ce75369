"""What this end sends: frames in order, as far as the peer's windows let data go, then the rest (RFC 9113 §5.2)."""

from collections import OrderedDict
from collections.abc import Callable

from holdfast.http2.encoding import EMPTIES_TABLE
from holdfast.http2.errors import ConnectionFailedError, ErrorCode, MisuseError, StreamFailedError, UnsentFullError
from holdfast.http2.frames import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS
from holdfast.http2.limits import FRAME_BYTES_MIN, WINDOW_BYTES_MAX
from holdfast.http2.payloads import headers_frames
from holdfast.http2.settings import WINDOW_BYTES_DEFAULT
from holdfast.http2.streams import ENDED, ENDING, GONE, Stream, Unsent


class Sender:
    """The sending half of a connection.

    Streams that wait for the connection's window take turns of one frame; one that waits for its own window costs
    nothing until that opens.

    Args:
        unsent_bytes_max: Most that may wait.
        on_ended: Called when a stream's END_STREAM is out.

    Attributes:
        out: Bytes to be sent, in order.
        window: What the peer takes on the whole connection before it says more, in bytes.
        stream_window: The same for a stream that is opened now.
        frame_bytes_max: The longest payload that the peer takes.
        unsent_bytes: What waits for windows.
    """

    __slots__ = (
        "_on_ended",
        "_ready",
        "_unsent_bytes_max",
        "before_block",
        "frame_bytes_max",
        "out",
        "stream_window",
        "unsent_bytes",
        "window",
    )

    def __init__(self, unsent_bytes_max: int, on_ended: Callable[[Stream], None]) -> None:
        self._unsent_bytes_max = unsent_bytes_max
        self._on_ended = on_ended
        self._ready: OrderedDict[int, Stream] = OrderedDict()
        self.out: list[bytes | memoryview] = []
        self.window = self.stream_window = WINDOW_BYTES_DEFAULT
        self.frame_bytes_max = FRAME_BYTES_MIN
        self.unsent_bytes = 0
        self.before_block = EMPTIES_TABLE

    def check_room(self, data: bytes, stream_window: int, *, waits: bool) -> None:
        """Raises UnsentFullError if what of the data cannot go now is too much to wait."""
        goes = 0 if waits else max(0, min(self.window, stream_window, len(data)))
        waiting = self.unsent_bytes + len(data) - goes
        if waiting > self._unsent_bytes_max and goes < len(data):
            raise UnsentFullError(
                f"{waiting} bytes would wait for the peer's windows; {self._unsent_bytes_max} may "
                "(Limits.unsent_bytes_max): send less at a time, and more after on_sent"
            )

    def begin(self, stream: Stream, block: bytes, data: bytes, ends: bool) -> None:
        """Sends the first headers of a stream, and data. The caller has checked that it may, and the room."""
        size, block_size = len(data), len(block)
        if (
            0 < size <= self.frame_bytes_max
            and size <= self.window
            and size <= stream.send_window
            and block_size <= FRAME_BYTES_MIN
            and not self.before_block
        ):  # nearly every unary call: two frames at once
            self.window -= size
            stream.send_window -= size
            if ends:
                stream.state = ENDING | ENDED
            pack = HEAD.pack
            self.out += (
                pack(block_size >> 8, block_size & 0xFF, HEADERS, END_HEADERS, stream.id),
                block,
                pack(size >> 8, size & 0xFF, DATA, END_STREAM if ends else 0, stream.id),
                data,
            )
        else:
            self.headers(stream, block, ends and not data)
            if data:
                self.data(stream, data, ends)

    def headers(self, stream: Stream, block: bytes, ends: bool) -> None:
        """Sends a header block, after the data that waits. The caller has checked that it may."""
        if ends:
            stream.state |= ENDING
        if stream.unsent is not None:
            stream.unsent.append((None, block, ends))
            return
        self._put_headers(stream, block, ends)

    def data(self, stream: Stream, data: bytes, ends: bool) -> None:
        """Sends data, or has it wait. The caller has checked that it may. Raises UnsentFullError."""
        size = len(data)
        if stream.unsent is None and (
            (size <= stream.send_window and size <= self.window and size <= self.frame_bytes_max) or not size
        ):
            if size or ends:
                self._put_data(stream, data, size, ends)
            return
        self.check_room(data, stream.send_window, waits=stream.unsent is not None)
        if ends:
            stream.state |= ENDING
        if stream.unsent is None:
            stream.unsent = Unsent()
        stream.unsent.append((memoryview(data), b"", ends))
        self.unsent_bytes += size
        self._make_ready(stream)
        self._go_on()

    def open_window(self, increment: int) -> None:
        """The peer takes more on the connection. Raises ConnectionFailedError if that is more than a window can be."""
        self.window += increment
        if self.window > WINDOW_BYTES_MAX:
            raise ConnectionFailedError(ErrorCode.FLOW_CONTROL_ERROR, _overflow("connection", self.window))
        if self._ready:
            self._go_on()

    def open_stream_window(self, stream: Stream, increment: int) -> None:
        """The peer takes more of a stream. Raises StreamFailedError if that is more than a window can be."""
        stream.send_window += increment
        if stream.send_window > WINDOW_BYTES_MAX:
            raise StreamFailedError(
                ErrorCode.FLOW_CONTROL_ERROR, _overflow(f"stream {stream.id}", stream.send_window), stream.id
            )
        if stream.unsent is not None:
            self._make_ready(stream)
            self._go_on()

    def set_stream_window(self, window_bytes: int, streams: list[Stream]) -> None:
        """Moves the windows of all streams, perhaps below zero: RFC 9113 §6.9.2. Raises ConnectionFailedError."""
        change = window_bytes - self.stream_window
        self.stream_window = window_bytes
        for stream in streams:
            stream.send_window += change
            if stream.send_window > WINDOW_BYTES_MAX:
                raise ConnectionFailedError(
                    ErrorCode.FLOW_CONTROL_ERROR, _overflow(f"stream {stream.id}", stream.send_window)
                )
            if stream.unsent is not None:
                self._make_ready(stream)
        self._go_on()

    def drop(self, stream: Stream) -> None:
        """Forgets what waits of a stream that is gone."""
        if stream.unsent is not None:
            self.unsent_bytes -= sum(len(data) for data, _, _ in stream.unsent if data is not None)
            stream.unsent = None
            self._ready.pop(stream.id, None)

    def _make_ready(self, stream: Stream) -> None:
        if stream.send_window > 0:
            self._ready[stream.id] = stream
        else:
            self._ready.pop(stream.id, None)

    def _go_on(self) -> None:
        ready = self._ready
        while ready and self.window > 0:
            _, stream = ready.popitem(last=False)
            self._send_one(stream)

    def _send_one(self, stream: Stream) -> None:
        """Sends one DATA frame of a stream, and what follows it that needs no window."""
        unsent = stream.unsent
        assert unsent
        data, _, ends = unsent[0]
        assert data is not None
        size = min(len(data), self.window, stream.send_window, self.frame_bytes_max)
        is_whole = size == len(data)
        self.unsent_bytes -= size
        if is_whole:
            unsent.popleft()
        else:
            unsent[0] = (data[size:], b"", ends)
        self._put_data(stream, data[:size], size, ends and is_whole)
        while unsent and not unsent[0][0]:
            data, block, ends = unsent.popleft()
            if data is None:
                self._put_headers(stream, block, ends)
            elif ends:
                self._put_data(stream, b"", 0, ends)
        if unsent:
            self._make_ready(stream)
        else:
            stream.unsent = None
            stream.on_sent()

    def _put_data(self, stream: Stream, data: bytes | memoryview, size: int, ends: bool) -> None:
        self.window -= size
        stream.send_window -= size
        self.out += (HEAD.pack(size >> 8, size & 0xFF, DATA, END_STREAM if ends else 0, stream.id), data)
        if ends:
            stream.state |= ENDING | ENDED
            self._on_ended(stream)

    def _put_headers(self, stream: Stream, block: bytes, ends: bool) -> None:
        if self.before_block:
            block = self.before_block + block
            self.before_block = b""
        size = len(block)
        if size <= FRAME_BYTES_MIN:
            flags = END_HEADERS | END_STREAM if ends else END_HEADERS
            self.out += (HEAD.pack(size >> 8, size & 0xFF, HEADERS, flags, stream.id), block)
        else:
            self.out.append(headers_frames(stream.id, block, ends=ends, frame_bytes_max=self.frame_bytes_max))
        if ends:
            stream.state |= ENDING | ENDED
            self._on_ended(stream)


def check_may_send(stream: Stream) -> None:
    """Raises MisuseError if nothing more can be sent on a stream."""
    if stream.state & (ENDING | GONE):
        how = "is gone" if stream.state & GONE else "was ended by this end"
        raise MisuseError(f"stream {stream.id} {how}: nothing can be sent on it")


def _overflow(whose: str, window: int) -> str:
    return f"the window of the {whose} would be {window} bytes; it can be {WINDOW_BYTES_MAX}"
