"""A gRPC client at the level of HTTP/2 frames, so cheap that servers are what is measured: some 10 µs for a message.

It knows what honest servers on loopback do and no more: no TLS, no reconnecting, no look into header blocks. A call
has succeeded when a message came; what the trailers say of one that failed is quoted as bytes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4

WINDOW = (1 << 31) - 1
"""Bytes that a server may send before it is told to go on: as many as HTTP/2 has."""

FRAME_BYTES_MAX = 16_384
"""Largest frame that a server takes unless it says otherwise."""

SETTINGS_SENT = b"\x00\x01" + (0).to_bytes(4, "big") + b"\x00\x04" + WINDOW.to_bytes(4, "big")
"""No header table, and the window."""


class CallFailedError(Exception):
    """A call ended without a message, or the connection did."""


class Stream:
    """One call."""

    def __init__(
        self,
        connection: "Connection",
        number: int,
        on_message: Callable[[bytes], None],
        on_end: Callable[[bytes], None],
    ) -> None:
        self._connection = connection
        self.number = number
        self.on_message = on_message
        self.on_end = on_end
        self.window = 0
        self.received = bytearray()

    def send(self, message: bytes, *, ends: bool = False) -> None:
        """Sends a message, and that it is the last."""
        self._connection.send(self, b"\0" + len(message).to_bytes(4, "big") + message, ends)

    def cancel(self) -> None:
        """Ends the call; nothing more is heard of it."""
        self._connection.cancel(self)

    def take(self, data: bytes) -> None:
        """Hands on the messages that are complete."""
        received = self.received
        received += data
        position = 0
        while len(received) - position >= 5:
            after = position + 5 + int.from_bytes(received[position + 1 : position + 5], "big")
            if after > len(received):
                break
            self.on_message(bytes(received[position + 5 : after]))
            position = after
        del received[:position]


class Connection(asyncio.Protocol):
    """One connection; use `connected`."""

    def __init__(self, authority: str) -> None:
        self._authority = authority.encode()
        self._blocks: dict[str, bytes] = {}
        self._streams: dict[int, Stream] = {}
        self._next_number = 1
        self._received = bytearray()
        self._window = self._initial_window = 65_535
        self._unacknowledged = 0
        self._held_back: deque[tuple[Stream, bytes, bool]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()

    # Calling.

    def open(self, path: str, on_message: Callable[[bytes], None], on_end: Callable[[bytes], None]) -> Stream:
        """Begins a call; `on_end` gets the trailers, as they came."""
        stream = Stream(self, self._next_number, on_message, on_end)
        self._next_number += 2
        stream.window = self._initial_window
        self._streams[stream.number] = stream
        block = self._blocks.get(path)
        if block is None:
            block = self._blocks[path] = _block(path, self._authority)
        self._write(_frame(HEADERS, END_HEADERS, stream.number, block))
        return stream

    def call(self, path: str, message: bytes) -> "asyncio.Future[bytes]":
        """A unary call. Raises CallFailedError when awaited."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        answers: list[bytes] = []

        def end(trailers: bytes) -> None:
            if answer.done():
                return
            if answers:
                answer.set_result(answers[0])
            else:
                answer.set_exception(CallFailedError(f"{path} failed: {trailers!r}"))

        self.open(path, answers.append, end).send(message, ends=True)
        return answer

    def send(self, stream: Stream, data: bytes, ends: bool) -> None:
        """Sends data, as far as the windows let it go, and the rest when they do."""
        self._held_back.append((stream, data, ends))
        if len(self._held_back) == 1:
            self._send_held_back()

    def cancel(self, stream: Stream) -> None:
        """See Stream."""
        if self._streams.pop(stream.number, None) is not None:
            self._write(_frame(RST_STREAM, 0, stream.number, (8).to_bytes(4, "big")))

    async def close(self) -> None:
        """Closes the connection, and sees it closed: a server that drains would wait for it."""
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()

    def _send_held_back(self) -> None:
        """In order, so a stream without window holds those behind it back: benchmarks send little on each."""
        while self._held_back:
            stream, data, ends = self._held_back[0]
            size = min(len(data), self._window, stream.window)
            for start in range(0, size, FRAME_BYTES_MAX):
                piece = data[start : min(start + FRAME_BYTES_MAX, size)]
                is_last = ends and start + len(piece) == len(data)
                self._write(_frame(DATA, END_STREAM if is_last else 0, stream.number, piece))
            self._window -= size
            stream.window -= size
            if size < len(data):
                self._held_back[0] = (stream, data[size:], ends)
                return
            self._held_back.popleft()

    def _write(self, data: bytes) -> None:
        """Gathers what is written in one turn of the loop into one system call."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # As the transport's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets the server."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(PREFACE + _frame(SETTINGS, 0, 0, SETTINGS_SENT) + _window_update(WINDOW - 65_535))

    def data_received(self, data: bytes) -> None:
        """Takes frames in."""
        received = self._received
        received += data
        position, there = 0, len(received)
        while there - position >= 9:
            after = position + 9 + int.from_bytes(received[position : position + 3], "big")
            if after > there:
                break
            number = int.from_bytes(received[position + 5 : position + 9], "big")
            self._take(received[position + 3], received[position + 4], number, bytes(received[position + 9 : after]))
            position = after
        del received[:position]

    def connection_lost(self, _error: Exception | None) -> None:
        """Ends every call."""
        for stream in list(self._streams.values()):
            stream.on_end(b"the connection was lost")
        self._streams.clear()
        self._lost.set()

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            self._acknowledge(len(payload))
            stream = self._streams.get(number)
            if stream is not None:
                stream.take(payload)
        elif kind == WINDOW_UPDATE:
            self._open_window(number, int.from_bytes(payload, "big"))
        elif kind == SETTINGS and not flags & ACK:
            self._settle(payload)
        elif kind == PING and not flags & ACK:
            self._write(_frame(PING, ACK, 0, payload))
        if (kind in (DATA, HEADERS) and flags & END_STREAM) or kind == RST_STREAM:
            ended = self._streams.pop(number, None)
            if ended is not None:
                ended.on_end(payload)

    def _acknowledge(self, count: int) -> None:
        """Gives the connection's window back before it is used up; a stream's own outlasts the benchmark."""
        self._unacknowledged += count
        if self._unacknowledged > WINDOW // 4:
            self._write(_window_update(self._unacknowledged))
            self._unacknowledged = 0

    def _open_window(self, number: int, more: int) -> None:
        if number == 0:
            self._window += more
        elif number in self._streams:
            self._streams[number].window += more
        self._send_held_back()

    def _settle(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            if payload[start : start + 2] == b"\x00\x04":
                window = int.from_bytes(payload[start + 2 : start + 6], "big")
                for stream in self._streams.values():
                    stream.window += window - self._initial_window
                self._initial_window = window
        self._write(_frame(SETTINGS, ACK, 0, b""))
        self._send_held_back()


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Connection]:
    """A connection to `host:port` until the block ends."""
    host, port = address.rsplit(":", 1)
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(address), host, int(port))
    try:
        yield connection
    finally:
        await connection.close()


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def _window_update(more: int) -> bytes:
    return _frame(WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big"))


def _block(path: str, authority: bytes) -> bytes:
    """Request headers: `POST` and `http` from the static table (3, 6), the rest as literals that touch no table."""
    block = b"\x83\x86" + b"\x04" + _string(path.encode()) + b"\x01" + _string(authority)
    return block + b"\x00" + _string(b"te") + _string(b"trailers") + b"\x0f\x10" + _string(b"application/grpc")


def _string(text: bytes) -> bytes:
    assert len(text) < 127, f"{text!r} is too long for a length of seven bits"
    return bytes((len(text),)) + text
