"""From evidence to the parts of a verdict. Reads measurements; `holdfast_slo` decides what they prove."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import floor, inf
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from holdfast_chaos.events import counts, is_good, on_calls
from holdfast_chaos.experiment import Coverage, Experiment, JudgedObjective, Resolved
from holdfast_chaos.faults import Fault
from holdfast_chaos.lateness import lateness_reasons
from holdfast_chaos.processes import ProcessLife
from holdfast_chaos.prometheus_server import SCRAPE_INTERVAL_S
from holdfast_chaos.proof import Evidence as Traffic
from holdfast_chaos.proof import Window
from holdfast_chaos.recovery_time import WINDOW_S, Indicator, recovered_after_s
from holdfast_chaos.runner import Evidence, FaultRecord, Sources
from holdfast_loadtests.engine import ENGINE
from holdfast_loadtests.records import Call
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.summary import LoadSummary, distinct_rows, timeline, unended_text
from holdfast_slo.evaluate import judge
from holdfast_slo.openslo import Objective
from holdfast_slo.phases import BASELINE, FAULT_PREFIX
from holdfast_slo.prometheus import Prometheus, PrometheusError, Series
from holdfast_slo.reasons import Code, VerdictWord
from holdfast_slo.report import FleetPoint, Timeline, TimelinePoint
from holdfast_slo.verdict import (
    CallCount,
    CheckResult,
    ExperimentRef,
    FaultResult,
    LatencySummary,
    LoadResult,
    ObjectiveResult,
    Phase,
    Reason,
    Reconciliation,
    RecoveryResult,
    TargetRef,
    Verdict,
)

Lives = Mapping[str, Sequence[ProcessLife]]
"""Lives of the processes that faults may aim at, by name."""

NOTHING_READ: Final[Mapping[str, Sequence[Series]]] = MappingProxyType({})

BUCKET_S = 0.5
"""Width of one point of the report's plots."""

CLIENT_COUNTER = "grpc_client_handled_total"
"""What every attempt of the load counts in, by service, method, code and phase."""

SETTLED_S = 2 * SCRAPE_INTERVAL_S
"""Scrapes older than this are whole in Prometheus: a scrape may take its whole interval."""

SHOWN_MAX = 20
"""Violations listed by name; the rest are counted."""


@dataclass
class Readings:
    """What Prometheus said, read while it still ran."""

    objectives: list[ObjectiveResult] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    series: dict[str, list[Series]] = field(default_factory=dict)
    handled: int | None = None
    counters: dict[str, list[Series]] = field(default_factory=dict)
    """Of the target, by selector: what proofs of faults ask for."""


def read_counters(faults: Iterable[Fault[Any]], evidence: Evidence, sources: Sources) -> dict[str, list[Series]]:
    """The target's counters that faults' proofs ask for; what cannot be read is left out, and leaves them unproven."""
    if not evidence.windows:
        return {}
    source = sources.given or sources.own
    found = {}
    for selector in sorted({each for fault in faults for each in fault.reads}):
        with suppress(PrometheusError):
            found[selector] = source.raw(selector, evidence.started_s, evidence.windows[-1].end_s)
    return found


def read(judged: Iterable[JudgedObjective], evidence: Evidence, sources: Sources) -> Readings:
    """Judges each objective in each of its phases by itself, and reads the total the reconciliation needs."""
    readings = Readings()
    for entry in judged:
        for group in entry.groups:
            _judge_one(entry.objective, group, evidence, sources, readings)
    _read_total(evidence, sources.own, readings)
    return readings


def _judge_one(
    objective: Objective,
    phases: Sequence[str],
    evidence: Evidence,
    sources: Sources,
    into: Readings,
    until_s: float = inf,
) -> None:
    source = sources.of(objective)
    result, reasons, series = judge(objective, phases, evidence.windows, source, SCRAPE_INTERVAL_S, until_s)
    into.objectives.append(result)
    into.reasons.extend(reasons)
    into.series[f"{objective.name}/{'+'.join(phases)}"] = series


def _read_total(evidence: Evidence, prometheus: Prometheus, into: Readings) -> None:
    start_s = evidence.started_s
    end_s = evidence.windows[-1].end_s + 60.0 if evidence.windows else start_s + 1.0
    try:
        series = prometheus.raw(CLIENT_COUNTER, start_s, end_s)
    except PrometheusError as error:
        into.reasons.append(Reason(code="PROMETHEUS_UNREACHABLE", subject="reconciliation", message=str(error)))
        return
    into.handled = round(sum(item.samples[-1][1] for item in series if item.samples))


