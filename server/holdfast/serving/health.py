"""grpc.health.v1: the standard way to ask whether the server serves, per service."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from holdfast.errors import HoldfastError, Reason
from holdfast.service.context import CallContext


class Health:
    """Handlers of `grpc.health.v1.Health`; all services, and "" for the server, share one status."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})
        self._serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Changes the status, and tells those who watch."""
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def _status(self) -> int:
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    async def check(self, request: HealthCheckRequest, _context: CallContext) -> HealthCheckResponse:
        """Check."""
        if request.service not in self._services:
            raise HoldfastError(
                Reason.SERVICE_NOT_FOUND,
                f"no service {request.service[:200]!r} here; reflection lists those there are.",
                subject=request.service[:200],
            )
        return HealthCheckResponse(status=self._status)

    async def watch(self, request: HealthCheckRequest, _context: CallContext) -> AsyncIterator[HealthCheckResponse]:
        """Watch: the status now and at each change; SERVICE_UNKNOWN for a service that is not here."""
        if request.service not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        told = None
        while True:
            changed = self._changed
            if self._status != told:
                told = self._status
                yield HealthCheckResponse(status=told)
            await changed.wait()
