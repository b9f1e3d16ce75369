"""A gRPC client on the HTTP/2 codec, so cheap that servers are what is measured: some 10 µs for a message.

It knows what honest servers on loopback do and no more: no TLS, no reconnecting, no deadlines. A call has succeeded
when a message came; what the trailers say of one that failed is quoted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from holdfast.http2 import Connection as Codec
from holdfast.http2 import ErrorCode, Events, Fields, Limits, Reset, encode
from holdfast.http2 import Stream as CodecStream
from holdfast.http2.limits import STREAM_ID_MAX, WINDOW_BYTES_MAX

WIDE = Limits(
    stream_window_bytes=WINDOW_BYTES_MAX, connection_window_bytes=WINDOW_BYTES_MAX, unsent_bytes_max=STREAM_ID_MAX
)
"""Servers are not held back: they may send as much as HTTP/2 has before they are told to go on."""


class CallFailedError(Exception):
    """A call ended without a message, or the connection did."""


class Stream(CodecStream):
    """One call."""

    __slots__ = ("_connection", "_on_end", "_on_message", "_rest")

    def __init__(
        self, connection: "Connection", on_message: Callable[[bytes], None], on_end: Callable[[bytes], None]
    ) -> None:
        self._connection = connection
        self._on_message = on_message
        self._on_end = on_end
        self._rest = b""

    def send(self, message: bytes, *, ends: bool = False) -> None:
        """Sends a message, and that it is the last."""
        self._connection.codec.send(self, b"\0" + len(message).to_bytes(4, "big") + message, ends=ends)
        self._connection.flush_soon()

    def cancel(self) -> None:
        """Ends the call; nothing more is heard of it."""
        self._connection.codec.reset(self, ErrorCode.CANCEL)
        self._connection.flush_soon()

    def on_headers(self, fields: Fields, ends: bool) -> None:
        """Trailers end a call."""
        if ends:
            self._on_end(repr(fields.pairs).encode())

    def on_data(self, data: bytes, ends: bool) -> None:
        """Hands on the messages that are complete."""
        if self._rest:
            data = self._rest + data
        position, there = 0, len(data)
        while there - position >= 5:
            after = position + 5 + int.from_bytes(data[position + 1 : position + 5], "big")
            if after > there:
                break
            self._on_message(data[position + 5 : after])
            position = after
        self._rest = data[position:]
        if ends:
            self._on_end(b"no trailers")

    def on_reset(self, reset: Reset) -> None:
        """The call failed."""
        self._on_end(reset.message.encode())


class Connection(asyncio.Protocol):
    """One connection; use `connected`."""

    def __init__(self, authority: str) -> None:
        self.codec = Codec(is_server=False, events=Events(), limits=WIDE)
        self._authority = authority.encode()
        self._blocks: dict[str, bytes] = {}
        self._is_flushed_soon = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()
        self._lost = asyncio.Event()

    # Calling.

    def open(self, path: str, on_message: Callable[[bytes], None], on_end: Callable[[bytes], None]) -> Stream:
        """Begins a call; `on_end` gets what is said of its end."""
        stream = Stream(self, on_message, on_end)
        self.codec.open(stream, self._block(path))
        self.flush_soon()
        return stream

    def call(self, path: str, message: bytes) -> "asyncio.Future[bytes]":
        """A unary call. Raises CallFailedError when awaited."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        answers: list[bytes] = []

        def end(said: bytes) -> None:
            if answer.done():
                return
            if answers:
                answer.set_result(answers[0])
            else:
                answer.set_exception(CallFailedError(f"{path} failed: {said.decode()}"))

        data = b"\0" + len(message).to_bytes(4, "big") + message
        self.codec.open(Stream(self, answers.append, end), self._block(path), data, ends=True)
        self.flush_soon()
        return answer

    async def settled(self) -> None:
        """Waits for the server's settings: how many streams it takes, before all."""
        await self._settled.wait()

    async def close(self) -> None:
        """Closes the connection, and sees it closed: a server that drains would wait for it."""
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()

    def flush_soon(self) -> None:
        """Gathers what is written in one turn of the loop into one system call."""
        if not self._is_flushed_soon:
            self._is_flushed_soon = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushed_soon = False
        if self._transport is not None and not self._transport.is_closing() and self.codec.has_output:
            self._transport.write(self.codec.take_output())

    def _block(self, path: str) -> bytes:
        block = self._blocks.get(path)
        if block is None:
            fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode())]
            fields += [(b":authority", self._authority), (b"te", b"trailers"), (b"content-type", b"application/grpc")]
            block = self._blocks[path] = encode(fields)
        return block

    # As the transport's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets the server."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Takes frames in."""
        self.codec.receive(data)
        self._settled.set()
        if self.codec.has_output:
            self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        """Ends every call."""
        self.codec.lost()
        self._settled.set()
        self._lost.set()


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Connection]:
    """A connection to `host:port` until the block ends."""
    host, port = address.rsplit(":", 1)
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(address), host, int(port))
    try:
        await connection.settled()
        yield connection
    finally:
        await connection.close()
