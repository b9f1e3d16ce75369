"""Proof that a fault bit: measured on traffic and read from the operating system, never taken from the injector's word.

Load goes through the fault, a control probe beside it on an untouched path. What only the load saw is the fault's; what
both saw is the machine's. Pure: records in, numbers out. All times are unix seconds, latencies ms.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast_loadtests.codes import NEVER_SENT
from holdfast_slo.counters import increase
from holdfast_slo.phases import PhaseWindow
from holdfast_slo.prometheus import Series
from holdfast_slo.statistics import quantile_bounds

if TYPE_CHECKING:
    from holdfast_chaos.probe import ProbeSample
    from holdfast_chaos.processes import ProcessLife

CALLS_MIN: Final = 20
"""Calls needed on either side of a comparison of medians: below, its 95 % interval spans half the sample."""

PROBES_MIN: Final = 10
"""Control probes needed on either side."""

CONFIDENCE: Final = 0.975
"""Of each end of an interval, so that the whole has 95 %."""

REDIAL_S: Final = 0.6
"""The load's longest wait before it dials again (500 ms, and 20 % of jitter). Until then every call on a connection
fails with the reset already counted; after it the failure can only be a new one. So counts are lower bounds."""

SIGKILLED: Final = -9


class ProofVerdict(StrEnum):
    """Whether a fault bit."""

    EFFECTIVE = "EFFECTIVE"
    INEFFECTIVE = "INEFFECTIVE"
    UNPROVEN = "UNPROVEN"


@dataclass(frozen=True)
class Proof:
    """What was asked, what was seen, and what follows, with one sentence for people."""

    verdict: ProofVerdict
    sentence: str
    requested: dict[str, Any] = field(default_factory=dict)
    observed: dict[str, Any] = field(default_factory=dict)


class CallLike(Protocol):
    """What a proof needs to know of a call of the load."""

    @property
    def sent_s(self) -> float: ...  # noqa: D102
    @property
    def done_s(self) -> float: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def code(self) -> str: ...  # noqa: D102
    @property
    def connection(self) -> object: ...  # noqa: D102
    @property
    def error_class(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, its end excluded."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def holds(self, t_s: float) -> bool:
        """Whether a moment lies in it."""
        return self.start_s <= t_s < self.end_s


@dataclass(frozen=True)
class Evidence:
    """What was seen around one fault."""

    window: Window
    """From when the fault was in force to when it was healed."""
    baseline: Window
    load: Sequence[CallLike]
    control: Sequence["ProbeSample"]
    lives: Mapping[str, Sequence["ProcessLife"]] = field(default_factory=dict)
    """Lives of the run's processes, by name."""
    sightings: Sequence["Sighting"] = ()
    """What state the operating system said that processes were in."""
    counters: Mapping[str, Sequence[Series]] = field(default_factory=dict)
    """Samples of the target's counters that the fault reads, by selector; nothing where it exposes none."""
    paths: Mapping[str, Sequence["ProbeSample"]] = field(default_factory=dict)
    """Probes along the paths of processes of their own, by process."""
    connected: Collection[str] = ()
    """The processes that were connected to the target through a path of their own, as the operating system said when
    the fault was injected or healed."""
    seed: int = 0
    """The run's, which chose among several."""
    in_force: Window | None = None
    """From when the injection was done to when the heal began: less than the window, which holds both."""

    def along(self, hit: Iterable[str], spared: Iterable[str]) -> "Evidence":
        """The same of the paths of some processes, `load`, against those of others, or the control path if none."""
        probes = [sample for name in spared for sample in self.paths[name]]
        load = [_PathCall(sample, name) for name in hit for sample in self.paths[name]]
        return replace(self, load=load, control=probes or self.control)

    def grown(self, selector: str) -> float | None:
        """By how much a counter grew in the window, at least; None where it was not seen there."""
        series = self.counters.get(selector, ())
        if not any(self.window.holds(at_s) for one in series for at_s, _ in one.samples):
            return None
        span = PhaseWindow("window", self.window.start_s, self.window.end_s)
        return sum(increase(one, [span.name], [span]).value for one in series)


@dataclass(frozen=True, slots=True)
class _PathCall:
    """A probe along the path of a process, as a call."""

    sample: "ProbeSample"
    connection: object
    method: str = "Check"
    type: str = "unary"

    @property
    def sent_s(self) -> float:
        return self.sample.t_s

    @property
    def done_s(self) -> float:
        return self.sample.ended_s

    @property
    def code(self) -> str:
        return "OK" if self.sample.latency_ms is not None else self.sample.error

    @property
    def error_class(self) -> str:
        return self.sample.error_class


