"""An objective judged from Prometheus: counted per phase, decided by exact bounds, never passed without data."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from holdfast_slo.counters import NOTHING, PHASE_LABEL, Increase, increase
from holdfast_slo.openslo import Objective
from holdfast_slo.phases import PhaseWindow, matching
from holdfast_slo.prometheus import PrometheusError, Series
from holdfast_slo.reasons import Code
from holdfast_slo.selectors import Selector
from holdfast_slo.statistics import (
    Decision,
    clopper_pearson_lower,
    clopper_pearson_upper,
    decide_ratio,
    samples_needed,
)
from holdfast_slo.verdict import ObjectiveResult, PhaseCount, Reason

__all__ = ["PhaseWindow", "Source", "judge"]

_TAIL_S: Final = 60.0
"""How long after the last phase a scrape still belongs to the run: the drain of calls in flight and a last scrape."""

_SCRAPES_BEFORE: Final = 10
"""Scrapes looked at before the first phase, for the values that counters had when it began."""

_SCRAPES_MISSED_MAX: Final = 3
"""Scrapes that may be missing at a phase's end before its counts are called incomplete."""

_SCRAPE_LATE_MAX_S: Final = 2.0
"""The same for short intervals, which a busy machine cannot keep to."""

_WHOLE: Final = 1e-6


class Source(Protocol):
    """Where samples come from; `Prometheus` is one."""

    def raw(self, selector: str, start_s: float, end_s: float) -> list[Series]:
        """All samples of the series a selector matches; PrometheusError if they cannot be had."""
        ...


