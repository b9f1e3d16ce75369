"""Exact counts from raw samples of counters, resets included."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from holdfast_slo.phases import PhaseWindow
from holdfast_slo.prometheus import Series

PHASE_LABEL = "phase"


@dataclass(frozen=True, slots=True)
class Increase:
    """How much a counter grew, and how often it began again from 0 (its process restarted) on the way."""

    value: float
    resets: int

    def __add__(self, other: "Increase") -> "Increase":
        return Increase(self.value + other.value, self.resets + other.resets)


NOTHING = Increase(0.0, 0)


def increase(series: Series, phases: Iterable[str], windows: Sequence[PhaseWindow]) -> Increase:
    """How much a counter grew within phases.

    A series labelled with its phase counts whole, from 0, if its phase is wanted: exact, whenever it was scraped. One
    without that label is cut by the phases' windows, each edge taken at the last scrape before it, and so is off by at
    most the calls of one scrape interval. A series that appears counts from 0, as client libraries begin.

    What was counted between the last scrape and a reset is lost with the process: the value is then a lower bound.

    Raises:
        ValueError: a sample is NaN, infinite or negative, which no counter is.
    """
    _check(series)
    wanted = set(phases)
    if PHASE_LABEL in series.labels:
        return _grown(series.samples, 0.0) if series.labels[PHASE_LABEL] in wanted else NOTHING
    parts = [_within(series, window) for window in windows if window.name in wanted]
    return sum(parts, start=NOTHING)


def _within(series: Series, window: PhaseWindow) -> Increase:
    before = [value for at, value in series.samples if at <= window.start_s]
    inside = [(at, value) for at, value in series.samples if window.start_s < at <= window.end_s]
    return _grown(inside, before[-1] if before else 0.0)


def _grown(samples: Iterable[tuple[float, float]], previous: float) -> Increase:
    total, resets = 0.0, 0
    for _, value in samples:
        if value < previous:
            resets += 1
            previous = 0.0
        total += value - previous
        previous = value
    return Increase(total, resets)


def _check(series: Series) -> None:
    for at, value in series.samples:
        if not isfinite(value) or value < 0:
            name = series.labels.get("__name__", "a series")
            raise ValueError(f"{name} was {value} at {at:.3f}, which no counter can be")
