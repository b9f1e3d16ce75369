"""gRPC's interop test cases, made with the load engine's own calls.

After interop-test-descriptions.md of grpc/grpc; a case's name and numbers are those of that document. Each is a
function of a client, and fails by an assertion.
"""

import asyncio
import base64
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from google.protobuf.message import Message

from holdfast.http2 import Fields
from holdfast_loadtests.answers import Answer
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.exchanges import Exchange
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.messages import encode
from holdfast_loadtests.paced import ON_ANSWER, Pace, Paced
from holdfast_loadtests.targets import Target
from support.interop_servers import InteropServer, descriptor_set

TEST, UNIMPLEMENTED = "grpc.testing.TestService", "grpc.testing.UnimplementedService"
REQUEST_SIZES, ANSWER_SIZES = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
LARGE_REQUEST, LARGE_ANSWER = 271828, 314159
MESSAGE = "test status message"
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
METADATA = {INITIAL: "test_initial_metadata_value", TRAILING: base64.b64encode(b"\xab\xab\xab").decode()}
CANCELLED = Answer("Cancelled", None, "by the case", outcome="indefinite")


@dataclass
class Seen:
    """What came of a call: how it ended, and all that was received before."""

    answer: Answer | None = None
    headers: Fields | None = None
    trailers: Fields | None = None
    messages: list[Any] = field(default_factory=list)
    compressed: list[bool] = field(default_factory=list)

    @property
    def sizes(self) -> list[int]:
        return [len(message.payload.body) for message in self.messages]

    @property
    def code(self) -> str:
        assert self.answer is not None
        return self.answer.code


class NotAsAskedError(AssertionError):
    """An answer that is right, but plain where it was to be compressed, or the other way round."""


class Watching:
    """Part of an exchange that writes down what is received, and can cancel after so many messages."""

    seen: Seen
    read: Callable[[bytes], Message]
    cancel_after: int | None

    def on_headers(self, fields: Fields, ends: bool) -> None:
        if fields.status:
            self.seen.headers = fields
        if ends:
            self.seen.trailers = fields
        super().on_headers(fields, ends)  # type: ignore[misc]  # of an Exchange

    def _take_compressed(self, message: bytes) -> None:
        before = len(self.seen.compressed)
        super()._take_compressed(message)  # type: ignore[misc]
        self.seen.compressed[before:] = [True]

    def _take(self, message: bytes) -> None:
        self.seen.messages.append(self.read(message))
        self.seen.compressed.append(False)
        super()._take(message)  # type: ignore[misc]
        if len(self.seen.messages) == self.cancel_after:
            self.stop(CANCELLED)  # type: ignore[attr-defined]


class WatchedExchange(Watching, Exchange):
    """A call that is watched."""


class WatchedPaced(Watching, Paced):
    """A paced call that is watched."""


class InteropClient:
    """Calls a server over one connection, each call to its end."""

    def __init__(self, server: InteropServer) -> None:
        self._descriptors = Descriptors(descriptor_set())
        tls = server.security.context() if server.security else None
        self._target = Target(server.address, tls=tls)

    async def __aenter__(self) -> Self:
        self._expiry = Expiry(asyncio.get_running_loop(), expire)
        self.channel = Channel(0, self._target, self._expiry)
        failure = await self.channel.connect()
        assert failure == ""
        return self

    async def __aexit__(self, *_: object) -> None:
        self.channel.close()
        self._expiry.close()
        for link in self.channel._links:  # over TLS, grpcio's servers are slow to part
            if link._transport is not None:
                link._transport.abort()
        await self.channel.wait_closed()

    async def call(
        self,
        method: str,
        *bodies: dict[str, Any],
        service: str = TEST,
        metadata: dict[str, str] | None = None,
        deadline_s: float = 20.0,
        pace: Pace | None = None,
        cancel_at_once: bool = False,
        cancel_after: int | None = None,
        compressed: Sequence[bool] | None = None,
    ) -> Seen:
        """Makes one call; `cancel_at_once` sends its headers alone, `compressed` says it of each message."""
        described = self._descriptors.method(f"{service}/{method}")
        pairs = [(name.encode(), value.encode()) for name, value in (metadata or {}).items()]
        target = replace(self._target, compressed=compressed is not None)
        block = target.block(described.path, deadline_s, pairs)
        takes_many = described.grpc_type in ("server_stream", "bidi_stream")
        each = zip(bodies, compressed or itertools.repeat(False), strict=False)
        data = b"".join(frame([encode(described.request_class, body)], is_compressed) for body, is_compressed in each)
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        exchange: WatchedExchange | WatchedPaced
        if pace is None:
            exchange = WatchedExchange(self.channel, ended.set_result, None, takes_many)
        else:
            exchange = paced = WatchedPaced(self.channel, ended.set_result, None, takes_many, pace, data)
            data = paced.first
        exchange.seen, exchange.read, exchange.cancel_after = Seen(), described.response_class.FromString, cancel_after
        exchange.is_whole = exchange.is_whole and not cancel_at_once
        self.channel.begin(exchange, Prepared(block, deadline_s, takes_many), data)
        if cancel_at_once:
            exchange.stop(CANCELLED)
        async with asyncio.timeout(deadline_s + 10):
            exchange.seen.answer = await ended
        return exchange.seen


