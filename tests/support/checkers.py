"""Judges histories: which invariant of a registry did what clients saw contradict?

`check` asks every checker; each is a pure function of the evidence. They are sound rather than complete: what they
report cannot be explained by a registry that keeps its promises, whatever was lost, delayed or killed meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from support import call_checkers, decision_checkers, follow_checkers, lease_checkers, lock_checkers, watch_checkers
from support.evidence import Evidence, Limits, Violation
from support.history import Event

Checker = Callable[[Evidence], Iterator[Violation]]


def _both(*checkers: Checker) -> Checker:
    """The question put to different kinds of resources."""
    return lambda evidence: (violation for checker in checkers for violation in checker(evidence))


CHECKERS: dict[str, Checker] = {
    "S1": call_checkers.revisions_are_dense,
    "S2": _both(
        call_checkers.acknowledged_survives,
        decision_checkers.acknowledged_votes_stay,
        lock_checkers.acknowledged_holds_stay,
    ),
    "S3": _both(call_checkers.whole_or_not_at_all, decision_checkers.refused_votes_are_none),
    "W1": _both(watch_checkers.only_what_the_filter_says, follow_checkers.only_what_the_filter_says),
    "W2": _both(watch_checkers.in_order_and_once, follow_checkers.in_order_and_once),
    "W6": _both(watch_checkers.resumable, follow_checkers.resumable),
    "W7": _both(watch_checkers.no_holes, follow_checkers.no_holes),
    "L1": lease_checkers.never_early,
    "L2": lease_checkers.gone_in_time,
    "L3": lease_checkers.all_at_once,
    "L4": lease_checkers.kept_means_standing,
    "L5": lease_checkers.fences_grow,
    "D1": decision_checkers.one_end,
    "D2": decision_checkers.honest_count,
    "D3": decision_checkers.no_late_vote,
    "D4": decision_checkers.one_vote_each,
    "D5": decision_checkers.frozen_electorate,
    "D6": decision_checkers.fallback_once,
    "K1": lock_checkers.one_holder,
    "K2": lock_checkers.fences_grow,
    "K3": lock_checkers.stale_is_refused,
    "K4": lock_checkers.delay_after_loss,
    "K5": lock_checkers.in_order,
    "E1": lock_checkers.leaders_in_order,
    "etag": call_checkers.etags_hold,
    "admin": call_checkers.operators_are_obeyed,
    "request_id": _both(call_checkers.repeats_are_answered_alike, lock_checkers.repeats_get_the_same_hold),
}
"""Every checker by the invariant it is about; that of W2 reports W3, W4 and W5, too, which are one question."""

INVARIANTS = (*CHECKERS, "W3", "W4", "W5")
"""Everything that can be reported as violated."""


def check(events: Sequence[Event], limits: Limits | None = None) -> list[Violation]:
    """Everything in a history that no registry that keeps its promises could have shown."""
    evidence = Evidence(events, limits or Limits())
    return [violation for checker in CHECKERS.values() for violation in checker(evidence)]


def report(violations: Iterable[Violation], count_max: int = 5) -> str:
    """Violations for people: how many of which invariant, and the first ones with their evidence."""
    found = list(violations)
    counts = Counter(violation.invariant for violation in found)
    shown = [f"{len(found)} violations{''.join(f', {count} of {name}' for name, count in counts.items())}"]
    for violation in found[:count_max]:
        shown.append(f"{violation.invariant}: {violation.message}")
        shown += [f"    {event}" for event in violation.evidence]
    return "\n".join(shown)
