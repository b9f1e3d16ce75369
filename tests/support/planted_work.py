"""Bugs to plant in activations and handoffs, one at a time; see `planted`."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from google.protobuf.message import Message

from holdfast.activations import Activations
from holdfast.coordination.v1.activation_service_pb2 import ActivationFailure
from holdfast.coordination.v1.handoff_service_pb2 import (
    HANDOFF_STATE_EXPIRED,
    HANDOFF_STATE_REJECTED,
    AcceptHandoffRequest,
    AcceptHandoffResponse,
    HandoffState,
)
from holdfast.core.activations import assigning, breaker, creating, ending, owning
from holdfast.core.activations.breaker import WorkEntry
from holdfast.core.activations.ending import Timer
from holdfast.core.activations.entry import ActivationEntry, following, state_key
from holdfast.core.handoffs import deciding
from holdfast.core.handoffs.entry import HandoffEntry
from holdfast.core.state import AgentEntry, Plan
from holdfast.service.context import CallContext
from holdfast.service.handoffs import HandoffHandlers
from holdfast.storage.v1.activations_pb2 import ActivationStateRecord, WorkRecord
from holdfast.store.interface import Txn
from holdfast.timers import TimeKeeper, timer_key


@contextlib.contextmanager
def complete_under_any_fence() -> Iterator[None]:
    """CompleteActivation does not look at the fence."""
    complete, check = owning.complete, owning.check_fence

    def careless(reader: Any, request: Any, saying: Any) -> Any:
        with patch.object(owning, "check_fence", lambda _entry, _fence: None):
            return complete(reader, request, saying)

    assert check is owning.check_fence
    with patch.object(owning, "complete", careless):
        yield


@contextlib.contextmanager
def leak_slots_of_the_dead() -> Iterator[None]:
    """What an agent held when it died is counted as held by its successors."""
    leaked: dict[int, Counter[str]] = {}
    note, held = Activations._note_loss, Activations.slots_held

    def forgetful(self: Activations, agent: str, name: str, before: AgentEntry | None) -> None:
        known = len(self.lost.get(agent, ()))
        note(self, agent, name, before)
        leaked.setdefault(id(self), Counter())[agent] += len(self.lost.get(agent, ())) - known

    def slots_held(self: Activations, agent: str) -> int:
        return held(self, agent) + leaked.get(id(self), Counter())[agent]

    with patch.object(Activations, "_note_loss", forgetful), patch.object(Activations, "slots_held", slots_held):
        yield


@contextlib.contextmanager
def build_a_breaker_per_call() -> Iterator[None]:
    """Each failure is counted by a breaker that was made for it: the original framework's defect."""
    rewritten = breaker.rewritten

    def anew(agent: str, entry: WorkEntry | None, change: breaker.Change) -> Txn:
        return rewritten(agent, replace(entry, record=WorkRecord(breaker_state=1)) if entry else None, change)

    with patch.object(breaker, "rewritten", anew):
        yield


@contextlib.contextmanager
def hand_over_in_two_revisions() -> Iterator[None]:
    """The old owner loses the work in one revision, and the new one gets it in the next."""

    async def accept(
        self: HandoffHandlers, request: AcceptHandoffRequest, _context: CallContext
    ) -> AcceptHandoffResponse:
        registry = self._registry
        plans: list[Plan[Any]] = []

        def first(reader: Any) -> Plan[None]:
            plans.append(deciding.accept(reader, self._answer(request), registry.store.epoch))
            handoff = reader.handoff(request.name)
            assert handoff is not None
            activation = handoff.activation
            state = following(activation, registry.now())
            state.agent_uid = ""
            put = (state_key(activation), state.SerializeToString())
            return Plan(Txn(compares=plans[-1].txn.compares, puts=(put,)), lambda _: None)

        await registry.execute(first)
        outcome = await registry.store.commit(Txn(puts=plans[-1].txn.puts))
        await registry.view.reached(outcome.revision)
        handoff = plans[-1].answer(outcome.revision)
        return AcceptHandoffResponse(handoff=handoff, fence=handoff.fence)

    with patch.object(HandoffHandlers, "accept_handoff", accept):
        yield