def body_of(size: int) -> dict[str, str]:
    """A payload of zeros, as JSON has it."""
    return {"body": base64.b64encode(bytes(size)).decode()}


def unary(answer_size: int, request_size: int, **more: object) -> dict[str, Any]:
    return {"response_size": answer_size, "payload": body_of(request_size), **more}


def output(sizes: Sequence[int], request_size: int = 0, **more: object) -> dict[str, Any]:
    parameters = [{"size": size} for size in sizes]
    return {"response_parameters": parameters, **({"payload": body_of(request_size)} if request_size else {}), **more}


LARGE = unary(LARGE_ANSWER, LARGE_REQUEST)


async def empty_unary(client: InteropClient) -> None:
    seen = await client.call("EmptyCall", {})
    assert (seen.code, [message.ByteSize() for message in seen.messages]) == ("OK", [0])


async def large_unary(client: InteropClient) -> None:
    seen = await client.call("UnaryCall", LARGE)
    assert (seen.code, seen.messages[0].payload.body) == ("OK", bytes(LARGE_ANSWER))


async def very_large_unary(client: InteropClient) -> None:
    """Not of the document: messages of 4 MB in both directions, more than any window."""
    seen = await client.call("UnaryCall", unary(4_000_000, 4_000_000))
    assert (seen.code, seen.sizes) == ("OK", [4_000_000])


async def server_compressed_unary(client: InteropClient) -> None:
    for wanted in (True, False):
        seen = await client.call("UnaryCall", {**LARGE, "response_compressed": {"value": wanted}})
        assert (seen.code, seen.sizes) == ("OK", [LARGE_ANSWER])
        if seen.compressed != [wanted]:
            raise NotAsAskedError(seen.compressed)


async def server_compressed_streaming(client: InteropClient) -> None:
    parameters = [{"size": 31415, "compressed": {"value": True}}, {"size": 92653, "compressed": {"value": False}}]
    seen = await client.call("StreamingOutputCall", {"response_parameters": parameters})
    assert (seen.code, seen.sizes) == ("OK", [31415, 92653])
    if seen.compressed != [True, False]:
        raise NotAsAskedError(seen.compressed)


def _expecting(body: dict[str, Any], compressed: bool) -> dict[str, Any]:
    return {**body, "expect_compressed": {"value": compressed}}


def _refused(probe: Seen) -> None:
    """What says that it is compressed and is not must be refused, else the case shows nothing."""
    if probe.code == "OK":
        raise NotAsAskedError("the server does not look whether requests are compressed")
    assert probe.code == "InvalidArgument"


async def client_compressed_unary(client: InteropClient) -> None:
    _refused(await client.call("UnaryCall", _expecting(LARGE, True), compressed=[False]))
    for is_compressed in (True, False):
        seen = await client.call("UnaryCall", _expecting(LARGE, is_compressed), compressed=[is_compressed])
        assert (seen.code, seen.sizes) == ("OK", [LARGE_ANSWER])


async def client_compressed_streaming(client: InteropClient) -> None:
    probe = _expecting({"payload": body_of(27182)}, True)
    _refused(await client.call("StreamingInputCall", probe, compressed=[False]))
    plain = _expecting({"payload": body_of(45904)}, False)
    seen = await client.call("StreamingInputCall", probe, plain, compressed=[True, False])
    assert (seen.code, seen.messages[0].aggregated_payload_size) == ("OK", 73086)


async def client_streaming(client: InteropClient) -> None:
    seen = await client.call("StreamingInputCall", *({"payload": body_of(size)} for size in REQUEST_SIZES))
    assert (seen.code, seen.messages[0].aggregated_payload_size) == ("OK", 74922)


async def server_streaming(client: InteropClient) -> None:
    seen = await client.call("StreamingOutputCall", output(ANSWER_SIZES))
    assert (seen.code, seen.sizes) == ("OK", list(ANSWER_SIZES))


