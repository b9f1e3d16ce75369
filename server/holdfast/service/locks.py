"""LockService: acquire, give back, look; and whether a fence is the present one, of whatever has fences."""

import structlog

from holdfast import names
from holdfast.coordination.v1.lock_service_pb2 import (
    LOCK_STATE_DELAYED,
    LOCK_STATE_FREE,
    AcquireLockRequest,
    AcquireLockResponse,
    ForceReleaseLockRequest,
    ForceReleaseLockResponse,
    GetLockRequest,
    GetLockResponse,
    ListLocksRequest,
    ListLocksResponse,
    Lock,
    ReleaseLockRequest,
    ReleaseLockResponse,
    VerifyFenceRequest,
    VerifyFenceResponse,
)
from holdfast.core.holds import ending
from holdfast.core.holds.acquiring import DELAY_MS_DEFAULT, Acquisition, check_lease
from holdfast.core.holds.entry import HoldEntry, shown_lock
from holdfast.core.leases import duration_ms
from holdfast.filtering import compile_filter
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service import paging
from holdfast.service.context import CallContext
from holdfast.service.registry import Registry

LOOKED_AT_MAX = 2_000
"""Most locks looked at for one page: some 20 ms. With a filter a page may be short, or empty, and others follow."""

log = structlog.get_logger()


class LockHandlers:
    """Handlers of `holdfast.coordination.v1.LockService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def acquire_lock(self, request: AcquireLockRequest, context: CallContext) -> AcquireLockResponse:
        """AcquireLock."""
        registry = self._registry
        check_lease(request.lock, request.lease)
        command = Acquisition(
            name=request.lock,
            holder=request.holder,
            lease=request.lease,
            request=request,
            claim=registry.new_id(),
            epoch=registry.store.epoch,
            key=_request_key(request),
            delay_ms=duration_ms(request.delay) if request.HasField("delay") else DELAY_MS_DEFAULT,
        )
        hold = await registry.holding.acquire(command, request.wait.ToMilliseconds() / 1000, context.client)
        return AcquireLockResponse(lock=self._shown(request.lock, hold))

    async def release_lock(self, request: ReleaseLockRequest, _context: CallContext) -> ReleaseLockResponse:
        """ReleaseLock."""
        hold, _ = await self._registry.holding.release(request.lock, request.fence)
        return ReleaseLockResponse(lock=self._shown(request.lock, hold))

    async def force_release_lock(
        self, request: ForceReleaseLockRequest, context: CallContext
    ) -> ForceReleaseLockResponse:
        """ForceReleaseLock."""
        registry = self._registry
        await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)  # of one that is lost nothing is written
        hold = await registry.execute(lambda reader: ending.force(reader, request.lock, request.reason, registry.now()))
        log.warning(
            "lock_taken_away",
            lock=request.lock,
            holder=hold.record.holder,
            fence=hold.fence,
            reason=request.reason,
            correlation_id=context.correlation_id,
        )
        return ForceReleaseLockResponse(lock=self._shown(request.lock, hold))

    async def get_lock(self, request: GetLockRequest, _context: CallContext) -> GetLockResponse:
        """GetLock."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        return GetLockResponse(lock=self._shown(request.name, view.hold(request.name)), revision=view.revision)

    async def list_locks(self, request: ListLocksRequest, _context: CallContext) -> ListLocksResponse:
        """ListLocks: those that are not FREE, of one revision, which is why few are looked at for one page."""
        only = compile_filter(request.filter, Lock.DESCRIPTOR)
        tokens = paging.Tokens(f"ListLocks {request.parent} {request.filter}", self._registry.page_key)
        after = await tokens.last(request.page_token)
        await self._registry.await_consistency(request.consistency)
        view, size = self._registry.view, request.page_size or paging.PAGE_SIZE_DEFAULT
        revision, found = view.revision, view.holds.locks_after(request.parent, after)
        page, last = list[Lock](), ""
        for looked_at, last in enumerate(found, start=1):
            shown = self._shown(last, view.hold(last))
            if shown.state != LOCK_STATE_FREE and only.matches(shown):
                page.append(shown)
            if len(page) == size or looked_at >= LOOKED_AT_MAX:
                break
        token = await tokens.after(last) if found and last != found[-1] else ""
        return ListLocksResponse(locks=page, next_page_token=token, revision=revision)

    async def verify_fence(self, request: VerifyFenceRequest, _context: CallContext) -> VerifyFenceResponse:
        """VerifyFence: true at one revision, and perhaps no longer when the answer arrives."""
        await self._registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
        current = self._current_fence(request.resource)
        valid = current == request.fence
        return VerifyFenceResponse(valid=valid, current_fence=current, revision=self._registry.view.revision)

    def _current_fence(self, resource: str) -> int:
        """The fence of whoever has a resource now; 0 if nobody has it."""
        view = self._registry.view
        match names.collection_of(resource):
            case "locks" | "elections":
                hold = view.hold(resource)
                return hold.fence if hold is not None and hold.is_held else 0
            case "activations":
                activation = view.activation(resource)
                return activation.fence if activation is not None else 0
            case _:
                agent = view.agent(resource)
                return agent.agent.fence if agent is not None and agent.is_live else 0

    def _shown(self, name: str, hold: HoldEntry | None) -> Lock:
        registry = self._registry
        lock = shown_lock(name, hold, registry.holding.lines.count(name))
        left_s = registry.deadlines.left_s(name)
        if lock.state == LOCK_STATE_DELAYED and left_s is not None:
            lock.free_time.FromMilliseconds(int((registry.wall_clock() + left_s) * 1000))
        return lock


def _request_key(request: AcquireLockRequest) -> str:
    if not request.request_id:
        return ""
    return names.request_key(names.parent_of(request.lock), "AcquireLock", request.request_id)
