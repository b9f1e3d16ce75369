"""How many samples a run must gather, fixed before it begins.

A phase is extended until its objectives could be decided even with a few failures among the samples; the number depends
on targets alone, never on outcomes seen, since stopping when things look good would make the statistics lie.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast_chaos.events import counts, on_calls
from holdfast_chaos.experiment import JudgedObjective
from holdfast_slo.openslo import Objective
from holdfast_slo.phases import BASELINE, RECOVERY
from holdfast_slo.statistics import samples_needed

FAILURES_PROVIDED_FOR = 1
"""A run gathers enough samples to prove an objective in spite of this many failures in a phase."""

EXTENDED = (BASELINE, RECOVERY)
"""The phases that can wait for samples; a fault's window is as long as the experiment says."""


@dataclass(frozen=True, slots=True)
class Need:
    """`count` events of an objective are needed in a phase."""

    objective: Objective
    phase: str
    count: int


def needs(objectives: Sequence[JudgedObjective]) -> list[Need]:
    """What each objective needs in each phase that it is judged in by itself, where the load can bring it."""
    return [
        Need(judged.objective, phase, samples_needed(judged.objective.target, FAILURES_PROVIDED_FOR))
        for judged in objectives
        if on_calls(judged.objective) and not judged.pooled
        for phase in judged.phases
    ]


def unmet(wanted: Iterable[Need], phase: str, calls: Mapping[tuple[str, str, str], int]) -> list[Need]:
    """The needs of a phase that the calls counted so far do not meet.

    Args:
        wanted: all needs of the run.
        phase: the phase in question.
        calls: calls so far by phase, method and code.
    """
    here = [
        ({"grpc_method": method, "grpc_code": code}, count)
        for (of, method, code), count in calls.items()
        if of == phase
    ]
    return [
        need
        for need in wanted
        if need.phase == phase and sum(count for labels, count in here if counts(need.objective, labels)) < need.count
    ]
