"""HandoffService: offer, answer, take back, read."""

from holdfast.coordination.v1.handoff_service_pb2 import (
    AcceptHandoffRequest,
    AcceptHandoffResponse,
    GetHandoffRequest,
    GetHandoffResponse,
    Handoff,
    ListHandoffsRequest,
    ListHandoffsResponse,
    OfferHandoffRequest,
    OfferHandoffResponse,
    RejectHandoffRequest,
    RejectHandoffResponse,
    WithdrawHandoffRequest,
    WithdrawHandoffResponse,
)
from holdfast.core.activations.ending import Timer
from holdfast.core.handoffs import deciding
from holdfast.core.handoffs.deciding import Answer, Offer
from holdfast.core.handoffs.entry import find, shown
from holdfast.service.context import CallContext
from holdfast.service.paging import Listed, page_of
from holdfast.service.registry import Registry
from holdfast.timers import timer_key

LOOKED_AT_MAX = 1_000
"""Most handoffs looked at for one page; with a filter a page may be short, and others follow."""


class HandoffHandlers:
    """Handlers of `holdfast.coordination.v1.HandoffService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._listed = Listed(
            Handoff.DESCRIPTOR, registry.view.handoffs.after, lambda entry: entry.name, shown, LOOKED_AT_MAX
        )

    async def offer_handoff(self, request: OfferHandoffRequest, _context: CallContext) -> OfferHandoffResponse:
        """OfferHandoff."""
        registry, handoff_id = self._registry, self._registry.new_id()
        end = timer_key(Timer.END, request.handoff.activation)
        return await registry.execute(
            lambda reader: deciding.offer(
                reader, Offer(request, registry.now(), handoff_id, registry.deadlines.is_past(end))
            )
        )

    async def accept_handoff(self, request: AcceptHandoffRequest, _context: CallContext) -> AcceptHandoffResponse:
        """AcceptHandoff."""
        registry = self._registry
        handoff = await registry.take(
            lambda reader: deciding.accept(reader, self._answer(request), registry.store.epoch)
        )
        return AcceptHandoffResponse(handoff=handoff, fence=handoff.fence)

    async def reject_handoff(self, request: RejectHandoffRequest, _context: CallContext) -> RejectHandoffResponse:
        """RejectHandoff."""
        handoff = await self._registry.execute(
            lambda reader: deciding.reject(reader, self._answer(request), request.reason)
        )
        return RejectHandoffResponse(handoff=handoff)

    def _answer(self, request: AcceptHandoffRequest | RejectHandoffRequest) -> Answer:
        is_over = self._is_over(request.name)
        return Answer(request.name, request.agent, request.agent_fence, self._registry.now(), is_over)

    def _is_over(self, name: str) -> bool:
        """Whether the deadline of a handoff, or of its activation, has passed, though it may not be written yet."""
        deadlines, entry = self._registry.deadlines, self._registry.view.handoff(name)
        if entry is None:
            return False
        return deadlines.is_past(name) or deadlines.is_past(timer_key(Timer.END, entry.record.handoff.activation))

    async def withdraw_handoff(self, request: WithdrawHandoffRequest, _context: CallContext) -> WithdrawHandoffResponse:
        """WithdrawHandoff."""
        registry = self._registry
        handoff = await registry.execute(
            lambda reader: deciding.withdraw(
                reader,
                request.name,
                request.fence,
                request.reason,
                registry.now(),
                is_over=self._is_over(request.name),
            )
        )
        return WithdrawHandoffResponse(handoff=handoff)

    async def get_handoff(self, request: GetHandoffRequest, _context: CallContext) -> GetHandoffResponse:
        """GetHandoff."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        return GetHandoffResponse(handoff=shown(find(view, request.name)), revision=view.revision)

    async def list_handoffs(self, request: ListHandoffsRequest, _context: CallContext) -> ListHandoffsResponse:
        """ListHandoffs, of one revision, which is why few are looked at for one page."""
        page = await page_of(self._registry, self._listed, request)
        return ListHandoffsResponse(handoffs=page.found, next_page_token=page.token, revision=page.revision)
