"""Locks. `Session.lock` holds one; these are the calls, and what operators do."""

from collections.abc import AsyncIterator

from holdfast.client.calling import Caller, Repeat
from holdfast.client.naming import Namespace, duration
from holdfast.client.service import Service
from holdfast.coordination.v1.lock_service_pb2 import (
    AcquireLockRequest,
    ForceReleaseLockRequest,
    GetLockRequest,
    ListLocksRequest,
    Lock,
    ReleaseLockRequest,
    VerifyFenceRequest,
    VerifyFenceResponse,
)
from holdfast.coordination.v1.lock_service_pb2_grpc import LockServiceStub
from holdfast.registry.v1.consistency_pb2 import Consistency


class Locks(Service):
    """Calls of `holdfast.coordination.v1.LockService`. Locks and leases are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = LockServiceStub(caller.connection.channel)

    async def acquire(
        self,
        lock: str,
        *,
        holder: str,
        lease: str,
        wait_s: float = 0.0,
        delay_s: float | None = None,
        request_id: str = "",
    ) -> Lock:
        """Acquires a lock, or waits in line for it; it is held as long as its lease.

        Nothing here says when the lease has ended: `Session.lock` does.

        Args:
            lock: The lock.
            holder: Who is to hold it.
            lease: What it hangs on.
            wait_s: How long to wait in line, in seconds; up to 10 min.
            delay_s: How long nobody gets it after this hold is lost, in seconds; the server's own 1 s unless told.
            request_id: Yours, where more than this process may repeat the call.
        """
        request = AcquireLockRequest(
            lock=self.name(lock),
            holder=holder,
            lease=self._namespace.name("leases", lease),
            wait=duration(wait_s, "wait_s"),
            delay=None if delay_s is None else duration(delay_s, "delay_s"),
            request_id=request_id,
        )
        return (await self._caller.call(self._stub.AcquireLock, request, wait_s=wait_s)).lock

    async def release(self, lock: str, fence: int) -> Lock:
        """Gives a lock back.

        May be repeated whatever happened, since a fence is of one hold alone: FENCE_STALE then says that it is over.
        """
        request = ReleaseLockRequest(lock=self.name(lock), fence=fence)
        return (await self._caller.call(self._stub.ReleaseLock, request, repeat=Repeat.ALWAYS)).lock

    async def get(self, lock: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED) -> Lock:
        """Reads one lock; one that nobody holds is FREE."""
        request = GetLockRequest(name=self.name(lock), consistency=consistency)
        return (await self._caller.call(self._stub.GetLock, request)).lock

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Lock]:
        """Locks that are not FREE, by name, a page at a time."""
        request = ListLocksRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self._stub.ListLocks, request, lambda response: response.locks)

    async def verify_fence(self, resource: str, fence: int) -> VerifyFenceResponse:
        """Whether a fence is that of the present holder of a resource, by full name. For people and logs.

        What is guarded must compare fences itself: by the time the answer is here it may be another's.
        """
        request = VerifyFenceRequest(resource=resource, fence=fence)
        return await self._caller.call(self._stub.VerifyFence, request)

    async def force_release(self, lock: str, reason: str = "") -> Lock:
        """Operator: takes a lock away from whoever holds it."""
        request = ForceReleaseLockRequest(lock=self.name(lock), reason=reason)
        return (await self._caller.call(self._stub.ForceReleaseLock, request)).lock

    def name(self, lock: str) -> str:
        """The full name of a lock."""
        return self._namespace.name("locks", lock)
