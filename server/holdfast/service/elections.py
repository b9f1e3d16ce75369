"""ElectionService: campaign, tell, resign, observe. An election is a lock with a value."""

from collections.abc import AsyncGenerator

from holdfast import names
from holdfast.coordination.v1.election_service_pb2 import (
    CampaignRequest,
    CampaignResponse,
    GetLeaderRequest,
    GetLeaderResponse,
    ObserveLeaderRequest,
    ObserveLeaderResponse,
    ProclaimLeaderRequest,
    ProclaimLeaderResponse,
    ResignLeadershipRequest,
    ResignLeadershipResponse,
)
from holdfast.core.holds import ending
from holdfast.core.holds.acquiring import Acquisition, check_lease
from holdfast.core.holds.entry import HoldEntry, shown_leadership
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service.context import CallContext
from holdfast.service.registry import Registry
from holdfast.topics import FellBehindError

CAMPAIGN_S_MAX = 86_400.0
"""How long a candidate waits that does not say: as long as any may. Its call's deadline ends it before."""


class ElectionHandlers:
    """Handlers of `holdfast.coordination.v1.ElectionService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def campaign(self, request: CampaignRequest, context: CallContext) -> CampaignResponse:
        """Campaign."""
        registry = self._registry
        check_lease(request.election, request.lease)
        command = Acquisition(
            name=request.election,
            holder=request.candidate,
            lease=request.lease,
            request=request,
            claim=registry.new_id(),
            epoch=registry.store.epoch,
            key=_request_key(request),
        )
        wait_s = request.wait.ToMilliseconds() / 1000 if request.HasField("wait") else CAMPAIGN_S_MAX
        hold = await registry.holding.acquire(command, wait_s, context.client)
        return CampaignResponse(leadership=shown_leadership(request.election, hold))

    async def proclaim_leader(self, request: ProclaimLeaderRequest, _context: CallContext) -> ProclaimLeaderResponse:
        """ProclaimLeader."""
        hold = await self._registry.execute(
            lambda reader: ending.proclaim(reader, request.election, request.fence, request.value)
        )
        return ProclaimLeaderResponse(leadership=shown_leadership(request.election, hold))

    async def resign_leadership(
        self, request: ResignLeadershipRequest, _context: CallContext
    ) -> ResignLeadershipResponse:
        """ResignLeadership."""
        _, revision = await self._registry.holding.release(request.election, request.fence)
        return ResignLeadershipResponse(revision=revision)

    async def get_leader(self, request: GetLeaderRequest, _context: CallContext) -> GetLeaderResponse:
        """GetLeader."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        leadership = shown_leadership(request.election, view.hold(request.election))
        return GetLeaderResponse(leadership=leadership, revision=view.revision)

    async def observe_leader(
        self, request: ObserveLeaderRequest, context: CallContext
    ) -> AsyncGenerator[ObserveLeaderResponse, None]:
        """ObserveLeader: who leads now, then every change. An observer is a place in the history, no queue."""
        registry, name = self._registry, request.election
        topics = registry.view.history.topics
        with registry.audience.place(context.client):
            await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
            position = registry.view.revision
            told = _observed(name, registry.view.hold(name), position)
            while True:
                async with registry.audience.room.taken(context.client, told.ByteSize()):
                    yield told
                try:
                    while (step := topics.next(name, position)) is None:
                        position = max(position, await topics.advance(name))
                except FellBehindError:
                    raise _fell_behind(name) from None
                position = step.revision
                told = _observed(name, step.changes[0].now, position)
                del step  # the next may be days away


def _observed(name: str, hold: HoldEntry | None, revision: int) -> ObserveLeaderResponse:
    return ObserveLeaderResponse(leadership=shown_leadership(name, hold), revision=revision)


def _fell_behind(name: str) -> HoldfastError:
    return HoldfastError(
        Reason.REVISION_COMPACTED,
        f"what became of {name} meanwhile is no longer in the history, since this stream was not read; observe it "
        "anew, which begins with who leads now.",
    )


def _request_key(request: CampaignRequest) -> str:
    if not request.request_id:
        return ""
    return names.request_key(names.parent_of(request.election), "Campaign", request.request_id)
