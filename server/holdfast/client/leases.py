"""Leases: what sessions are made of."""

from collections.abc import AsyncIterator

from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace, duration
from holdfast.client.service import Service
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.registry.v1.lease_service_pb2 import (
    GetLeaseRequest,
    GrantLeaseRequest,
    Lease,
    ListLeasesRequest,
    RevokeLeaseRequest,
)
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub


class Leases(Service):
    """Calls of `holdfast.registry.v1.LeaseService`. Leases are named by id, or by full name.

    Each raises HoldfastError. A session grants a lease, keeps it, and says when it can no longer be relied on.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = LeaseServiceStub(caller.connection.channel)

    async def grant(self, ttl_s: float | None = None, *, request_id: str = "") -> Lease:
        """Grants a lease that nobody keeps: it ends after `ttl_s` seconds (30 unless told)."""
        ttl = None if ttl_s is None else duration(ttl_s, "ttl_s")
        request = GrantLeaseRequest(parent=self._namespace.parent, ttl=ttl, request_id=request_id)
        return (await self._caller.call(self._stub.GrantLease, request)).lease

    async def revoke(self, lease: str) -> int:
        """Ends a lease and all that hangs on it; the revision at which it went."""
        request = RevokeLeaseRequest(name=self._name(lease))
        return (await self._caller.call(self._stub.RevokeLease, request)).revision

    async def get(self, lease: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED) -> Lease:
        """Reads one lease that stands."""
        request = GetLeaseRequest(name=self._name(lease), consistency=consistency)
        return (await self._caller.call(self._stub.GetLease, request)).lease

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Lease]:
        """Leases that stand, by name, a page at a time."""
        request = ListLeasesRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self._stub.ListLeases, request, lambda response: response.leases)

    def _name(self, lease: str) -> str:
        return self._namespace.name("leases", lease)