class _UntrustedError(Exception):
    """The data cannot be judged, for a reason of the table."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Samples:
    """What Prometheus gave for an objective; `part` is the good or the bad events."""

    part: list[Series]
    total: list[Series]


def judge(
    objective: Objective,
    phases: Sequence[str],
    windows: Sequence[PhaseWindow],
    source: Source,
    scrape_interval_s: float,
    until_s: float = math.inf,
) -> tuple[ObjectiveResult, list[Reason], list[Series]]:
    """Judges an objective over its phases (`fault:*` stands for every fault window), pooled by events.

    A phase that is by itself proven below the target fails the objective, however many good events others add. Returns
    the raw series beside the result, so that another person can judge again. Never raises for lack of data: that is an
    INCONCLUSIVE result with its reason.

    Args:
        objective: what to judge.
        phases: where to judge it.
        windows: when each phase was in force.
        source: where the samples are.
        scrape_interval_s: how often they were taken.
        until_s: samples after this are left out, unix seconds. Needed while counters still move: an objective's two
            queries would else see different scrapes, and more good events than events.
    """
    seen: list[Series] = []
    try:
        names = _phases(phases, windows)
        samples = _fetch(objective, windows, source, scrape_interval_s, until_s)
        seen = [*samples.total, *samples.part]
        _check_covered(names, windows, samples.total, scrape_interval_s)
        counts, resets = _counts(objective, names, windows, samples)
    except PrometheusError as error:
        return _undecided(objective, phases, Code.PROMETHEUS_UNREACHABLE, str(error), seen)
    except _UntrustedError as error:
        return _undecided(objective, phases, error.code, str(error), seen)
    result = _decided(objective, counts, resets, any(PHASE_LABEL in series.labels for series in samples.total))
    return result, _reasons(result), seen


def _phases(patterns: Iterable[str], windows: Sequence[PhaseWindow]) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        found = matching(pattern, [window.name for window in windows])
        if not found:
            raise _UntrustedError(Code.TOO_FEW_SAMPLES, f"the phase {pattern!r} did not take place")
        names.extend(name for name in found if name not in names)
    if not names:
        raise _UntrustedError(Code.TOO_FEW_SAMPLES, "the objective names no phase to be judged in")
    return names


def _fetch(
    objective: Objective, windows: Sequence[PhaseWindow], source: Source, scrape_interval_s: float, until_s: float
) -> _Samples:
    start_s = min(window.start_s for window in windows) - _SCRAPES_BEFORE * scrape_interval_s
    end_s = min(max(window.end_s for window in windows) + _TAIL_S, until_s)
    total = source.raw(str(objective.total), start_s, end_s)
    if not total:
        raise _UntrustedError(Code.METRICS_MISSING, f"Prometheus has no samples of {objective.total}")
    selector = objective.good or objective.bad
    assert selector is not None, f"the objective {objective.name} counts neither good nor bad events"
    part = source.raw(str(selector), start_s, end_s)
    if not part:
        # No bad events at all is fine, a misspelt query is not: it would find none for ever.
        _check_could_match(selector, source.raw(str(selector.bare()), start_s, end_s))
    return _Samples(part, total)


def _check_could_match(selector: Selector, everything: Sequence[Series]) -> None:
    if not everything:
        raise _UntrustedError(
            Code.METRICS_MISSING, f"Prometheus has no samples of {selector.metric}, asked by {selector}"
        )
    for label, value in selector.labels_required().items():
        values = sorted({series.labels[label] for series in everything if label in series.labels})
        if not values:
            known = sorted({name for series in everything for name in series.labels} - {"__name__"})
            message = f"no series of {selector.metric} has the label {label!r}, asked by {selector}; labels are {known}"
            raise _UntrustedError(Code.METRICS_MISSING, message)
        if label == "le" and value is not None and value not in values:
            message = f"no bucket of {selector.metric} ends at le={value!r}; buckets end at {', '.join(values)}"
            raise _UntrustedError(Code.METRICS_MISSING, message)


def _check_covered(
    names: Iterable[str], windows: Sequence[PhaseWindow], total: Iterable[Series], scrape_interval_s: float
) -> None:
    """Each window must have been scraped to its end, or what was counted there is not all there was."""
    times = sorted({at for series in total for at, _ in series.samples})
    allowed_s = max(_SCRAPE_LATE_MAX_S, _SCRAPES_MISSED_MAX * scrape_interval_s)
    for window in windows:
        if window.name in names and not any(at >= window.end_s - allowed_s and at > window.start_s for at in times):
            last = f"the last is {window.end_s - times[-1]:.1f} s older" if times else "there is none"
            message = f"Prometheus has no sample from the end of the phase {window.name!r}; {last}"
            raise _UntrustedError(Code.METRICS_MISSING, message)


def _counts(
    objective: Objective, names: Iterable[str], windows: Sequence[PhaseWindow], samples: _Samples
) -> tuple[list[PhaseCount], int]:
    counts, resets = [], 0
    for name in names:
        total, part = (_sum(series, name, windows) for series in (samples.total, samples.part))
        events, counted = _whole(total, objective.total), _whole(part, objective.good or objective.bad)
        good = counted if objective.good else events - counted
        if events == 0:
            raise _UntrustedError(Code.METRICS_MISSING, f"Prometheus counted no event in the phase {name!r}")
        if not 0 <= good <= events:
            message = (
                f"{counted} of {events} events in the phase {name!r} cannot be: the query's parts contradict each other"
            )
            raise _UntrustedError(Code.METRICS_MISSING, message)
        counts.append(PhaseCount(phase=name, good=good, total=events))
        resets += total.resets
    return counts, resets


def _sum(series: Iterable[Series], phase: str, windows: Sequence[PhaseWindow]) -> Increase:
    try:
        return sum((increase(one, [phase], windows) for one in series), start=NOTHING)
    except ValueError as error:
        raise _UntrustedError(Code.METRICS_MISSING, str(error)) from error


def _whole(counted: Increase, selector: Selector | None) -> int:
    if abs(counted.value - round(counted.value)) > _WHOLE:
        raise _UntrustedError(Code.METRICS_MISSING, f"{selector} grew by {counted.value}, which is no count of events")
    return round(counted.value)


def _decided(objective: Objective, counts: Sequence[PhaseCount], resets: int, labelled: bool) -> ObjectiveResult:
    good, total = sum(count.good for count in counts), sum(count.total for count in counts)
    verdict = decide_ratio(good, total, objective.target)
    guilty = [
        count.phase for count in counts if decide_ratio(count.good, count.total, objective.target) is Decision.FAIL
    ]
    if guilty:
        verdict = Decision.FAIL
    return ObjectiveResult(
        name=objective.name,
        display_name=objective.display_name,
        target=objective.target,
        observed=good / total,
        ci_low=clopper_pearson_lower(good, total),
        ci_high=clopper_pearson_upper(good, total),
        good=good,
        total=total,
        budget_consumed=(total - good) / total / (1 - objective.target),
        verdict=verdict.value,
        source=objective.source,
        query=_query(objective, [count.phase for count in counts], labelled),
        phase=", ".join(count.phase for count in counts),
        by_phase=tuple(counts),
        resets=resets,
        samples_needed=samples_needed(objective.target, total - good) if verdict is Decision.INCONCLUSIVE else None,
        detail=f"proven below target in {', '.join(guilty)}" if guilty and len(counts) > 1 else "",
    )


def _query(objective: Objective, names: Sequence[str], labelled: bool) -> str:
    """PromQL that gives the observed ratio at the end of the run, as long as no counter was reset."""

    def summed(selector: Selector) -> str:
        return f"sum({selector.where(PHASE_LABEL, '=~', '|'.join(names)) if labelled else selector})"

    total = summed(objective.total)
    if objective.good:
        return f"{summed(objective.good)} / {total}"
    assert objective.bad is not None, f"the objective {objective.name} counts neither good nor bad events"
    return f"1 - {summed(objective.bad)} / {total}"


def _undecided(
    objective: Objective, phases: Sequence[str], code: Code, message: str, seen: list[Series]
) -> tuple[ObjectiveResult, list[Reason], list[Series]]:
    result = ObjectiveResult(
        name=objective.name,
        display_name=objective.display_name,
        target=objective.target,
        observed=None,
        ci_low=None,
        ci_high=None,
        good=0,
        total=0,
        budget_consumed=None,
        verdict="INCONCLUSIVE",
        source=objective.source,
        query=_query(objective, phases, labelled=False),
        phase=", ".join(phases),
        samples_needed=samples_needed(objective.target),
        detail=message,
    )
    return result, [Reason(code=code, subject=objective.name, message=message)], seen


def _reasons(result: ObjectiveResult) -> list[Reason]:
    if result.verdict == "PASS":
        return []
    ratio = f"{result.good} of {result.total} good in {result.phase}"
    bounds = f"true ratio within {result.ci_low:.6g} … {result.ci_high:.6g}, target {result.target:.10g}"
    if result.verdict == "FAIL":
        why = f"; {result.detail}" if result.detail else ""
        return [Reason(code=Code.OBJECTIVE_VIOLATED, subject=result.name, message=f"{ratio}: {bounds}{why}")]
    needed = f"with {result.total - result.good} bad events {result.samples_needed} are needed"
    return [Reason(code=Code.TOO_FEW_SAMPLES, subject=result.name, message=f"{ratio}: {bounds}; {needed}")]