def baseline_reasons(
    judged: Sequence[JudgedObjective], evidence: Evidence, sources: Sources, now_s: float
) -> list[Reason]:
    """Why nothing may be injected: each objective judged in the baseline must hold there, at least as observed.

    Too few samples for a proof do not stop a run here (the verdict will say so); a ratio below its target, or none at
    all, does.
    """
    readings = Readings()
    until_s = now_s - SETTLED_S
    for entry in judged:
        if (BASELINE,) in entry.groups:
            _judge_one(entry.objective, [BASELINE], evidence, sources, readings, until_s)
    return [reason for result in readings.objectives if (reason := _baseline_reason(result))] or [
        reason for reason in readings.reasons if reason.code in {"PROMETHEUS_UNREACHABLE", "METRICS_MISSING"}
    ]


def _baseline_reason(result: ObjectiveResult) -> Reason | None:
    if result.verdict == "FAIL":
        message = (
            f"{result.name} was {result.observed:.4%} in the baseline, below {result.target:.4%}: nothing was injected"
        )
        return Reason(code="BASELINE_VIOLATED", subject=result.name, message=message)
    if result.observed is None or result.observed < result.target:
        seen = (
            (result.detail or "no samples") if result.observed is None else f"{result.observed:.4%} of {result.total}"
        )
        message = (
            f"{result.name} did not hold in the baseline ({seen}, target {result.target:.4%}): nothing was injected"
        )
        return Reason(code="BASELINE_UNDECIDED", subject=result.name, message=message)
    return None


def fault_results(
    evidence: Evidence,
    calls: Sequence[Call],
    lives: Lives,
    counters: Mapping[str, Sequence[Series]] = NOTHING_READ,
    seed: int = 0,
) -> list[FaultResult]:
    """What each fault did to traffic; one that was never injected is UNPROVEN."""
    return [_fault_result(record, evidence, calls, lives, counters, seed) for record in evidence.faults]


def _fault_result(
    record: FaultRecord,
    evidence: Evidence,
    calls: Sequence[Call],
    lives: Lives,
    counters: Mapping[str, Sequence[Series]],
    seed: int,
) -> FaultResult:
    fault, baseline = record.fault, evidence.window(BASELINE)
    if record.injected_s is None or baseline is None:
        return FaultResult(
            id=fault.id, kind=fault.kind, requested=fault.spec.model_dump(mode="json"), observed={},
            proof="it was never injected", verdict="UNPROVEN", injected_at=None, healed_at=None,
        )  # fmt: skip
    window = Window(record.injected_s, record.healed_s or evidence.windows[-1].end_s)
    before = Window(baseline.start_s, baseline.end_s)
    seen = Traffic(
        window, before, calls, evidence.control, lives, evidence.sightings, counters,
        evidence.paths, record.connected, seed, _in_force(record),
    )  # fmt: skip
    proof = fault.prove(seen)
    return FaultResult(
        id=fault.id, kind=fault.kind, requested=proof.requested, observed=proof.observed, proof=proof.sentence,
        verdict=proof.verdict.value, injected_at=record.injected_s, healed_at=record.healed_s,
    )  # fmt: skip


def _in_force(record: FaultRecord) -> Window | None:
    if record.in_force_s is None or record.heal_began_s is None:
        return None
    return Window(record.in_force_s, record.heal_began_s)


def recovery_result(
    judged: Sequence[JudgedObjective], evidence: Evidence, calls: Sequence[Call], limit_s: float
) -> RecoveryResult:
    """The slowest recovery of all heals, by every objective judged outside the faults' windows.

    A heal that another fault follows too soon to show whether the limit was kept is judged together with that one: what
    it left behind still counts after the later heal. The last heal must be seen.
    """
    indicators = [
        Indicator.of(entry.objective.target, _events(entry.objective, calls))
        for entry in judged
        if on_calls(entry.objective) and any(not phase.startswith(FAULT_PREFIX) for phase in entry.phases)
    ]
    injections = [record.injected_s for record in evidence.faults if record.injected_s is not None]
    end_s = evidence.windows[-1].end_s if evidence.windows else evidence.started_s
    slowest_s: float | None = None
    for healed_s in sorted(record.healed_s for record in evidence.faults if record.healed_s is not None):
        until_s = min((start_s for start_s in injections if start_s > healed_s), default=end_s)
        seconds = recovered_after_s(indicators, healed_s, until_s)
        time_to_show = until_s - healed_s >= limit_s + WINDOW_S
        if (seconds is None and time_to_show) or (seconds is not None and seconds > limit_s):
            return RecoveryResult(seconds=seconds, limit_seconds=limit_s, verdict="FAIL")
        if until_s == end_s:
            slowest_s = None if seconds is None else max(slowest_s or 0.0, seconds)
        elif seconds is not None:
            slowest_s = max(slowest_s or 0.0, seconds)
    if not evidence.faults:
        slowest_s = 0.0
    every_fault_came = all(record.healed_s is not None for record in evidence.faults)
    verdict: VerdictWord = "PASS" if slowest_s is not None and every_fault_came else "INCONCLUSIVE"
    return RecoveryResult(seconds=slowest_s, limit_seconds=limit_s, verdict=verdict)


