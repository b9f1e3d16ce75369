"""How long the service took to come back after a heal.

Recovered is the start of the first 5 s after which every indicator holds: from there on, until the next fault or the
end of the run, neither those 5 s nor all that follows them falls below any objective.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import floor

WINDOW_S = 5.0
STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Indicator:
    """One objective's events by the time they were due: `bad_before[i]` counts the bad ones among the first i."""

    target: float
    due_s: Sequence[float]
    bad_before: Sequence[int]

    @classmethod
    def of(cls, target: float, events: Iterable[tuple[float, bool]]) -> "Indicator":
        """From (due in unix seconds, was it bad?) in any order."""
        ordered = sorted(events)
        return cls(target, [due_s for due_s, _ in ordered], [0, *accumulate(bad for _, bad in ordered)])

    def holds(self, start_s: float, end_s: float) -> bool | None:
        """Whether the share of good events due in [start, end) is at least the target; None without events."""
        first, last = bisect_left(self.due_s, start_s), bisect_left(self.due_s, end_s)
        if first == last:
            return None
        failures = self.bad_before[last] - self.bad_before[first]
        return 1 - failures / (last - first) >= self.target


def recovered_after_s(indicators: Sequence[Indicator], heal_s: float, until_s: float) -> float | None:
    """Seconds from the heal until every indicator holds for good; None if that is not seen before `until_s`.

    An indicator without events in the first 5 s proves nothing and counts as not holding, unless it has none until the
    end at all.

    Args:
        indicators: at least one, or nothing can be seen and the answer is None.
        heal_s: when the fault was healed, unix seconds.
        until_s: the next fault's injection or the end of the load, unix seconds.
    """
    watched = [item for item in indicators if item.holds(heal_s, until_s) is not None]
    steps = floor((until_s - WINDOW_S - heal_s) / STEP_S) + 1
    for step in range(max(steps, 0)):
        start_s = heal_s + step * STEP_S
        if watched and all(
            item.holds(start_s, start_s + WINDOW_S) and item.holds(start_s, until_s) for item in watched
        ):
            return start_s - heal_s
    return None
