"""Every rpc of the service by its descriptor, called as gRPC would: bytes in, a status and bytes out."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details_pb2  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from holdfast.errors import DOMAIN, Reason
from holdfast.service.transport import Gate, Transport
from holdfast.serving.health import Health
from holdfast.serving.metrics import Metrics
from holdfast.serving.server import (
    ACTIVATION_SERVICE,
    DECISION_SERVICE,
    ELECTION_SERVICE,
    HANDOFF_SERVICE,
    HEALTH_SERVICE,
    LEASE_SERVICE,
    LOCK_SERVICE,
    QUOTA_SERVICE,
    REGISTRY_SERVICE,
)
from support.replica import Replica

METHODS: list[MethodDescriptor] = [
    method
    for service in (
        REGISTRY_SERVICE,
        LEASE_SERVICE,
        DECISION_SERVICE,
        LOCK_SERVICE,
        ELECTION_SERVICE,
        ACTIVATION_SERVICE,
        HANDOFF_SERVICE,
        QUOTA_SERVICE,
    )
    for method in service.methods
]

WAITING = frozenset({"AcquireLock", "Campaign", "FetchAssignments"})
"""Unary calls that may wait for long; one that does counts as answered."""

DETAIL_OF: dict[grpc.StatusCode, type[Message]] = {
    grpc.StatusCode.INVALID_ARGUMENT: details_pb2.BadRequest,
    grpc.StatusCode.NOT_FOUND: details_pb2.ResourceInfo,
    grpc.StatusCode.ALREADY_EXISTS: details_pb2.ResourceInfo,
    grpc.StatusCode.ABORTED: details_pb2.ResourceInfo,
    grpc.StatusCode.FAILED_PRECONDITION: details_pb2.PreconditionFailure,
    grpc.StatusCode.RESOURCE_EXHAUSTED: details_pb2.QuotaFailure,
    grpc.StatusCode.UNAVAILABLE: details_pb2.RetryInfo,
}
"""The second detail of an error of each code; OUT_OF_RANGE and UNIMPLEMENTED have ErrorInfo alone."""

TRAILERS_BYTES_MAX = 8 << 10
"""What gRPC clients read of trailers."""

QUIET_S = 0.2
"""How long a stream may say nothing before it counts as one that waits; a bound, nothing rests on it."""


@dataclass
class Answer:
    """How a call ended: OK with what came, or a status."""

    responses: list[bytes] = field(default_factory=list[bytes])
    code: grpc.StatusCode = grpc.StatusCode.OK
    status: Status = field(default_factory=Status)

    @property
    def reason(self) -> str:
        """The reason of a refusal."""
        info = details_pb2.ErrorInfo()
        assert self.status.details[0].Unpack(info), self
        return str(info.reason)

    @property
    def fields(self) -> list[str]:
        """The fields that a refusal names."""
        bad = details_pb2.BadRequest()
        assert self.status.details[1].Unpack(bad), self
        return [violation.field for violation in bad.field_violations]


class _EndedError(Exception):
    """The call was aborted."""


class _Context:
    """What a handler sees of a call; `told` is set at the first message of a stream."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.told = asyncio.Event()
        self.done: list[Callable[[object], None]] = []

    def peer(self) -> str:
        return ""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, trailers: object) -> None:
        """Only those of an abort matter here."""

    def time_remaining(self) -> None:
        return None

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self.done.append(callback)

    async def write(self, response: Message | bytes) -> None:
        self._answer.responses.append(response if isinstance(response, bytes) else response.SerializeToString())
        self.told.set()

    async def abort(self, code: grpc.StatusCode, message: str, trailers: Iterable[tuple[str, str | bytes]]) -> None:
        self._answer.code = code
        self._answer.status = Status.FromString(cast("bytes", dict(trailers)["grpc-status-details-bin"]))
        assert self._answer.status.message == message
        raise _EndedError


@dataclass(frozen=True)
class _Details(grpc.HandlerCallDetails):
    """Which handler is asked for."""

    method: str
    invocation_metadata: tuple[()] = ()


