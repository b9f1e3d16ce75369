"""Judges histories: which invariant of a registry did what clients saw contradict?

`check` asks every checker; each is a pure function of the evidence. They are sound rather than complete: what they
report cannot be explained by a registry that keeps its promises, whatever was lost, delayed or killed meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from support import call_checkers, lease_checkers, watch_checkers
from support.evidence import Evidence, Limits, Violation
from support.history import Event

Checker = Callable[[Evidence], Iterator[Violation]]

CHECKERS: dict[str, Checker] = {
    "S1": call_checkers.revisions_are_dense,
    "S2": call_checkers.acknowledged_survives,
    "S3": call_checkers.whole_or_not_at_all,
    "W1": watch_checkers.only_what_the_filter_says,
    "W2": watch_checkers.in_order_and_once,
    "W6": watch_checkers.resumable,
    "W7": watch_checkers.no_holes,
    "L1": lease_checkers.never_early,
    "L2": lease_checkers.gone_in_time,
    "L3": lease_checkers.all_at_once,
    "L4": lease_checkers.kept_means_standing,
    "L5": lease_checkers.fences_grow,
    "etag": call_checkers.etags_hold,
    "admin": call_checkers.operators_are_obeyed,
    "request_id": call_checkers.repeats_are_answered_alike,
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