@dataclass(frozen=True, slots=True)
class Sighting:
    """A process was looked at: at a moment in unix seconds, and whether it stood still (SIGSTOP)."""

    t_s: float
    process: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class Shift:
    """How much more the load's median latency grew than the control path's, with its 95 % interval."""

    value_ms: float
    low_ms: float
    high_ms: float
    baseline_p50_ms: float
    control_p50_ms: float
    control_shift_ms: float
    calls: int

    def describe(self) -> str:
        """For people: `98.2 ± 3.1 ms (baseline p50 4.0 ms, control 3.0 ms)`."""
        half_ms = max(self.high_ms - self.value_ms, self.value_ms - self.low_ms)
        return (
            f"{self.value_ms:.1f} ± {half_ms:.1f} ms "
            f"(baseline p50 {self.baseline_p50_ms:.1f} ms, control {self.control_p50_ms:.1f} ms)"
        )


def latency_shift(evidence: Evidence, tail_s: float = 0.0) -> Shift | str:
    """The difference of differences: (load in window − load in baseline) − (control in window − control in baseline).

    Each call is compared with the baseline's median of its own method, so that a shift in the mix of methods is not
    taken for latency. Time counts from when a call was sent, since waiting for a user or a row is not the network's.
    Calls that ended by their deadline stay inside (they lasted at least that long); those that failed at once do not.
    The interval is from order statistics of each of the four medians, added in quadrature.

    Args:
        evidence: what was seen.
        tail_s: calls sent less than this before the end are left out: the heal cut them short.

    Returns:
        the shift, or why there is none.
    """
    sides = _sides(evidence, tail_s)
    for what, values, needed in (
        ("calls in the baseline", sides.load_before, CALLS_MIN),
        ("calls in the window", sides.load_during, CALLS_MIN),
        ("control probes in the baseline", sides.control_before, PROBES_MIN),
        ("control probes in the window", sides.control_during, PROBES_MIN),
    ):
        if len(values) < needed:
            return f"only {len(values)} {what} to judge by, {needed} are needed"
    load_before, load_during = _estimate(sides.load_before), _estimate(sides.load_during)
    control_before, control_during = _estimate(sides.control_before), _estimate(sides.control_during)
    control_shift_ms = control_during.value - control_before.value
    value_ms = load_during.value - load_before.value - control_shift_ms
    return Shift(
        value_ms=value_ms,
        low_ms=value_ms - math.hypot(load_during.down, load_before.up, control_during.up, control_before.down),
        high_ms=value_ms + math.hypot(load_during.up, load_before.down, control_during.down, control_before.up),
        baseline_p50_ms=sides.baseline_p50_ms,
        control_p50_ms=control_during.value,
        control_shift_ms=control_shift_ms,
        calls=len(sides.load_during),
    )


@dataclass(frozen=True, slots=True)
class Resets:
    """Connections of the load that were reset."""

    count: int
    connections: int
    rate: float
    """A second, in the window."""
    baseline_count: int
    baseline_rate: float
    calls: int
    control_calls: int
    control_errors: int


def resets(evidence: Evidence) -> Resets:
    """Counts resets: calls that fail on one connection within its longest re-dial wait failed by one reset."""
    during = _reset_times(evidence.load, evidence.window)
    before = _reset_times(evidence.load, evidence.baseline)
    probes = [sample for sample in evidence.control if evidence.window.holds(sample.t_s)]
    count, baseline_count = _count_apart(during), _count_apart(before)
    return Resets(
        count=count,
        connections=len(during),
        rate=count / max(evidence.window.length_s, 1e-9),
        baseline_count=baseline_count,
        baseline_rate=baseline_count / max(evidence.baseline.length_s, 1e-9),
        calls=sum(evidence.window.holds(call.done_s) for call in evidence.load),
        control_calls=len(probes),
        control_errors=sum(sample.latency_ms is None for sample in probes),
    )


@dataclass(frozen=True, slots=True)
class Silence:
    """Calls sent while a fault was in force, and how many were answered in it; `baseline_share` before."""

    calls: int
    answered: int
    baseline_share: float
    control_calls: int
    control_answered: int


def silence(evidence: Evidence) -> Silence:
    """Counts who was answered while the fault was in force."""
    window = evidence.in_force or evidence.window
    during = [call for call in evidence.load if window.holds(call.sent_s) and call.type == "unary"]
    before = [call for call in evidence.load if evidence.baseline.holds(call.sent_s) and call.type == "unary"]
    probes = [sample for sample in evidence.control if window.holds(sample.t_s)]
    return Silence(
        calls=len(during),
        answered=sum(_is_answered(call) and call.done_s < window.end_s for call in during),
        baseline_share=sum(_is_answered(call) for call in before) / max(len(before), 1),
        control_calls=len(probes),
        control_answered=sum(sample.latency_ms is not None for sample in probes),
    )


