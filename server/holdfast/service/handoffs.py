"""HandoffService: offer, answer, take back, read."""

from holdfast.activations import timer_key
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
from holdfast.filtering import compile_filter
from holdfast.service import paging
from holdfast.service.context import CallContext
from holdfast.service.registry import Registry
from holdfast.service.slices import Pause

LOOKED_AT_MAX = 1_000
"""Most handoffs looked at for one page; with a filter a page may be short, and others follow."""


class HandoffHandlers:
    """Handlers of `holdfast.coordination.v1.HandoffService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

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
        registry = self._registry
        is_over = registry.deadlines.is_past(request.name)
        return Answer(request.name, request.agent, request.agent_fence, registry.now(), is_over)

    async def withdraw_handoff(self, request: WithdrawHandoffRequest, _context: CallContext) -> WithdrawHandoffResponse:
        """WithdrawHandoff."""
        registry = self._registry
        handoff = await registry.execute(
            lambda reader: deciding.withdraw(reader, request.name, request.fence, request.reason, registry.now())
        )
        return WithdrawHandoffResponse(handoff=handoff)

    async def get_handoff(self, request: GetHandoffRequest, _context: CallContext) -> GetHandoffResponse:
        """GetHandoff."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        return GetHandoffResponse(handoff=shown(find(view, request.name)), revision=view.revision)

    async def list_handoffs(self, request: ListHandoffsRequest, _context: CallContext) -> ListHandoffsResponse:
        """ListHandoffs, of one revision, which is why few are looked at for one page."""
        only = compile_filter(request.filter, Handoff.DESCRIPTOR)
        tokens = paging.Tokens(f"ListHandoffs {request.parent} {request.filter}", self._registry.page_key)
        after = await tokens.last(request.page_token)
        await self._registry.await_consistency(request.consistency)
        view, size = self._registry.view, request.page_size or paging.PAGE_SIZE_DEFAULT
        revision, there = view.revision, view.handoffs.after(request.parent, after, LOOKED_AT_MAX + 1)
        page, last, size_bytes, pause = list[Handoff](), "", 0, Pause(view.turns, only)
        for entry in there[:LOOKED_AT_MAX]:
            each = shown(entry)
            if only.matches(each):
                page.append(each)
                size_bytes += each.ByteSize()
            last = entry.name
            if len(page) == size or size_bytes >= paging.PAGE_BYTES_MAX:
                break
            await pause.after(each.ByteSize())
        token = await tokens.after(last) if there and last != there[-1].name else ""
        return ListHandoffsResponse(handoffs=page, next_page_token=token, revision=revision)
