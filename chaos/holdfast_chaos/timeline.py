"""When each phase of a run begins and ends, as planned.

The phases of a run, in order: `baseline`, then for each fault its window `fault:<id>` and a `settle` after it, and
`recovery`. A settle is not judged by the objectives: it is the time the service is given to come back, and whether it
did is judged by the recovery limit. `recovery` therefore begins at a moment fixed beforehand, never at one picked
because things looked good.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast_slo.phases import BASELINE, FAULT_PREFIX, RECOVERY, SETTLE

WARMUP = "warmup"
"""Before the baseline: connections are made and the first scrapes come in. Judged by nobody."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault's place in the run: `at_s` from the start of the baseline, `for_s` until it is healed."""

    id: str
    at_s: float
    for_s: float

    @property
    def phase(self) -> str:
        """The name of the phase its window is."""
        return FAULT_PREFIX + self.id

    @property
    def end_s(self) -> float:
        """When it is healed, from the start of the baseline."""
        return self.at_s + self.for_s


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """One stretch of the run, in seconds from the start of the baseline."""

    name: str
    start_s: float
    end_s: float


class TimelineError(ValueError):
    """The times do not fit together; `fault_index` says which fault is to blame, -1 none."""

    def __init__(self, fault_index: int, key: str, expected: str) -> None:
        super().__init__(expected)
        self.fault_index = fault_index
        self.key = key
        self.expected = expected


def resolve(
    *,
    baseline_s: float,
    recovery_s: float,
    within_s: float,
    faults: Sequence[PlannedFault],
    load_s: float | None,
) -> list[PlannedPhase]:
    """Lays the phases of a run end to end.

    Args:
        baseline_s: how long the baseline lasts.
        recovery_s: how long the recovery phase lasts.
        within_s: how long the service may take to recover: the settle after the last fault.
        faults: in any order; they may not overlap, since a call's phase must name one cause.
        load_s: how long the load lasts; None where it goes on for as long as the run needs it.

    Raises:
        TimelineError: a fault begins in the baseline, overlaps another, or leaves no room for recovery.
    """
    order = sorted(range(len(faults)), key=lambda index: faults[index].at_s)
    phases = [PlannedPhase(BASELINE, 0.0, baseline_s)]
    for index in order:
        fault = faults[index]
        before = phases[-1]
        if fault.at_s < before.end_s:
            raise TimelineError(index, "at", f"a time after {before.name} ends at {before.end_s:g} s")
        if fault.at_s > before.end_s:
            phases.append(PlannedPhase(SETTLE if len(phases) > 1 else BASELINE, before.end_s, fault.at_s))
        phases.append(PlannedPhase(fault.phase, fault.at_s, fault.end_s))
        if load_s is not None and fault.end_s + recovery_s > load_s:
            room = f"the load lasts {load_s:g} s and the recovery phase takes its last {recovery_s:g} s"
            raise TimelineError(index, "at", f"a window that ends by {load_s - recovery_s:g} s: {room}")
    heal_s = phases[-1].end_s
    settle_s = within_s if faults else 0.0
    if load_s is not None:
        settle_s = min(settle_s, max(0.0, load_s - recovery_s - heal_s))
    if settle_s:
        phases.append(PlannedPhase(SETTLE, heal_s, heal_s + settle_s))
    end_s = heal_s + settle_s + recovery_s
    if load_s is not None and end_s > load_s:
        raise TimelineError(-1, "phases", f"a load of at least {end_s:g} s to cover baseline and recovery")
    if recovery_s:
        phases.append(PlannedPhase(RECOVERY, heal_s + settle_s, max(end_s, load_s or 0.0)))
    return merge(phases)


def merge(phases: Sequence[PlannedPhase]) -> list[PlannedPhase]:
    """Joins neighbours of the same name."""
    merged: list[PlannedPhase] = []
    for phase in phases:
        if merged and merged[-1].name == phase.name:
            merged[-1] = PlannedPhase(phase.name, merged[-1].start_s, phase.end_s)
        else:
            merged.append(phase)
    return merged
