"""Decisions: questions put to agents."""

from collections.abc import AsyncIterator, Sequence

from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace
from holdfast.client.service import Service
from holdfast.client.watching import Changes, Snapshot, Watching
from holdfast.coordination.v1.decision_service_pb2 import (
    CancelDecisionRequest,
    CastVoteRequest,
    CloseDecisionRequest,
    CreateDecisionRequest,
    Decision,
    DecisionEvents,
    DecisionState,
    GetDecisionRequest,
    ListDecisionsRequest,
    ResolveDecisionRequest,
    WatchDecisionsRequest,
)
from holdfast.coordination.v1.decision_service_pb2_grpc import DecisionServiceStub
from holdfast.registry.v1.consistency_pb2 import Consistency

_ENDED = (
    DecisionState.DECISION_STATE_DECIDED,
    DecisionState.DECISION_STATE_CANCELLED,
    DecisionState.DECISION_STATE_FAILED,
)


class Decisions(Service):
    """Calls of `holdfast.coordination.v1.DecisionService`. Decisions and agents are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = DecisionServiceStub(caller.connection.channel)

    async def create(self, decision: Decision, *, request_id: str = "") -> Decision:
        """Opens a decision. Its electorate is frozen here."""
        request = CreateDecisionRequest(parent=self._namespace.parent, decision=decision, request_id=request_id)
        return (await self._caller.call(self._stub.CreateDecision, request)).decision

    async def get(
        self, decision: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED
    ) -> Decision:
        """Reads one decision, with the votes cast."""
        request = GetDecisionRequest(name=self._name(decision), consistency=consistency)
        return (await self._caller.call(self._stub.GetDecision, request)).decision

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Decision]:
        """Decisions by name, a page at a time."""
        request = ListDecisionsRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self._stub.ListDecisions, request, lambda response: response.decisions)

    async def vote(
        self,
        decision: str,
        agent: str,
        option: str,
        *,
        confidence: float | None = None,
        rationale: str = "",
        fence: int = 0,
    ) -> Decision:
        """Votes for an agent. A lost answer is not repeated: read the decision, its `votes` say whether it counts."""
        request = CastVoteRequest(
            decision=self._name(decision),
            agent=self._namespace.name("agents", agent),
            option=option,
            confidence=confidence,
            rationale=rationale,
            fence=fence,
        )
        return (await self._caller.call(self._stub.CastVote, request)).decision

    async def close(self, decision: str) -> Decision:
        """Ends voting before the deadline: what the votes say so far, or else the fallback."""
        request = CloseDecisionRequest(name=self._name(decision))
        return (await self._caller.call(self._stub.CloseDecision, request)).decision

    async def cancel(self, decision: str, reason: str = "") -> Decision:
        """Takes a decision back: no result."""
        request = CancelDecisionRequest(name=self._name(decision), reason=reason)
        return (await self._caller.call(self._stub.CancelDecision, request)).decision

    async def resolve(
        self, decision: str, option: str, *, agent: str = "", fence: int = 0, rationale: str = ""
    ) -> Decision:
        """Settles a decision that waits for the agent its fallback names, or, without `agent`, for an operator."""
        request = ResolveDecisionRequest(
            name=self._name(decision),
            option=option,
            agent=self._namespace.name("agents", agent) if agent else "",
            fence=fence,
            rationale=rationale,
        )
        return (await self._caller.call(self._stub.ResolveDecision, request)).decision

    def watch(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        start_revision: int = 0,
    ) -> AsyncIterator[Snapshot[Decision] | Changes[Decision]]:
        """What is there, then every change, as `Agents.watch`. Of a decision that is gone there is its name alone."""
        request = WatchDecisionsRequest(parent=self._namespace.parent, filter=filter, start_revision=start_revision)
        method = self._stub.WatchDecisions
        watching: Watching[Decision, Decision] = Watching(self._caller, method, request, _decisions_of, _decisions_of)
        return watching.steps()

    async def ended(self, decision: str) -> Decision:
        """Waits until a decision has ended, however long that takes: DECIDED, CANCELLED or FAILED.

        Raises:
            DecisionNotFoundError: There is none.
        """
        name = self._name(decision)
        found = await self.get(name)
        if found.state in _ENDED:
            return found
        async for step in self.watch(f'name = "{name}"'):
            for each in step.items:
                if each.state in _ENDED:
                    return each
            if not any(each.state for each in step.items):
                return await self.get(name)  # raises: it is gone
        raise AssertionError("a watch ends with an error alone")

    def _name(self, decision: str) -> str:
        return self._namespace.name("decisions", decision)


def _decisions_of(events: DecisionEvents) -> Sequence[Decision]:
    return events.decisions
