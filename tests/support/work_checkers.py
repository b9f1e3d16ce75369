"""Judges what clients saw of activations and handoffs: X1 to X5, H1, H2, and the breaker.

The history is what each call answered, and what one watch of activations told, revision by revision. What is reported
cannot be explained by a service that keeps its promises, whatever was lost, delayed or killed meanwhile.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.coordination.v1 import activation_service_pb2 as pb
from support.evidence import Violation

OWNED = frozenset({pb.ACTIVATION_STATE_ASSIGNED, pb.ACTIVATION_STATE_RUNNING, pb.ACTIVATION_STATE_HANDING_OFF})
ENDED = frozenset(
    {
        pb.ACTIVATION_STATE_SUCCEEDED,
        pb.ACTIVATION_STATE_FAILED,
        pb.ACTIVATION_STATE_DEAD_LETTERED,
        pb.ACTIVATION_STATE_CANCELLED,
        pb.ACTIVATION_STATE_TIMED_OUT,
    }
)
BROKEN = "BROKEN"
"""What agents of a simulation say of attempts that can be tried again."""

OPEN_S = 29.0
"""A second less than a breaker is open, for clocks that run fast."""

FAILURES = 3
"""Failures in a row that open it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that succeeded."""

    op: str
    request: Any
    response: Any


@dataclass(frozen=True, slots=True)
class Told:
    """One activation in a message of the watch. `is_whole`: nothing was left out between the message before and it."""

    revision: int
    activation: pb.Activation
    is_whole: bool


@dataclass(slots=True)
class WorkHistory:
    """What was seen.

    Attributes:
        answers: Calls that succeeded, in the order of their answers.
        told: What the watch told, in its order.
        slots: How much work each agent takes, by name; it never changes.
        leaving: Agents that deregister now and then.
        final: All activations, long after the last deadline.
        not_served: Agents that got no work in the end, though they were there and free, by name.
    """

    slots: Mapping[str, int]
    leaving: frozenset[str] = frozenset()
    answers: list[Answered] = field(default_factory=list[Answered])
    told: list[Told] = field(default_factory=list[Told])
    final: list[pb.Activation] = field(default_factory=list[pb.Activation])
    not_served: list[str] = field(default_factory=list[str])

    def sights(self) -> Iterator[pb.Activation]:
        """Every activation that anybody saw, whole enough to have a revision."""
        for answer in self.answers:
            for activation in _activations_of(answer):
                if activation.revision:
                    yield activation
        yield from (each.activation for each in self.told if each.activation.state)
        yield from self.final


def _activations_of(answer: Answered) -> Sequence[pb.Activation]:
    if answer.op == "FetchAssignments":
        return answer.response.activations  # type: ignore[no-any-return]
    activation = getattr(answer.response, "activation", None)
    return [activation] if activation is not None else []


def _violation(invariant: str, message: str, *evidence: object) -> Violation:
    return Violation(invariant, message, tuple(str(each) for each in evidence))  # type: ignore[arg-type]


def one_owner_per_fence(history: WorkHistory) -> Iterator[Violation]:
    """X1: a fence is one agent's, fences grow with revisions, and what they do is done while they are current."""
    owners: dict[tuple[str, int], str] = {}
    fences: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for sight in history.sights():
        if not sight.fence:
            continue
        owner = owners.setdefault((sight.name, sight.fence), sight.agent)
        if owner != sight.agent:
            yield _violation("X1", f"{sight.name} under {sight.fence} is {owner}'s and {sight.agent}'s")
        first = fences[sight.name].get(sight.fence, sight.revision)
        fences[sight.name][sight.fence] = min(first, sight.revision)
    for name, seen in fences.items():
        in_order = [fence for fence, _ in sorted(seen.items(), key=lambda item: item[1])]
        if in_order != sorted(in_order):
            yield _violation("X1", f"fences of {name} do not grow with revisions: {seen}")
    for answer in history.answers:
        if answer.op not in ("AcceptActivation", "CompleteActivation", "FailActivation", "DeclineActivation"):
            continue
        name, fence, at = answer.request.name, answer.request.fence, answer.response.activation.revision
        later = [other for other, first in fences[name].items() if other > fence and first < at]
        if later:
            yield _violation("X1", f"{answer.op} of {name} under {fence} counted at {at}, after {later}", answer)


def attempts_are_bounded(history: WorkHistory) -> Iterator[Violation]:
    """X2."""
    for sight in history.sights():
        if sight.attempt > sight.retry_policy.max_attempts:
            yield _violation("X2", f"{sight.name} is at attempt {sight.attempt} of {sight.retry_policy.max_attempts}")


def repeats_give_the_same(history: WorkHistory) -> Iterator[Violation]:
    """X3."""
    names: dict[str, str] = {}
    for answer in history.answers:
        if answer.op == "CreateActivation" and answer.request.request_id:
            name = answer.response.activation.name
            first = names.setdefault(answer.request.request_id, name)
            if first != name:
                yield _violation("X3", f"{answer.request.request_id} created {first} and {name}")


def slots_hold(history: WorkHistory) -> Iterator[Violation]:
    """X4: at no revision does an agent hold more than it takes, and in the end nobody who is free is left without."""
    owner: dict[str, str] = {}
    held: Counter[str] = Counter()
    revision = 0
    for index, told in enumerate(history.told):
        if not told.is_whole:
            owner.clear()
            held.clear()
        activation = told.activation
        before = owner.pop(activation.name, None)
        if before is not None:
            held[before] -= 1
        if activation.state in OWNED:
            owner[activation.name] = activation.agent
            held[activation.agent] += 1
        revision = told.revision
        is_last = index + 1 == len(history.told) or history.told[index + 1].revision != revision
        if is_last:
            for agent, count in held.items():
                if count > history.slots[agent]:
                    yield _violation("X4", f"{agent} holds {count} of {history.slots[agent]} at {revision}")
    for agent in history.not_served:
        yield _violation("X4", f"{agent} is free and gets no work: a slot leaked")


