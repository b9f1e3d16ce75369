"""Handoffs: work that changes hands while it runs."""

from collections.abc import AsyncIterator

from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace
from holdfast.client.service import Service
from holdfast.coordination.v1.handoff_service_pb2 import (
    AcceptHandoffRequest,
    AcceptHandoffResponse,
    GetHandoffRequest,
    Handoff,
    ListHandoffsRequest,
    OfferHandoffRequest,
    RejectHandoffRequest,
    WithdrawHandoffRequest,
)
from holdfast.coordination.v1.handoff_service_pb2_grpc import HandoffServiceStub
from holdfast.registry.v1.consistency_pb2 import Consistency


class Handoffs(Service):
    """Calls of `holdfast.coordination.v1.HandoffService`. Handoffs and agents are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = HandoffServiceStub(caller.connection.channel)

    async def offer(self, handoff: Handoff, fence: int, *, request_id: str = "") -> Handoff:
        """Offers work to another agent; its owner works on until that one accepts. `fence` is the activation's."""
        request = OfferHandoffRequest(
            parent=self._namespace.parent, handoff=handoff, fence=fence, request_id=request_id
        )
        return (await self._caller.call(self._stub.OfferHandoff, request)).handoff

    async def accept(self, handoff: str, agent: str, agent_fence: int = 0) -> AcceptHandoffResponse:
        """Takes work over; the answer has the fence of the new owner."""
        request = AcceptHandoffRequest(
            name=self._name(handoff), agent=self._namespace.name("agents", agent), agent_fence=agent_fence
        )
        return await self._caller.call(self._stub.AcceptHandoff, request)

    async def reject(self, handoff: str, agent: str, agent_fence: int = 0, reason: str = "") -> Handoff:
        """Leaves work with its owner."""
        request = RejectHandoffRequest(
            name=self._name(handoff),
            agent=self._namespace.name("agents", agent),
            agent_fence=agent_fence,
            reason=reason,
        )
        return (await self._caller.call(self._stub.RejectHandoff, request)).handoff

    async def withdraw(self, handoff: str, fence: int, reason: str = "") -> Handoff:
        """Takes an offer back. `fence` is the activation's."""
        request = WithdrawHandoffRequest(name=self._name(handoff), fence=fence, reason=reason)
        return (await self._caller.call(self._stub.WithdrawHandoff, request)).handoff

    async def get(
        self, handoff: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED
    ) -> Handoff:
        """Reads one handoff."""
        request = GetHandoffRequest(name=self._name(handoff), consistency=consistency)
        return (await self._caller.call(self._stub.GetHandoff, request)).handoff

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Handoff]:
        """Handoffs by name, a page at a time."""
        request = ListHandoffsRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self._stub.ListHandoffs, request, lambda response: response.handoffs)

    def _name(self, handoff: str) -> str:
        return self._namespace.name("handoffs", handoff)