def _is_answered(call: CallLike) -> bool:
    return call.error_class == "" and call.code != NEVER_SENT


@dataclass(frozen=True, slots=True)
class Outage:
    """A process's death as seen by the operating system, the control path and the load."""

    killed: "ProcessLife | None"
    successor: "ProcessLife | None"
    control_s: float | None
    """From the first failed probe to the next answered one (or the last failed one); None if none failed."""
    load_errors: int


def outage(evidence: Evidence, process: str) -> Outage:
    """Looks for a life of `process` that SIGKILL ended in the window, for the life after it, and for who noticed."""
    lives = evidence.lives.get(process, ())
    killed = next((life for life in lives if life.returncode == SIGKILLED and _ended_in(life, evidence.window)), None)
    successor = None
    if killed is not None:
        successor = next(
            (
                life
                for life in lives
                if life.ready_s and life.started_s > killed.started_s and life.identity != killed.identity
            ),
            None,
        )
    return Outage(
        killed=killed,
        successor=successor,
        control_s=_control_outage_s(evidence),
        load_errors=sum(1 for call in evidence.load if evidence.window.holds(call.done_s) and _failed_on_the_way(call)),
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """The four samples of a difference of differences, sorted, in ms; the load's less their methods' medians."""

    load_before: Sequence[float]
    load_during: Sequence[float]
    control_before: Sequence[float]
    control_during: Sequence[float]
    baseline_p50_ms: float


def _sides(evidence: Evidence, tail_s: float) -> _Sides:
    before = _unary(evidence.load, evidence.baseline)
    during = _unary(evidence.load, Window(evidence.window.start_s, evidence.window.end_s - tail_s))
    usual_ms = {method: median(values) for method, values in _by_method(before).items()}
    return _Sides(
        load_before=sorted(_lasted_ms(call) - usual_ms[call.method] for call in before),
        load_during=sorted(_lasted_ms(call) - usual_ms[call.method] for call in during if call.method in usual_ms),
        control_before=_probed_ms(evidence.control, evidence.baseline),
        control_during=_probed_ms(evidence.control, evidence.window),
        baseline_p50_ms=median(_lasted_ms(call) for call in before) if before else math.nan,
    )


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A median and how far its interval reaches down and up."""

    value: float
    down: float
    up: float


def _estimate(ordered: Sequence[float]) -> _Estimate:
    value = median(ordered)
    low, high = quantile_bounds(ordered, 0.5, CONFIDENCE)
    assert low is not None, "CALLS_MIN and PROBES_MIN leave room for both bounds"
    assert high is not None, "as above"
    return _Estimate(value, value - low, high - value)


def _unary(calls: Iterable[CallLike], window: Window) -> list[CallLike]:
    """Unary calls sent in the window that got as far as an answer or their deadline."""
    return [
        call
        for call in calls
        if window.holds(call.sent_s)
        and call.type == "unary"
        and call.done_s > call.sent_s
        and not _failed_on_the_way(call)
    ]


def _failed_on_the_way(call: CallLike) -> bool:
    """Whether the connection failed, rather than the target answering or time running out."""
    return call.error_class not in {"", "deadline"} or call.code == "Unavailable"


def _lasted_ms(call: CallLike) -> float:
    return (call.done_s - call.sent_s) * 1000.0


def _by_method(calls: Iterable[CallLike]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        found[call.method].append(_lasted_ms(call))
    return found


def _probed_ms(samples: Iterable["ProbeSample"], window: Window) -> list[float]:
    return sorted(sample.latency_ms for sample in samples if window.holds(sample.t_s) and sample.latency_ms is not None)


def _reset_times(calls: Iterable[CallLike], window: Window) -> dict[object, list[float]]:
    found: dict[object, list[float]] = defaultdict(list)
    for call in calls:
        if call.error_class == "reset" and window.holds(call.done_s):
            found[call.connection].append(call.done_s)
    return found


def _count_apart(times: Mapping[object, Sequence[float]]) -> int:
    """How many failures of each connection came more than a re-dial's wait after the one counted before."""
    count = 0
    for moments in times.values():
        counted_s = -math.inf
        for moment_s in sorted(moments):
            if moment_s - counted_s > REDIAL_S:
                count, counted_s = count + 1, moment_s
    return count


def _ended_in(life: "ProcessLife", window: Window) -> bool:
    return life.ended_s is not None and window.holds(life.ended_s)


def _control_outage_s(evidence: Evidence) -> float | None:
    failed = [
        sample.t_s for sample in evidence.control if sample.latency_ms is None and evidence.window.holds(sample.t_s)
    ]
    if not failed:
        return None
    answered = [sample.t_s for sample in evidence.control if sample.latency_ms is not None and sample.t_s > failed[0]]
    return min(answered, default=failed[-1]) - failed[0]