def _events(objective: Objective, calls: Iterable[Call]) -> Iterable[tuple[float, bool]]:
    """When each call that counts towards the objective was due, and whether it was bad."""
    for call in calls:
        labels = call_labels(call)
        if counts(objective, labels):
            yield call.due_s, not (call.sent and is_good(objective, labels, call.latency_ms / 1000))


def call_labels(call: Call) -> dict[str, str]:
    """The labels under which the load counts a call."""
    return {
        "grpc_type": call.type,
        "grpc_service": call.service,
        "grpc_method": call.method,
        "grpc_code": call.code,
        "phase": call.phase,
    }


def reconciliation(readings: Readings, calls: Sequence[Call]) -> Reconciliation | None:
    """What the clients recorded against what Prometheus counted; None where Prometheus could not be asked.

    The load stood still for two scrapes before Prometheus was asked, so that not even one call may be missing.
    """
    if readings.handled is None:
        return None
    finished = sum(call.sent for call in calls)
    difference = abs(finished - readings.handled)
    return Reconciliation(
        client=finished, prometheus=readings.handled, difference=difference, allowed=0,
        verdict="PASS" if difference == 0 else "INCONCLUSIVE",
    )  # fmt: skip


def check_results(experiment: Experiment, calls: Sequence[Call]) -> list[CheckResult]:
    """The answers that the load's steps state, and the coverage that the experiment asks for."""
    answers = answers_check(experiment.load, calls)
    coverage = [_coverage_check(wanted, calls) for wanted in experiment.coverage]
    return coverage if answers is None else [answers, *coverage]


def answers_check(load: LoadSpec, calls: Sequence[Call]) -> CheckResult | None:
    """No call may get a definite answer other than its step states; None where no step states any.

    A registration that was lost answers NotFound, for one, where an unreachable server answers Unavailable.
    Only steps that state `expect` or `assert` make a claim; for the others the objectives alone say what is good.
    """
    claims = _claims(load)
    if not claims:
        return None
    answered = [call for call in calls if (call.scenario, call.step) in claims and call.outcome in {"ok", "definite"}]
    wrong = Counter(
        f"{call.method} answered {call.code} in {call.phase}" + (f": {call.note}" if call.note else "")
        for call in answered
        if not call.expected
    )
    violations = [f"{text} ({count} times)" for text, count in wrong.most_common(SHOWN_MAX)]
    if len(wrong) > SHOWN_MAX:
        violations.append(f"… and {len(wrong) - SHOWN_MAX} more kinds")
    return CheckResult(
        name="answers-as-stated",
        verdict="FAIL" if wrong else "PASS" if answered else "INCONCLUSIVE",
        violations=tuple(violations),
        detail=f"{len(answered)} answers to {len(claims)} steps that state which are right",
    )


def _claims(load: LoadSpec) -> set[tuple[str, int]]:
    """Scenario and position of the steps that state their answers."""
    stated = {
        (scenario.name, position)
        for scenario in load.scenarios
        for position, step in enumerate(scenario.steps)
        if {"expect", "asserts"} & step.model_fields_set
    }
    mixed = load.all_scenarios()[len(load.scenarios) :]
    return stated | {
        (scenario.name, 0)
        for scenario, entry in zip(mixed, load.mix, strict=True)
        if "expect" in entry.model_fields_set
    }


