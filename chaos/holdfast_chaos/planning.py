"""What a run would do: targets, blast radius, timeline, and whether the load brings the samples needed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from holdfast_chaos.events import counts, on_calls
from holdfast_chaos.experiment import JudgedObjective, Resolved
from holdfast_chaos.faults import Fault
from holdfast_chaos.samples import EXTENDED, FAILURES_PROVIDED_FOR
from holdfast_chaos.timeline import PlannedFault, PlannedPhase
from holdfast_loadtests.schedule import expected_calls
from holdfast_slo.statistics import samples_needed


@dataclass(frozen=True)
class SamplePlan:
    """One objective in one phase.

    `needed` proves it with no failure at all, `gathered` is what the phase waits for, `expected` what the load brings
    in the phase's planned length (None where it is not known: for a closed model, whose rate depends on the service,
    and for what other callers than the load see). Of phases that are judged as one, `phase` names all.
    """

    objective: str
    phase: str
    target: float
    needed: int
    gathered: int
    expected: float | None
    phase_s: float

    @property
    def enough(self) -> bool | None:
        """Whether the planned length brings what is needed; None if that cannot be known beforehand."""
        return None if self.expected is None else self.expected >= self.needed

    @property
    def extended_by_s(self) -> float:
        """By how many seconds the phase would have to be extended to gather its samples; infinite without calls."""
        if self.expected is None or self.expected >= self.gathered or self.phase not in EXTENDED:
            return 0.0
        return (self.gathered / self.expected - 1) * self.phase_s if self.expected else float("inf")


@dataclass(frozen=True)
class Plan:
    """What a run would do; nothing was touched to find out."""

    name: str
    source: str
    sha256: str
    seed: int
    target: str
    starts: tuple[str, ...]
    blast_radius: tuple[str, ...]
    phases: tuple[PlannedPhase, ...]
    samples: tuple[SamplePlan, ...]

    @property
    def length_s(self) -> float:
        """From the start of the baseline to the end of the last phase."""
        return self.phases[-1].end_s

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**asdict(self), "length_s": self.length_s}


def make_plan(resolved: Resolved) -> Plan:
    """The plan of an experiment."""
    target = resolved.experiment.target
    return Plan(
        name=resolved.name,
        source=resolved.source,
        sha256=resolved.sha256,
        seed=resolved.experiment.seed,
        target=" ".join(target.command) if target.command else str(target.address),
        starts=(
            *(["the target"] if target.command else []),
            "Toxiproxy",
            *(f"{entry.count} {name}" for name, entry in resolved.experiment.processes.items()),
            "Prometheus",
            "the load generator",
        ),
        blast_radius=tuple(map(_breaks, resolved.faults, resolved.windows)),
        phases=resolved.phases,
        samples=tuple(
            _sample_plan(resolved, judged, group) for judged in resolved.objectives for group in judged.groups
        ),
    )


def _breaks(fault: Fault[Any], window: PlannedFault) -> str:
    where = fault.needs_process()
    what = f"process {where!r}" if where else "all connections to the target, in Toxiproxy"
    if where and fault.on_paths:
        what = f"connections of {where!r} to the target, in Toxiproxy"
    settings = fault.spec.model_dump_json(by_alias=True, exclude_none=True)
    return f"{what}: {fault.id} ({fault.kind} {settings}) for {window.for_s:g} s"


def _sample_plan(resolved: Resolved, judged: JudgedObjective, group: tuple[str, ...]) -> SamplePlan:
    phases = [phase for phase in resolved.phases if phase.name in group]
    return SamplePlan(
        objective=judged.objective.name,
        phase=", ".join(group),
        target=judged.objective.target,
        needed=samples_needed(judged.objective.target),
        gathered=samples_needed(judged.objective.target, FAILURES_PROVIDED_FOR),
        expected=_expected(resolved, judged, phases),
        phase_s=sum(phase.end_s - phase.start_s for phase in phases),
    )


def _expected(resolved: Resolved, judged: JudgedObjective, phases: Sequence[PlannedPhase]) -> float | None:
    """None where it is not known: from a closed model, and from other callers than the load."""
    spec = resolved.experiment.load
    if spec.arrivals is None or not on_calls(judged.objective):
        return None
    return sum(
        count
        for phase in phases
        for call, count in expected_calls(spec, phase.start_s, phase.end_s, resolved.tables).items()
        if counts(judged.objective, _labels(call))
    )


def _labels(call: str) -> Mapping[str, str]:
    """The labels that an answered call to `service/method` has, as far as they are known beforehand."""
    service, _, method = call.partition("/")
    return {"grpc_service": service, "grpc_method": method, "grpc_code": "OK"}