class Surface:
    """All rpcs over one replica; `gate` lets them in."""

    def __init__(self, here: Replica) -> None:
        self.gate = Gate()
        self.gate.open()
        transport = Transport(self.gate, Metrics().observer_for)
        self._services = [
            transport.service(REGISTRY_SERVICE, here.agents),
            transport.service(LEASE_SERVICE, here.leases),
            transport.service(DECISION_SERVICE, here.decisions),
            transport.service(LOCK_SERVICE, here.locks),
            transport.service(ELECTION_SERVICE, here.elections),
            transport.service(ACTIVATION_SERVICE, here.activations),
            transport.service(HANDOFF_SERVICE, here.handoffs),
            transport.service(QUOTA_SERVICE, here.quotas),
            transport.service(HEALTH_SERVICE, Health([]), gated=False),
        ]

    async def ask(self, name: str, request: Message, **how: bool) -> Answer:
        """One call of the method of this name."""
        method = next(each for each in [*METHODS, *HEALTH_SERVICE.methods] if each.name == name)
        answer = await self.call(method, request.SerializeToString(), **how)
        assert_fitting(answer, method.input_type)
        return answer

    async def call(self, method: MethodDescriptor, data: bytes, *, to_its_end: bool = False) -> Answer:
        """One call with one message; of a stream, what it says first, unless it is heard to its end."""
        answer = Answer()
        context = _Context(answer)
        running = asyncio.ensure_future(self._run(self._handler(method), data, context))
        first = asyncio.ensure_future(context.told.wait())
        is_stream = method.server_streaming and not to_its_end
        await asyncio.wait(
            {running, first} if is_stream else {running},
            timeout=QUIET_S if is_stream or method.name in WAITING else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        first.cancel()
        running.cancel()
        for callback in context.done:
            callback(context)
        (outcome,) = await asyncio.gather(running, return_exceptions=True)
        if isinstance(outcome, bytes):
            answer.responses.append(outcome)
        elif isinstance(outcome, BaseException) and not isinstance(outcome, _EndedError | asyncio.CancelledError):
            raise outcome
        return answer

    def _handler(self, method: MethodDescriptor) -> Any:
        details = _Details(f"/{method.containing_service.full_name}/{method.name}")
        return next(found for service in self._services if (found := service.service(details)) is not None)

    async def _run(self, handler: Any, data: bytes, context: _Context) -> bytes | None:
        request = handler.request_deserializer(data)
        if handler.stream_stream is not None:
            await handler.stream_stream(_once(request), context)
        elif handler.unary_stream is not None:
            await handler.unary_stream(request, context)
        else:
            return cast("bytes", await handler.unary_unary(request, context))
        return None


async def _once(request: object) -> AsyncIterator[object]:
    yield request


def assert_fitting(answer: Answer, request: Descriptor) -> None:
    """OK, or a refusal of the table with its code, its details, fields that there are, and a size clients read."""
    if answer.code is grpc.StatusCode.OK:
        return
    status = answer.status
    info = details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info), answer
    assert info.domain == DOMAIN, answer
    reason = Reason[info.reason]
    assert answer.code.value[0] == reason.value.code == status.code, answer
    assert_detail(answer.code, status.details[1:])
    assert _trailers_bytes(status) < TRAILERS_BYTES_MAX, answer
    if answer.code is grpc.StatusCode.INVALID_ARGUMENT:
        assert answer.fields, answer
        for path in answer.fields:
            assert path == "request" or is_field(request, path), (path, answer)


def assert_detail(code: grpc.StatusCode, details: Iterable[AnyMessage]) -> None:
    """The details after ErrorInfo are those that the code asks for."""
    wanted = DETAIL_OF.get(code)
    found = [detail.TypeName() for detail in details]
    assert found == ([wanted.DESCRIPTOR.full_name] if wanted is not None else []), (code, found)


def _trailers_bytes(status: Status) -> int:
    message = status.message.encode()
    return sum(1 if 32 <= byte < 127 else 3 for byte in message) + len(status.SerializeToString()) * 4 // 3


def is_field(descriptor: Descriptor, path: str) -> bool:
    """Does this path lead to a field of the message? What is in brackets may be any key or index."""
    name, rest = re.match(r"(\w*)(.*)", path, re.DOTALL).groups()  # type: ignore[union-attr] # it matches anything
    found = descriptor.fields_by_name.get(name)
    if found is None:
        return False
    if rest.startswith('["'):
        return bool(found.message_type and found.message_type.GetOptions().map_entry)
    index = re.match(r"\[\d+\]", rest)
    if index is not None:
        if not found.is_repeated:
            return False
        rest = rest[index.end() :]
    if not rest:
        return True
    return rest.startswith(".") and found.message_type is not None and is_field(found.message_type, rest[1:])