def _coverage_check(wanted: Coverage, calls: Sequence[Call]) -> CheckResult:
    rows = len(distinct_rows(calls, wanted.call))
    return CheckResult(
        name=wanted.name,
        verdict="PASS" if rows >= wanted.rows_min else "INCONCLUSIVE",
        violations=(),
        detail=f"{rows} rows had an OK of {wanted.call}, {wanted.rows_min} wanted",
    )


def load_result(summary: LoadSummary) -> LoadResult:
    """The load as a verdict holds it."""
    latency = summary.latency
    quantiles = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.p999_ms, latency.max_ms)
    p50, p95, p99, p999, longest = quantiles if latency.count else (None,) * len(quantiles)
    return LoadResult(
        engine=ENGINE,
        requested_rps=summary.requested_rps,
        achieved_rps=summary.achieved_rps,
        sent=summary.sent,
        ok=summary.ok,
        errors=summary.errors,
        schedule_lag_ms_p99=summary.lag_p99_ms,
        latency_ms=LatencySummary(p50=p50, p95=p95, p99=p99, p999=p999, max=longest),
        calls=tuple(
            CallCount(phase=phase, method=method, code=code, count=count)
            for (phase, method, code), count in sorted(summary.counts.items())
        ),
    )


def conclude(
    resolved: Resolved,
    evidence: Evidence,
    readings: Readings,
    calls: Sequence[Call],
    lives: Lives,
    command: str,
    ended_s: float,
    checks: Sequence[CheckResult] = (),
) -> Verdict:
    """The verdict that follows from everything a run found."""
    experiment, summary = resolved.experiment, evidence.load
    reasons = [*evidence.reasons, *readings.reasons]
    if summary is not None and summary.saturated:
        reasons.append(Reason(code=Code.GENERATOR_SATURATED, subject="load", message=summary.saturated))
    reasons += lateness_reasons(readings.objectives, calls)
    if summary is not None and summary.unended:
        reasons.append(Reason(code=Code.CALLS_UNENDED, subject="load", message=unended_text(summary.unended)))
    return Verdict.build(
        experiment=ExperimentRef(name=resolved.name, seed=experiment.seed, sha256=resolved.sha256),
        target=TargetRef(address=evidence.target_address, command=tuple(experiment.target.command or ())),
        started_at=evidence.started_s,
        ended_at=ended_s,
        phases=[Phase(name=window.name, start=window.start_s, end=window.end_s) for window in evidence.windows],
        objectives=readings.objectives or _unjudged(resolved.objectives),
        faults=fault_results(evidence, calls, lives, readings.counters, experiment.seed),
        load=load_result(summary) if summary else None,
        checks=[*check_results(experiment, calls), *checks],
        recovery=recovery_result(resolved.objectives, evidence, calls, experiment.recovery.within.total_seconds()),
        reconciliation=reconciliation(readings, calls),
        tools=evidence.versions,
        reasons=reasons,
        command=command,
    )


def _unjudged(judged: Iterable[JudgedObjective]) -> list[ObjectiveResult]:
    """The objectives of a run that ended before Prometheus could be asked."""
    nothing = NoSource()
    return [
        judge(entry.objective, group, [], nothing, SCRAPE_INTERVAL_S)[0] for entry in judged for group in entry.groups
    ]


class NoSource:
    """A source of samples that has none."""

    def raw(self, selector: str, start_s: float, end_s: float) -> list[Series]:
        """Nothing."""
        del selector, start_s, end_s
        return []


def timeline_of(evidence: Evidence, calls: Iterable[Call], fleet: Sequence[FleetPoint] = ()) -> Timeline:
    """The load over time beside the control path, and what the fleet did, for the report."""
    control = defaultdict(list)
    for sample in evidence.control:
        if sample.latency_ms is not None:
            control[floor(sample.t_s / BUCKET_S)].append(sample.latency_ms)
    points = [
        TimelinePoint(
            t_s=bucket.start_s,
            calls=bucket.calls,
            errors=bucket.errors,
            p50_ms=bucket.p50_ms,
            p95_ms=bucket.p95_ms,
            p99_ms=bucket.p99_ms,
            control_p50_ms=median(seen) if (seen := control.get(floor(bucket.start_s / BUCKET_S))) else None,
        )
        for bucket in timeline(calls, BUCKET_S)
    ]
    ends_s = evidence.windows[-1].end_s if evidence.windows else 0.0
    within = tuple(point for point in fleet if point.t_s < ends_s)  # callers wait longer for what they asked for
    return Timeline(points=tuple(points), bucket_s=BUCKET_S, phases=tuple(evidence.windows), fleet=within)
