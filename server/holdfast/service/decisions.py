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
from holdfast.filtering import compile_filter
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service import paging
from holdfast.service.context import CallContext
from holdfast.service.following import Following, Watched
from holdfast.service.matching import electorate
from holdfast.service.registry import Registry
from holdfast.service.slices import Pause
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
        only = compile_filter(request.filter, Decision.DESCRIPTOR)
        tokens = paging.Tokens(f"ListDecisions {request.parent} {request.filter}", self._registry.page_key)
        after = await tokens.last(request.page_token)
        await self._registry.await_consistency(request.consistency)
        view, size = self._registry.view, request.page_size or paging.PAGE_SIZE_DEFAULT
        revision, there = view.revision, view.decisions.after(request.parent, after, LOOKED_AT_MAX + 1)
        page, last, size_bytes, pause = list[Decision](), "", 0, Pause(view.turns, only)
        for entry in there[:LOOKED_AT_MAX]:
            each = shown(entry)
            each_bytes = each.ByteSize()
            if only.matches(each):
                if page and size_bytes + each_bytes > paging.PAGE_BYTES_MAX:  # one alone may have more
                    break
                page.append(each)
                size_bytes += each_bytes
            last = entry.name
            if len(page) == size:
                break
            await pause.after(each_bytes)
        token = await tokens.after(last) if there and last != there[-1].name else ""
        return ListDecisionsResponse(decisions=page, next_page_token=token, revision=revision)

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
        events=lambda revision, decisions, is_end: WatchDecisionsResponse(
            revision=revision, events=DecisionEvents(decisions=decisions, snapshot_end=is_end)
        ),
        progress=lambda revision: WatchDecisionsResponse(revision=revision, progress=DecisionWatchProgress()),
        reset=lambda revision, oldest: WatchDecisionsResponse(
            revision=revision, reset=DecisionWatchReset(compact_revision=oldest)
        ),
    )
