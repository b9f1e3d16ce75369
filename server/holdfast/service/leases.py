"""LeaseService: grant, keep and revoke leases."""

from collections.abc import AsyncIterator

from holdfast import validation
from holdfast.core import leases
from holdfast.registry.v1.lease_service_pb2 import (
    GrantLeaseRequest,
    GrantLeaseResponse,
    KeepLeaseAliveRequest,
    KeepLeaseAliveResponse,
    KeepLeaseAliveResult,
    RevokeLeaseRequest,
    RevokeLeaseResponse,
)
from holdfast.service.context import CallContext
from holdfast.service.registry import Registry


class LeaseHandlers:
    """Handlers of `holdfast.registry.v1.LeaseService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def grant_lease(self, request: GrantLeaseRequest, _context: CallContext) -> GrantLeaseResponse:
        """GrantLease."""
        registry = self._registry
        command = leases.Grant(
            request=request,
            now=registry.now(),
            epoch=registry.store.epoch,
            lease_id=registry.new_id(),
            replica=registry.replica,
        )
        return await registry.execute(lambda reader: leases.grant(reader, command))

    async def keep_lease_alive(
        self, requests: AsyncIterator[KeepLeaseAliveRequest], _context: CallContext
    ) -> AsyncIterator[KeepLeaseAliveResponse]:
        """KeepLeaseAlive: one answer for each message, one result for each lease in it, in order."""
        keep = self._registry.keeper.keep
        async for request in requests:
            validation.check(request)
            yield KeepLeaseAliveResponse(
                results=[keep(name) or await self._keep_slowly(name) for name in request.leases]
            )

    async def _keep_slowly(self, name: str) -> KeepLeaseAliveResult:
        """A lease that is not known to stand: it may have been granted a moment ago, or be about to end."""
        registry = self._registry
        await registry.view.reached(await registry.store.current_revision())
        return await registry.keeper.keep_slowly(name, lambda: registry.view.lease(name))

    async def revoke_lease(self, request: RevokeLeaseRequest, _context: CallContext) -> RevokeLeaseResponse:
        """RevokeLease."""
        return await self._registry.revoke(request.name)
