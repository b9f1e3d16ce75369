"""Running totals of a load: for its metrics, its status lines, and its result where no record of every call is kept."""

import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from holdfast_loadtests.codes import Outcome
from holdfast_loadtests.histogram import Histogram, merged
from holdfast_loadtests.timings import Timings

LATENCY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
WINDOW_S: Final = 3.0
"""Rates and quantiles of status lines are taken over so long; verdicts are made from the record, never from these."""


class Started(NamedTuple):
    """Labels of a call that was sent."""

    type: str
    service: str
    method: str
    phase: str


class Handled(NamedTuple):
    """Labels of a call that ended."""

    type: str
    service: str
    method: str
    code: str
    phase: str


class Lane:
    """Calls of one method that were due in one phase."""

    __slots__ = ("_lags", "by_code", "labels", "never_sent", "started", "wrong")

    def __init__(self, labels: Started, lags: Timings) -> None:
        self.labels = labels
        self.started = 0
        self.never_sent = 0
        self.by_code: dict[str, Timings] = {}
        self.wrong = Histogram()
        self._lags = lags

    def start(self, lag_s: float) -> None:
        """A call is sent."""
        self.started += 1
        self._lags.add(lag_s)

    def end(self, code: str, latency_s: float, expected: bool = True) -> None:
        """A call that was sent has ended; `expected`: with an answer as its step wants it."""
        if not expected:
            self.wrong.record_s(latency_s)
        series = self.by_code.get(code)
        if series is None:
            series = self.by_code[code] = Timings(LATENCY_BUCKETS_S)
        series.add(latency_s)


class Tally:
    """Totals by label; bounded by methods, codes and phases, however many calls there are."""

    def __init__(self) -> None:
        self.lanes: dict[Started, Lane] = {}
        self.lags: dict[str, Timings] = {}
        self.outcomes: Counter[Outcome] = Counter()
        self.in_flight = 0
        self.unexpected = 0
        self.wrong = 0
        self._marks: deque[tuple[float, Histogram, Histogram]] = deque()

    def lane(self, labels: Started) -> Lane:
        """Where calls with these labels are counted."""
        found = self.lanes.get(labels)
        if found is None:
            lags = self.lags.setdefault(labels.phase, Timings(LAG_BUCKETS_S))
            found = self.lanes[labels] = Lane(labels, lags)
        return found

    def judge(self, outcome: Outcome, expected: bool) -> None:
        """A call ended so, or will never be sent."""
        self.outcomes[outcome] += 1
        if not expected:
            self.unexpected += 1
            self.wrong += outcome in ("ok", "definite")

    @property
    def ended(self) -> int:
        """Calls that were sent and have ended."""
        return sum(lane.started for lane in self.lanes.values()) - self.in_flight

    @property
    def latency(self) -> dict[Handled, Timings]:
        """Every series, by its labels."""
        return {
            Handled(labels.type, labels.service, labels.method, code, labels.phase): series
            for labels, lane in self.lanes.items()
            for code, series in lane.by_code.items()
        }

    def latency_of(self, phases: Iterable[str]) -> Histogram:
        """All latencies of some phases."""
        wanted = set(phases)
        return merged(one.histogram for labels, one in self.latency.items() if labels.phase in wanted)

    def status(self, now_s: float) -> dict[str, object]:
        """What a status line says; quantiles and rate over the last `WINDOW_S` seconds."""
        latency = merged(series.histogram for series in self.latency.values())
        lag = merged(one.histogram for one in self.lags.values())
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= now_s - WINDOW_S:
            marks.popleft()
        since_s, latency_before, lag_before = marks[0] if marks else (now_s - WINDOW_S, Histogram(), Histogram())
        marks.append((now_s, latency, lag))
        recent = latency.since(latency_before)
        p50_us, p95_us, p99_us = recent.quantiles_us((0.5, 0.95, 0.99))
        [lag_p99_us] = lag.since(lag_before).quantiles_us((0.99,))
        counts: Counter[tuple[str, str, str]] = Counter()
        for labels, series in self.latency.items():
            counts[labels.phase, labels.method, labels.code] += series.count
        return {
            "sent": sum(lane.started for lane in self.lanes.values()),
            "ok": sum(count for (_, _, code), count in counts.items() if code == "OK"),
            "errors": self.unexpected,
            "never_sent": sum(lane.never_sent for lane in self.lanes.values()),
            "rps": recent.count / max(now_s - since_s, 0.1),
            "p50_ms": p50_us / 1000.0,
            "p95_ms": p95_us / 1000.0,
            "p99_ms": p99_us / 1000.0,
            "lag_p99_ms": lag_p99_us / 1000.0,
            "in_flight": self.in_flight,
            "counts": [[*key, count] for key, count in counts.items()],
        }


def at_quantile(ordered: list[float], q: float) -> float:
    """The smallest value with at least a share `q` of all at or below it (nearest rank); 0 for none."""
    if not ordered:
        return 0.0
    rank = math.ceil(round(len(ordered) * q, 9))  # 0.07 of 100 is rank 7, though it is 7.000000000000001 in floats
    return ordered[max(rank, 1) - 1]
