"""Running totals of a load, for its metrics and its status lines; the record of every call is kept elsewhere."""

import math
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from holdfast_loadtests.records import Call

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


@dataclass
class Histogram:
    """Counts by bucket; the last one holds what exceeds every bound."""

    bounds_s: tuple[float, ...]
    counts: list[int] = field(init=False)
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds_s) + 1)

    def observe(self, value_s: float) -> None:
        """Adds one value; a value equal to a bound is within it, as in Prometheus."""
        self.counts[bisect_left(self.bounds_s, value_s)] += 1
        self.sum_s += value_s


@dataclass
class Tally:
    """Totals by label, and the last few seconds one by one."""

    started: Counter[Started] = field(default_factory=Counter)
    latency: dict[Handled, Histogram] = field(default_factory=dict)
    lag: dict[str, Histogram] = field(default_factory=dict)
    never_sent: Counter[Started] = field(default_factory=Counter)
    in_flight: int = 0
    unexpected: int = 0
    recent: deque[tuple[float, float, float]] = field(default_factory=deque)

    def start(self, labels: Started, lag_s: float) -> None:
        """A call is sent."""
        self.started[labels] += 1
        self.in_flight += 1
        if labels.phase not in self.lag:
            self.lag[labels.phase] = Histogram(LAG_BUCKETS_S)
        self.lag[labels.phase].observe(lag_s)

    def end(self, call: Call) -> None:
        """A call that was sent has ended."""
        self.in_flight -= 1
        self.unexpected += not call.expected
        labels = Handled(call.type, call.service, call.method, call.code, call.phase)
        if labels not in self.latency:
            self.latency[labels] = Histogram(LATENCY_BUCKETS_S)
        self.latency[labels].observe(call.done_s - call.due_s)
        self.recent.append((call.done_s, call.latency_ms, call.lag_ms))
        while self.recent[0][0] < call.done_s - WINDOW_S:
            self.recent.popleft()

    def give_up(self, call: Call) -> None:
        """A call that was due will never be sent."""
        self.never_sent[Started(call.type, call.service, call.method, call.phase)] += 1
        self.unexpected += 1

    def status(self, now_s: float) -> dict[str, object]:
        """What a status line says; quantiles and rate over the last `WINDOW_S` seconds."""
        window = [entry for entry in self.recent if entry[0] >= now_s - WINDOW_S]
        latencies_ms = sorted(entry[1] for entry in window)
        lags_ms = sorted(entry[2] for entry in window)
        counts: Counter[tuple[str, str, str]] = Counter()
        for labels, histogram in self.latency.items():
            counts[labels.phase, labels.method, labels.code] += sum(histogram.counts)
        return {
            "sent": sum(self.started.values()),
            "ok": sum(count for (_, _, code), count in counts.items() if code == "OK"),
            "errors": self.unexpected,
            "never_sent": sum(self.never_sent.values()),
            "rps": len(window) / WINDOW_S,
            "p50_ms": at_quantile(latencies_ms, 0.5),
            "p95_ms": at_quantile(latencies_ms, 0.95),
            "lag_p99_ms": at_quantile(lags_ms, 0.99),
            "in_flight": self.in_flight,
            "counts": [[*key, count] for key, count in counts.items()],
        }


def at_quantile(ordered: list[float], q: float) -> float:
    """The smallest value with at least a share `q` of all at or below it (nearest rank); 0 for none."""
    if not ordered:
        return 0.0
    rank = math.ceil(round(len(ordered) * q, 9))  # 0.07 of 100 is rank 7, though it is 7.000000000000001 in floats
    return ordered[max(rank, 1) - 1]
