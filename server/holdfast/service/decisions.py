"""DecisionService: open, vote, close, watch."""

from collections.abc import AsyncIterator, Mapping, Sequence

from google.protobuf.message import Message

from holdfast import names
from holdfast.coordination.v1.decision_service_pb2 import (
    CancelDecisionRequest,
    CancelDecisionResponse,
    CastVoteRequest,
    CastVoteResponse,
    CloseDecisionRequest,
    CloseDecisionResponse,
    CreateDecisionRequest,
    CreateDecisionResponse,
    Decision,
    DecisionEvents,
    DecisionWatchProgress,
    DecisionWatchReset,
    GetDecisionRequest,
    GetDecisionResponse,
    ListDecisionsRequest,
    ListDecisionsResponse,
    ResolveDecisionRequest,
    ResolveDecisionResponse,
    WatchDecisionsRequest,
    WatchDecisionsResponse,
)
from holdfast.core.decisions import deciding
from holdfast.core.decisions.entry import DecisionEntry, find, shown
from holdfast.core.decisions.opening import ELECTORS_MAX, Opening, create
from holdfast.core.matching import Why, told
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service.context import CallContext
from holdfast.service.following import Following, Watched
from holdfast.service.matching import electorate
from holdfast.service.paging import Listed, page_of
from holdfast.service.registry import Registry
from holdfast.service.watching import PROGRESS_EVERY_S
from holdfast.view import View

LOOKED_AT_MAX = 200
"""Most decisions looked at for one page: each is counted anew. With a filter a page may be short, and others follow."""


class DecisionHandlers:
    """Handlers of `holdfast.coordination.v1.DecisionService`.

    Args:
        registry: The state.
        progress_every_s: See `watching.PROGRESS_EVERY_S`.
    """

    def __init__(self, registry: Registry, progress_every_s: float = PROGRESS_EVERY_S) -> None:
        self._registry = registry
        self._listed = Listed(
            Decision.DESCRIPTOR, registry.view.decisions.after, lambda entry: entry.name, shown, LOOKED_AT_MAX
        )
        self._following = Following(registry, _watched(registry.view), progress_every_s)

    async def create_decision(self, request: CreateDecisionRequest, context: CallContext) -> CreateDecisionResponse:
        """CreateDecision."""
        registry = self._registry
        matching: Sequence[str] = ()
        exclusions: Mapping[Why, int] = {}
        if request.decision.HasField("elector_selector"):
            await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
            selector = request.decision.elector_selector
            matching, exclusions = await electorate(registry.view, request.parent, selector, ELECTORS_MAX + 1)
        opening = Opening(
            request, registry.now(), registry.new_id(), context.correlation_id, matching, told(exclusions)
        )
        return await registry.execute(lambda reader: create(reader, opening))

    async def get_decision(self, request: GetDecisionRequest, _context: CallContext) -> GetDecisionResponse:
        """GetDecision."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        return GetDecisionResponse(decision=shown(find(view, request.name)), revision=view.revision)

    async def list_decisions(self, request: ListDecisionsRequest, _context: CallContext) -> ListDecisionsResponse:
        """ListDecisions, of one revision."""
        page = await page_of(self._registry, self._listed, request)
        return ListDecisionsResponse(decisions=page.found, next_page_token=page.token, revision=page.revision)

    async def cast_vote(self, request: CastVoteRequest, _context: CallContext) -> CastVoteResponse:
        """CastVote."""
        return CastVoteResponse(decision=await self._registry.voting.cast(request))

    async def close_decision(self, request: CloseDecisionRequest, _context: CallContext) -> CloseDecisionResponse:
        """CloseDecision."""
        registry = self._registry
        decision = await registry.execute(lambda reader: deciding.close(reader, request.name, registry.now()))
        return CloseDecisionResponse(decision=decision)

    async def cancel_decision(self, request: CancelDecisionRequest, _context: CallContext) -> CancelDecisionResponse:
        """CancelDecision."""
        registry = self._registry
        decision = await registry.execute(
            lambda reader: deciding.cancel(reader, request.name, request.reason, registry.now())
        )
        return CancelDecisionResponse(decision=decision)

    async def resolve_decision(self, request: ResolveDecisionRequest, _context: CallContext) -> ResolveDecisionResponse:
        """ResolveDecision."""
        registry = self._registry
        decision = await registry.execute(
            lambda reader: deciding.resolve(
                reader, request, registry.now(), is_over=registry.deadlines.is_past(request.name)
            )
        )
        return ResolveDecisionResponse(decision=decision)

    def watch_decisions(self, request: WatchDecisionsRequest, context: CallContext) -> AsyncIterator[Message | bytes]:
        """WatchDecisions."""
        return self._following.watch(request, context)


def _watched(view: View) -> Watched[DecisionEntry, Decision]:
    """How decisions are watched."""
    return Watched(
        descriptor=Decision.DESCRIPTOR,
        topic=lambda parent: names.topic(parent, "decisions"),
        there=view.decisions.after,
        shown=shown,
        gone=lambda name, revision: Decision(name=name, revision=revision),
        events=lambda revision, decisions, is_end, continues: WatchDecisionsResponse(
            revision=revision, events=DecisionEvents(decisions=decisions, snapshot_end=is_end, continues=continues)
        ),
        progress=lambda revision: WatchDecisionsResponse(revision=revision, progress=DecisionWatchProgress()),
        reset=lambda revision, oldest: WatchDecisionsResponse(
            revision=revision, reset=DecisionWatchReset(compact_revision=oldest)
        ),
    )