async def ping_pong(client: InteropClient) -> None:
    turns = [output([answer], request) for answer, request in zip(ANSWER_SIZES, REQUEST_SIZES, strict=True)]
    seen = await client.call("FullDuplexCall", *turns, pace=ON_ANSWER)
    assert (seen.code, seen.sizes) == ("OK", list(ANSWER_SIZES))


async def empty_stream(client: InteropClient) -> None:
    seen = await client.call("FullDuplexCall")
    assert (seen.code, seen.messages) == ("OK", [])


async def half_duplex(client: InteropClient) -> None:
    """Not of the document: the service's last method, all requests before the first answer."""
    turns = [output([size]) for size in ANSWER_SIZES]
    seen = await client.call("HalfDuplexCall", *turns, pace=0.01)
    assert (seen.code, seen.sizes) == ("OK", list(ANSWER_SIZES))


async def custom_metadata(client: InteropClient) -> None:
    for seen in (
        await client.call("UnaryCall", LARGE, metadata=METADATA),
        await client.call("FullDuplexCall", output([LARGE_ANSWER], LARGE_REQUEST), metadata=METADATA),
    ):
        assert (seen.code, seen.sizes) == ("OK", [LARGE_ANSWER])
        assert seen.headers is not None
        assert seen.trailers is not None
        assert seen.headers.get(INITIAL.encode()) == METADATA[INITIAL].encode()
        trailing = seen.trailers.get(TRAILING.encode()) or b""
        assert base64.b64decode(trailing + b"=" * (-len(trailing) % 4)) == b"\xab\xab\xab"


async def _status(client: InteropClient, message: str, *methods: str) -> None:
    for method in methods:
        seen = await client.call(method, {"response_status": {"code": 2, "message": message}})
        assert seen.answer is not None
        assert (seen.code, seen.answer.details) == ("Unknown", message)


async def status_code_and_message(client: InteropClient) -> None:
    await _status(client, MESSAGE, "UnaryCall", "FullDuplexCall")


async def special_status_message(client: InteropClient) -> None:
    await _status(client, SPECIAL_MESSAGE, "UnaryCall")


async def unimplemented_method(client: InteropClient) -> None:
    assert (await client.call("UnimplementedCall", {})).code == "Unimplemented"


async def unimplemented_service(client: InteropClient) -> None:
    assert (await client.call("UnimplementedCall", {}, service=UNIMPLEMENTED)).code == "Unimplemented"


async def cancel_after_begin(client: InteropClient) -> None:
    seen = await client.call("StreamingInputCall", cancel_at_once=True)
    assert (seen.code, seen.messages) == ("Cancelled", [])
    await empty_unary(client)


async def cancel_after_first_response(client: InteropClient) -> None:
    turns = [output([answer], request) for answer, request in zip(ANSWER_SIZES, REQUEST_SIZES, strict=True)]
    seen = await client.call("FullDuplexCall", *turns, pace=ON_ANSWER, cancel_after=1)
    assert (seen.code, seen.sizes) == ("Cancelled", [31415])
    await empty_unary(client)


async def timeout_on_sleeping_server(client: InteropClient) -> None:
    turns = [output([], 27182), output([1])]  # the second would go at the answer to the first, which there is not
    seen = await client.call("FullDuplexCall", *turns, pace=ON_ANSWER, deadline_s=0.001)
    assert (seen.code, seen.messages) == ("DeadlineExceeded", [])
    await empty_unary(client)


async def rpc_soak(client: InteropClient) -> None:
    for _ in range(8):
        answers = await asyncio.gather(*(client.call("UnaryCall", LARGE) for _ in range(10)))
        assert [(seen.code, seen.sizes) for seen in answers] == [("OK", [LARGE_ANSWER])] * 10
    assert client.channel.dials == 1


Case = Callable[[InteropClient], Awaitable[None]]
CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        empty_unary, large_unary, very_large_unary, server_compressed_unary, server_compressed_streaming,
        client_compressed_unary, client_compressed_streaming,
        client_streaming, server_streaming, ping_pong, empty_stream, half_duplex, custom_metadata,
        status_code_and_message, special_status_message, unimplemented_method, unimplemented_service,
        cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server, rpc_soak,
    )
}  # fmt: skip
"""By the document's names; channel_soak, which takes a new channel for each call, is the test's to do."""

CLIENT_COMPRESSED = frozenset({"client_compressed_unary", "client_compressed_streaming"})
LACKS: dict[str, frozenset[str]] = {
    "go": frozenset({"server_compressed_streaming"}),
    "python": CLIENT_COMPRESSED,
    "node": CLIENT_COMPRESSED | {"server_compressed_unary", "server_compressed_streaming"},
}
"""Cases that an implementation answers with NotAsAskedError: it does not compress by the request's wish, or does not
look whether requests are compressed."""
