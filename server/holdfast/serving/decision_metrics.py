"""How well decisions go: counted once for each that ends while this server watches."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from holdfast.coordination.v1.decision_service_pb2 import DECISION_STATE_DECIDED, DecisionMethod, DecisionState
from holdfast.core.decisions import counting
from holdfast.core.decisions.entry import DecisionEntry, ballots_of

SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 45, 60, 120, 180, 240, 300, 600, 3600)
"""Of the time to decide: 30 s is the shipped objective, the others the usual deadlines."""

SHARE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.99, 1)


class DecisionMetrics:
    """Counters and histograms of decisions that end.

    A fallback rate is `holdfast_decisions_ended_total{by_fallback="true"}` over all of them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "holdfast_decisions_ended",
            "Decisions that ended, by how.",
            ["method", "state", "by_fallback"],
            registry=registry,
        )
        self._seconds = Histogram(
            "holdfast_decision_seconds",
            "Time from a decision's opening to its end.",
            ["method"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._participation = Histogram(
            "holdfast_decision_participation",
            "Share of the electors that voted.",
            ["method"],
            buckets=SHARE_BUCKETS,
            registry=registry,
        )
        self._margin = Histogram(
            "holdfast_decision_margin",
            "Share of the option decided by votes, less that of the runner-up.",
            ["method"],
            buckets=SHARE_BUCKETS,
            registry=registry,
        )

    def observe(self, entry: DecisionEntry) -> None:
        """Counts a decision that has just ended."""
        decision, state = entry.record.decision, entry.state
        method = DecisionMethod.Name(decision.method).removeprefix("DECISION_METHOD_").lower()
        name = DecisionState.Name(state.state).removeprefix("DECISION_STATE_").lower()
        counted = counting.count(entry.rules, ballots_of(entry.votes))
        self._ended.labels(method, name, str(state.by_fallback).lower()).inc()
        taken_ms = state.update_time.ToMilliseconds() - decision.create_time.ToMilliseconds()
        self._seconds.labels(method).observe(max(0, taken_ms) / 1000)
        self._participation.labels(method).observe(float(counted.participation))
        if state.state == DECISION_STATE_DECIDED and not state.by_fallback:
            self._margin.labels(method).observe(float(counted.margin(state.option)))
