"""Gives handlers to grpc.aio: the one place that knows grpcio's types.

Every call is checked against the field rules, carries a correlation id, is counted and timed, and ends with a
`google.rpc.Status` if it fails. Methods of the API without a handler answer UNIMPLEMENTED.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeAlias, cast

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from holdfast import validation
from holdfast.errors import Fault, HoldfastError, Reason, invalid_field
from holdfast.service.context import CallContext
from holdfast.service.room import Room

CORRELATION_KEY = "x-correlation-id"
"""Metadata key of the correlation id, both ways."""

REQUEST_BYTES_MAX = 4 << 20
"""Largest request: gRPC's usual limit."""

UPLOAD_BYTES_MAX = 4 * REQUEST_BYTES_MAX
"""Largest message that gRPC takes in. Beyond `REQUEST_BYTES_MAX` that is only to tell its caller what is wrong: gRPC's
own refusal has no details.
"""

LARGE_RESPONSE_BYTES = 64 << 10
"""Unary responses beyond this size go out a few at a time; see `room`."""

RESPONSES_WAITING_MAX = 32
"""Most such responses to one host that wait for their turn; beyond, calls are OVERLOADED."""

DEADLINE_SLACK_S = 0.01
"""A call that ends so shortly before its deadline ended for it: the caller's clock began earlier than ours."""

_CORRELATION_ID = re.compile(r"[A-Za-z0-9_.:/=+-]{1,128}")
_STATUS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}

log = structlog.get_logger()

Handler: TypeAlias = Callable[..., Any]
"""`async (request, context) -> response`, or an async iterator of responses, of the descriptor's types."""

GrpcContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallObserver(Protocol):
    """Counts the calls of one method."""

    def started(self) -> None:
        """A call came in."""
        ...

    def handled(self, code: grpc.StatusCode, seconds: float) -> None:
        """A call ended."""
        ...


ObserverFor = Callable[[str, str, str], CallObserver]
"""Gives the observer of a service, method and type (`unary`, `server_stream`, `client_stream`, `bidi_stream`)."""


class Gate:
    """Whether calls are let in, and the streams that must end before the server can."""

    def __init__(self) -> None:
        self._refusal: str | None = "the server is starting"
        self._streams: set[asyncio.Task[Any]] = set()
        self.is_draining = False

    def open(self) -> None:
        """Lets calls in."""
        self._refusal = None

    def drain(self) -> None:
        """Refuses new calls and ends streams; unary calls go on."""
        self._refusal = "the server is shutting down"
        self.is_draining = True
        for task in self._streams:
            task.cancel()

    def check(self) -> None:
        """Raises NOT_READY unless calls are let in."""
        if self._refusal is not None:
            raise HoldfastError(Reason.NOT_READY, f"{self._refusal}; try again after the delay, or at another replica.")

    def enter(self) -> asyncio.Task[Any]:
        """Counts the current task as a stream to be ended by `drain`."""
        task = asyncio.current_task()
        assert task is not None, "a stream's handler runs in a task"
        self._streams.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        """The stream has ended."""
        self._streams.discard(task)