@contextlib.contextmanager
def _give_away_at(*ends: HandoffState.ValueType) -> Iterator[None]:
    written = deciding._written

    def generous(
        reader: Any, entry: HandoffEntry, activation: ActivationEntry, state: ActivationStateRecord, *rest: Any
    ) -> Txn:
        taker = reader.agent(entry.record.handoff.to_agent)
        if entry.record.handoff.state in ends and taker is not None and taker.is_live:
            state.agent, state.agent_uid = taker.agent.name, taker.agent.uid
        return written(reader, entry, activation, state, *rest)

    with patch.object(deciding, "_written", generous):
        yield


def give_away_what_is_rejected() -> AbstractContextManager[None]:
    """Whom work was offered owns it, though it said no."""
    return _give_away_at(HANDOFF_STATE_REJECTED)


def give_away_what_nobody_answered() -> AbstractContextManager[None]:
    """Whom work was offered owns it once the offer has expired."""
    return _give_away_at(HANDOFF_STATE_EXPIRED)


@contextlib.contextmanager
def try_again_for_ever() -> Iterator[None]:
    """Nobody looks at max_attempts."""
    tried_again = owning.tried_again

    def tireless(entry: ActivationEntry, failure: ActivationFailure, now: Any) -> ActivationStateRecord:
        before = entry.record.activation.retry_policy.max_attempts
        entry.record.activation.retry_policy.max_attempts = 100
        try:
            return tried_again(entry, failure, now)
        finally:
            entry.record.activation.retry_policy.max_attempts = before

    with patch.object(owning, "tried_again", tireless), patch.object(ending, "tried_again", tireless):
        yield


@contextlib.contextmanager
def forget_creations() -> Iterator[None]:
    """The answer to a request_id is not kept."""

    def forgotten(plan: Plan[Any], _key: str, _request: Message, _answer: Message, _now: object) -> Plan[Any]:
        return plan

    with patch.object(creating, "remember", forgotten):
        yield


@contextlib.contextmanager
def assign_without_looking_at_slots() -> Iterator[None]:
    """An assignment takes what was proposed, however much the agent holds by then."""
    with patch.object(assigning, "room", lambda entry, _held: entry.agent.max_concurrency):
        yield


@contextlib.contextmanager
def let_deadlines_pass() -> Iterator[None]:
    """Nobody counts towards the deadline."""
    keep_times = Activations._keep_times

    def timeless(self: Activations, entry: ActivationEntry) -> None:
        keep_times(self, entry)
        times: TimeKeeper = self._times
        times.clear(timer_key(Timer.END, entry.name))
        times.clear(timer_key(Timer.START, entry.name))

    with patch.object(Activations, "_keep_times", timeless):
        yield


PLANTED_WORK: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "complete-under-any-fence": (complete_under_any_fence, "X1"),
    "try-again-for-ever": (try_again_for_ever, "X2"),
    "forget-creations": (forget_creations, "X3"),
    "leak-slots-of-the-dead": (leak_slots_of_the_dead, "X4"),
    "assign-without-looking-at-slots": (assign_without_looking_at_slots, "X4"),
    "let-deadlines-pass": (let_deadlines_pass, "X5"),
    "hand-over-in-two-revisions": (hand_over_in_two_revisions, "H1"),
    "give-away-what-is-rejected": (give_away_what_is_rejected, "H2"),
    "give-away-what-nobody-answered": (give_away_what_nobody_answered, "H2"),
    "build-a-breaker-per-call": (build_a_breaker_per_call, "breaker"),
}
"""Each bug, and the invariant by which it must be noticed."""