def all_end(history: WorkHistory) -> Iterator[Violation]:
    """X5: long after the last deadline everything has ended; and nothing ends more than once."""
    for activation in history.final:
        if activation.state not in ENDED:
            yield _violation("X5", f"{activation.name} has not ended", activation)
    ends: dict[str, int] = {}
    for told in history.told:
        name, state = told.activation.name, told.activation.state
        is_final = state in ENDED and state != pb.ACTIVATION_STATE_DEAD_LETTERED
        if is_final and ends.setdefault(name, state) != state:
            yield _violation("X5", f"{name} ended twice", told)


def handed_over_at_once(history: WorkHistory) -> Iterator[Violation]:
    """H1: in the revision of the handoff's end its activation has the new owner, and the one before had the old one."""
    at = {(each.activation.name, each.revision): each.activation for each in history.told}
    for answer in history.answers:
        if answer.op != "AcceptHandoff":
            continue
        handoff = answer.response.handoff
        if answer.response.fence <= handoff.from_fence:
            yield _violation("H1", f"{handoff.name} gave a fence that is not greater", handoff)
        seen = at.get((handoff.activation, handoff.revision))
        if seen is not None and (seen.agent, seen.fence) != (handoff.to_agent, answer.response.fence):
            yield _violation(
                "H1", f"at {handoff.revision} {handoff.to_agent} accepted, and {seen.agent} owned it", seen
            )
    yield from _ownerless(history)


def _ownerless(history: WorkHistory) -> Iterator[Violation]:
    """A handoff never shows as work that nobody owns, between an owner and another who runs it at once."""
    last: dict[str, pb.Activation] = {}
    for told in history.told:
        if not told.is_whole:
            last.clear()
        now, before = told.activation, last.get(told.activation.name)
        if before is not None and now.handoffs > before.handoffs and not before.fence:
            yield _violation("H1", f"{now.name} had no owner at the revision before it was handed over", before, now)
        last[now.name] = now


def owner_stays(history: WorkHistory) -> Iterator[Violation]:
    """H2: rejected, withdrawn or expired, it is owned by the same agent under the same fence."""
    at = {(each.activation.name, each.revision): each.activation for each in history.told}
    for answer in history.answers:
        if answer.op in ("RejectHandoff", "WithdrawHandoff"):
            handoff = answer.response.handoff
            seen = at.get((handoff.activation, handoff.revision))
            if seen is not None and (seen.agent, seen.fence) != (handoff.from_agent, handoff.from_fence):
                yield _violation("H2", f"{handoff.name} ended without, and the owner changed", seen, handoff)
    last: dict[str, pb.Activation] = {}
    for told in history.told:
        if not told.is_whole:
            last.clear()
        now, before = told.activation, last.get(told.activation.name)
        last[now.name] = now
        if before is None or before.state != pb.ACTIVATION_STATE_HANDING_OFF or now.handoffs != before.handoffs:
            continue
        is_running = now.state in (pb.ACTIVATION_STATE_RUNNING, pb.ACTIVATION_STATE_HANDING_OFF)
        if is_running and (now.agent, now.fence) != (before.agent, before.fence):
            yield _violation("H2", f"{now.name} was not handed over, and the owner changed", before, now)


def broken_agents_rest(history: WorkHistory) -> Iterator[Violation]:
    """Breaker: after three failures in a row an agent is given nothing for a while."""
    failures: dict[str, int] = {}
    opened_s: dict[str, float] = {}
    last: dict[str, pb.Activation] = {}
    for told in history.told:
        if not told.is_whole:
            failures, opened_s, last = {}, {}, {}
        now, before = told.activation, last.get(told.activation.name)
        last[now.name] = now
        if before is None:
            continue
        at_s = now.update_time.ToMilliseconds() / 1000
        if now.state == pb.ACTIVATION_STATE_ASSIGNED and before.fence != now.fence:
            if at_s < opened_s.get(now.agent, -OPEN_S) + OPEN_S:
                yield _violation("breaker", f"{now.agent} got {now.name} though its breaker is open", now)
        elif now.state == pb.ACTIVATION_STATE_SUCCEEDED:
            if now.agent not in history.leaving:
                failures[now.agent] = 0
            opened_s.pop(now.agent, None)
        elif now.failure != before.failure and now.failure.retryable and now.failure.reason != "DECLINED":
            agent = now.failure.agent
            if now.failure.reason != BROKEN:
                failures.pop(agent, None)  # it may have been open before
            elif agent in failures:
                failures[agent] += 1
                if failures[agent] == FAILURES:
                    opened_s[agent] = at_s


CHECKERS: dict[str, Callable[[WorkHistory], Iterator[Violation]]] = {
    "X1": one_owner_per_fence,
    "X2": attempts_are_bounded,
    "X3": repeats_give_the_same,
    "X4": slots_hold,
    "X5": all_end,
    "H1": handed_over_at_once,
    "H2": owner_stays,
    "breaker": broken_agents_rest,
}


def check(history: WorkHistory) -> list[Violation]:
    """Everything that cannot be."""
    return [violation for checker in CHECKERS.values() for violation in checker(history)]
