"""LeaseService: grant, keep, revoke and read leases."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from holdfast import validation
from holdfast.core import leases
from holdfast.core.state import LeaseEntry
from holdfast.errors import HoldfastError, Reason
from holdfast.filtering import compile_filter
from holdfast.leases import not_kept
from holdfast.registry.v1.lease_service_pb2 import (
    GetLeaseRequest,
    GetLeaseResponse,
    GrantLeaseRequest,
    GrantLeaseResponse,
    KeepLeaseAliveRequest,
    KeepLeaseAliveResponse,
    KeepLeaseAliveResult,
    Lease,
    LeaseDirective,
    ListLeasesRequest,
    ListLeasesResponse,
    RevokeLeaseRequest,
    RevokeLeaseResponse,
)
from holdfast.service import paging
from holdfast.service.context import CallContext
from holdfast.service.registry import Registry
from holdfast.service.room import Room

ANSWER_S_MAX = 2.0
"""Longest that one message of keepalives is answered late for the store's sake: those behind it wait as long."""

LOOKED_AT_MAX = 2_000
"""Most leases, with the agents attached to them, looked at for one page: some 10 ms. With a filter a page may be short,
or empty, and others follow.
"""


RESULT_BYTES_MAX = 320
"""About what the result of one lease takes at most: a name of 160 bytes, and why it was not kept."""

SMALL_ANSWER_BYTES = 64 << 10
"""Answers up to this size need no room; some 200 leases."""


class LeaseHandlers:
    """Handlers of `holdfast.registry.v1.LeaseService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._room = Room(small_bytes=SMALL_ANSWER_BYTES)

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
        return await registry.take(lambda reader: leases.grant(reader, command))

    async def keep_lease_alive(
        self, requests: AsyncIterator[KeepLeaseAliveRequest], context: CallContext
    ) -> AsyncIterator[KeepLeaseAliveResponse]:
        """KeepLeaseAlive: one answer for each message, one result for each lease in it, in order.

        A large message waits until others of its host are read, and nothing in it is kept before: one that is refused
        has kept nothing.
        """
        async for request in requests:
            validation.check(request)
            size_bytes = RESULT_BYTES_MAX * len(request.leases)
            if size_bytes <= SMALL_ANSWER_BYTES:
                yield await self._keep(request)
                continue
            async with self._room.taken(context.client, size_bytes):
                yield await self._keep(request)

    async def _keep(self, request: KeepLeaseAliveRequest) -> KeepLeaseAliveResponse:
        """Keeps all that can be kept at once, before one that must wait: its neighbours may have no time to lose."""
        results = list(filter(None, map(self._registry.keeper.keep, request.leases)))
        if len(results) < len(request.leases):
            kept = await self._keep_slowly(dict.fromkeys(request.leases))
            results = [kept[name] for name in request.leases]
        response = KeepLeaseAliveResponse(results=results)
        if self._registry.view.has_draining_leases:
            self._direct(response)
        return response

    def _direct(self, response: KeepLeaseAliveResponse) -> None:
        """Tells the holders of what is kept, and drained, to finish."""
        is_draining = self._registry.view.is_draining
        for result in response.results:
            if is_draining(result.lease) and result.directive == LeaseDirective.LEASE_DIRECTIVE_CONTINUE:
                result.directive = LeaseDirective.LEASE_DIRECTIVE_DRAIN

    async def _keep_slowly(self, asked: Collection[str]) -> Mapping[str, KeepLeaseAliveResult]:
        """Leases of which some were not known to stand: granted a moment ago, kept elsewhere, or about to end.

        What cannot be said in time is said to be unknown, so that the next message on the stream is read.
        """
        keeper, view = self._registry.keeper, self._registry.view
        results: dict[str, KeepLeaseAliveResult] = {}
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._take_in([name for name in asked if not keeper.keep(name)])
                results = {name: kept for name in asked if (kept := keeper.keep(name))}
                for name in [name for name in asked if name not in results]:
                    results[name] = await keeper.keep_slowly(name, view.lease)
        except HoldfastError as error:
            why = error
        except TimeoutError:
            why = _too_slow()
        else:
            return results
        return {name: keeper.keep(name) or results.get(name) or not_kept(name, why) for name in asked}

    async def _take_in(self, unknown: Sequence[str]) -> None:
        """Waits for what was granted before the call, and has what other replicas keep moved here."""
        registry = self._registry
        await registry.view.reached(await registry.store.current_revision())
        await registry.take_in(unknown)

    async def revoke_lease(self, request: RevokeLeaseRequest, _context: CallContext) -> RevokeLeaseResponse:
        """RevokeLease."""
        return await self._registry.revoke(request.name)

    async def get_lease(self, request: GetLeaseRequest, _context: CallContext) -> GetLeaseResponse:
        """GetLease."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        lease = leases.find_standing(view, request.name)
        return GetLeaseResponse(lease=self._shown(lease), revision=view.revision)

    async def list_leases(self, request: ListLeasesRequest, _context: CallContext) -> ListLeasesResponse:
        """ListLeases: those that stand, of one revision, which is why few are looked at for one page."""
        only = compile_filter(request.filter, Lease.DESCRIPTOR)
        tokens = paging.Tokens(f"ListLeases {request.parent} {request.filter}", self._registry.page_key)
        after = await tokens.last(request.page_token)
        await self._registry.await_consistency(request.consistency)
        view, size = self._registry.view, request.page_size or paging.PAGE_SIZE_DEFAULT
        revision, names = view.revision, view.leases.standing_after(request.parent, after)
        page, last, size_bytes, looked_at = list[Lease](), "", 0, 0
        for last in names:
            shown = self._shown(leases.find_standing(view, last))
            if only.matches(shown):
                page.append(shown)
                size_bytes += shown.ByteSize()
            looked_at += 1 + len(shown.agents)
            if len(page) == size or size_bytes >= paging.PAGE_BYTES_MAX or looked_at >= LOOKED_AT_MAX:
                break
        token = await tokens.after(last) if names and last != names[-1] else ""
        return ListLeasesResponse(leases=page, next_page_token=token, revision=revision)

    def _shown(self, lease: LeaseEntry) -> Lease:
        registry = self._registry
        shown = Lease(name=lease.name, fence=lease.fence, agents=sorted(registry.view.agents_of(lease.name)))
        shown.ttl.FromMilliseconds(lease.record.ttl_ms)
        left_s = registry.keeper.left_s(lease.name)
        if left_s is not None:
            shown.expire_time.FromMilliseconds(int((registry.wall_clock() + left_s) * 1000))
        return shown


def _too_slow() -> HoldfastError:
    return HoldfastError(
        Reason.STORE_UNAVAILABLE,
        f"the store did not say within {ANSWER_S_MAX:g} s whether it stands; keep it again.",
    )
