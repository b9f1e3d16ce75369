"""A gRPC server made of the codec's other role, in the test's own event loop: it answers as it is told."""

import asyncio
from collections.abc import Callable

from holdfast.http2 import Connection, ConnectionFailedError, Events, Limits, Stream, encode
from holdfast_loadtests.framing import frame

HEADERS = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])


def trailers(status: bytes, message: bytes = b"") -> bytes:
    return encode([(b"grpc-status", status), *([(b"grpc-message", message)] if message else [])])


class Served(Stream):
    def __init__(self, owner: "ServerSide", fields) -> None:
        self.owner = owner
        self.fields = fields
        self.data = b""

    def on_data(self, data: bytes, ends: bool) -> None:
        self.data += data
        if ends:
            self.owner.answer(self)


class ServerSide(asyncio.Protocol, Events):
    """A connection of a gRPC server that answers as it is told."""

    def __init__(self, answer: Callable[["ServerSide", Served], None], limits: Limits | None = None) -> None:
        self._answer = answer
        self.codec = Connection(is_server=True, events=self, limits=limits or Limits())
        self.streams: list[Served] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            self.codec.receive(data)
        except ConnectionFailedError:
            self.transport.close()
        self.flush()

    def on_stream(self, fields) -> Stream:
        self.streams.append(Served(self, fields))
        return self.streams[-1]

    def answer(self, stream: Served) -> None:
        self._answer(self, stream)
        self.flush()

    def flush(self) -> None:
        if self.codec.has_output and not self.transport.is_closing():
            self.transport.write(self.codec.take_output())

    def ok(self, stream: Served, *messages: bytes) -> None:
        self.codec.send_headers(stream, HEADERS)
        for message in messages:
            self.codec.send(stream, frame([message]))
        self.codec.send_headers(stream, trailers(b"0"), ends=True)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what no event tells; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.01)
