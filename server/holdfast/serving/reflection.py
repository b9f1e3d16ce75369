"""Server reflection: what the server offers, for clients that have no files of the API."""

from collections.abc import AsyncIterator, Iterable
from typing import cast

from grpc_reflection.v1alpha.reflection import aio
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from holdfast.service.context import CallContext


class Reflection:
    """Handlers of `grpc.reflection.v1alpha.ServerReflection`: grpcio's, carried as all calls are.

    grpcio's own registration would leave its streams unknown to the drain, which would wait for each in vain.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._answers = aio.ReflectionServicer(services)

    def server_reflection_info(
        self, requests: AsyncIterator[ServerReflectionRequest], _context: CallContext
    ) -> AsyncIterator[ServerReflectionResponse]:
        """ServerReflectionInfo."""
        # The stubs take the generator that it is for a coroutine.
        return cast("AsyncIterator[ServerReflectionResponse]", self._answers.ServerReflectionInfo(requests, None))