class Transport:
    """Makes grpcio handlers of a service's descriptor and an object with a method for each rpc, named in snake_case.

    Args:
        gate: Refuses calls while the server is not ready.
        observer_for: Gives what counts each method's calls.
    """

    def __init__(self, gate: Gate, observer_for: ObserverFor) -> None:
        self._gate = gate
        self._observer_for = observer_for
        self._room = Room(small_bytes=LARGE_RESPONSE_BYTES, waiting_max=RESPONSES_WAITING_MAX)

    def service(self, descriptor: ServiceDescriptor, handlers: object, *, gated: bool = True) -> grpc.GenericRpcHandler:
        """All methods of a service. Without `gated` they answer even while the server is not ready."""
        methods = {method.name: self._method(descriptor, method, handlers, gated) for method in descriptor.methods}
        return grpc.method_handlers_generic_handler(descriptor.full_name, methods)

    def _method(
        self, service: ServiceDescriptor, method: MethodDescriptor, handlers: object, gated: bool
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        kind = _kind(method)
        observer = self._observer_for(service.full_name, method.name, kind)
        handler = getattr(handlers, _snake(method.name), None) or _not_built(service, method)
        gate = self._gate if gated else None
        call = _Call(service.full_name, method.name, handler, gate, self._gate, observer, self._room)
        read = _reader(GetMessageClass(method.input_type))
        match kind:
            case "unary":
                return grpc.unary_unary_rpc_method_handler(call.unary, read)
            case "server_stream":
                return grpc.unary_stream_rpc_method_handler(call.server_stream, read, _serialise)
            case "bidi_stream":
                return grpc.stream_stream_rpc_method_handler(call.bidi_stream, read, _serialise)
            case _:
                raise NotImplementedError(f"{method.full_name} is a {kind}; no rpc of the API is one yet")


class _Call:
    """Carries the calls of one method from grpcio to its handler and back."""

    def __init__(
        self,
        service: str,
        method: str,
        handler: Handler,
        gate: Gate | None,
        streams: Gate,
        observer: CallObserver,
        room: Room,
    ) -> None:
        self._service = service
        self._method = method
        self._handler = handler
        self._gate = gate
        self._streams = streams
        self._observer = observer
        self._room = room

    async def unary(self, request: Message | HoldfastError, context: GrpcContext) -> bytes:
        """A unary call. Its response is serialised here, since to ask for its size would cost as much once more."""
        waiting = [request]
        del request  # frames of an abort go with the collector only, and must not hold megabytes

        async def answer(call: CallContext) -> bytes:
            asked = _checked(waiting.pop())
            response = _serialise(await self._handler(asked, call))
            give_back = await self._room.take(call.client, len(response))
            if give_back is not None:
                context.add_done_callback(cast("Any", give_back))  # the stubs take no function
            return response

        response = await self._carry(answer, context)
        assert response is not None, "a unary call ends with a response or an abort"
        return response

    async def server_stream(self, request: Message | HoldfastError, context: GrpcContext) -> None:
        """A call with a stream of responses."""
        waiting = [request]
        del request

        async def answer(call: CallContext) -> None:
            await self._send(self._handler(_checked(waiting.pop()), call), context)

        await self._carry(answer, context)

    async def bidi_stream(self, requests: AsyncIterator[Message | HoldfastError], context: GrpcContext) -> None:
        """A call with streams both ways."""
        readable = (_readable(request) async for request in requests)
        await self._carry(lambda call: self._send(self._handler(readable, call), context), context)

    async def _send(self, responses: AsyncIterator[Message | bytes], context: GrpcContext) -> None:
        task = self._streams.enter()
        try:
            async for response in responses:
                await context.write(response)
        except grpc.aio.InternalError:  # the connection has just ended: the call ends as by its caller
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            if not self._streams.is_draining:
                raise
            task.uncancel()
            raise HoldfastError(
                Reason.STREAM_DRAINED, "the server is shutting down; open the stream again elsewhere or later."
            ) from None
        finally:
            self._streams.leave(task)

    async def _carry(
        self, answer: Callable[[CallContext], Awaitable[bytes | None]], context: GrpcContext
    ) -> bytes | None:
        """Runs one call: its id, its count, its time, and its error if it has one."""
        started_s = time.perf_counter()
        self._observer.started()
        code = grpc.StatusCode.CANCELLED
        correlation_id = _correlation_id(context)
        context.set_trailing_metadata(((CORRELATION_KEY, correlation_id),))
        try:
            if self._gate is not None:
                self._gate.check()
            response = await answer(CallContext(self._service, self._method, correlation_id, _client(context)))
            code = grpc.StatusCode.OK
        except asyncio.CancelledError:
            remaining_s = context.time_remaining()
            if remaining_s is not None and remaining_s <= DEADLINE_SLACK_S:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        except HoldfastError as error:
            code = _CODES[error.reason.value.code]
            self._tell(error, correlation_id)
            _let_frames_go(error)
            await _abort(context, error, correlation_id)
        except Exception:
            code = grpc.StatusCode.INTERNAL
            log.exception("call_failed", service=self._service, method=self._method, correlation_id=correlation_id)
            message = f"a defect of the server; report it with correlation id {correlation_id}."
            await _abort(context, HoldfastError(Reason.INTERNAL, message), correlation_id)
        else:
            return response
        finally:
            self._observer.handled(code, time.perf_counter() - started_s)
        return None

    def _tell(self, error: HoldfastError, correlation_id: str) -> None:
        """Refusals are the callers' business; what the server could not do is the operator's."""
        tell = log.warning if error.reason.value.fault is Fault.SERVER else log.debug
        tell(
            "call_refused",
            service=self._service,
            method=self._method,
            correlation_id=correlation_id,
            reason=error.reason.name,
            message=error.message,
        )


def _let_frames_go(error: BaseException | None) -> None:
    """Forgets where an error came from: its frames hold the request, megabytes of it, until the collector runs."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def _abort(context: GrpcContext, error: HoldfastError, correlation_id: str) -> None:
    status = error.to_status()
    trailers = ((CORRELATION_KEY, correlation_id), (_STATUS_KEY, status.SerializeToString()))
    await context.abort(_CODES[status.code], status.message, trailers)


def _client(context: GrpcContext) -> str:
    """The caller's host: `ipv4:192.0.2.1` of `ipv4:192.0.2.1:40312`."""
    return (context.peer() or "").rpartition(":")[0]


def _correlation_id(context: GrpcContext) -> str:
    """The caller's id if it sent one that is fit for a log line, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == CORRELATION_KEY and isinstance(value, str) and _CORRELATION_ID.fullmatch(value):
            return value
    return f"{random.getrandbits(64):016x}"


def _reader(message_type: type[Message]) -> Callable[[bytes], Message | HoldfastError]:
    """Reads a request; what cannot be read is an answer too, since grpcio makes UNKNOWN or INTERNAL of a raise."""

    def read(data: bytes) -> Message | HoldfastError:
        if len(data) > REQUEST_BYTES_MAX:
            return invalid_field(
                "request", f"has {len(data)} bytes, more than the {REQUEST_BYTES_MAX} allowed; send less at a time"
            )
        try:
            return message_type.FromString(data)
        except DecodeError as error:
            return invalid_field("request", f"cannot be read: {str(error)[:300]}; strings must be UTF-8")

    return read


def _readable(request: Message | HoldfastError) -> Message:
    """Raises INVALID_FIELD for a request that could not be read."""
    if isinstance(request, HoldfastError):
        raise request
    return request


def _checked(request: Message | HoldfastError) -> Message:
    """Raises INVALID_FIELD for a request that could not be read or is outside the field rules."""
    asked = _readable(request)
    validation.check(asked)
    return asked


def _serialise(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _kind(method: MethodDescriptor) -> str:
    match method.client_streaming, method.server_streaming:
        case False, False:
            return "unary"
        case False, True:
            return "server_stream"
        case True, False:
            return "client_stream"
        case _:
            return "bidi_stream"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _not_built(service: ServiceDescriptor, method: MethodDescriptor) -> Handler:
    error_message = f"{service.full_name}/{method.name} is not built yet; this server does not answer it."

    async def unary(_request: object, _call: CallContext) -> Message:
        raise HoldfastError(Reason.NOT_BUILT, error_message)

    async def stream(_request: object, _call: CallContext) -> AsyncIterator[Message]:
        nothing: tuple[Message, ...] = ()
        for never in nothing:
            yield never  # makes it a generator
        raise HoldfastError(Reason.NOT_BUILT, error_message)

    return stream if method.server_streaming else unary
