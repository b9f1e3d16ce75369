"""How activations go: what there is of them now, and each step counted once while this server watches."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from holdfast.activations import Activations
from holdfast.breakers import Breakers
from holdfast.coordination.v1.activation_service_pb2 import ActivationState
from holdfast.core.activations.entry import ENDED, ActivationEntry, state_name
from holdfast.registry.v1.agent_pb2 import BreakerState

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 86_400)
"""From an assignment that finds a free agent at once to one that waits a day."""

ATTEMPTS_BUCKETS = (1, 2, 3, 4, 5, 7, 10, 20, 50, 100)

OWN_REASONS = frozenset(
    {
        "HEARTBEAT_LOST",
        "LEASE_LOST",
        "AGENT_BANNED",
        "NOT_STARTED",
        "DECLINED",
        "DEADLINE",
        "START_DEADLINE",
        "CANCELLED",
    }
)
"""Reasons the service gives; those of owners are counted as OWNER, since there may be any number."""


class ActivationMetrics:
    """Counters and histograms of activations."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._ended = Counter(
            "holdfast_activations_ended", "Activations that ended, by how.", ["state"], registry=registry
        )
        for state in ENDED:
            self._ended.labels(state_name(state).lower())  # there from the start, at 0
        self._failures = Counter(
            "holdfast_activation_failures",
            "Assignments and attempts that came to nothing, and activations that ended without a result, by reason; "
            "OWNER is for what owners said.",
            ["reason"],
            registry=registry,
        )
        for reason in (*OWN_REASONS, "OWNER"):
            self._failures.labels(reason)
        self._attempts = Histogram(
            "holdfast_activation_attempts",
            "Attempts of activations that ended.",
            buckets=ATTEMPTS_BUCKETS,
            registry=registry,
        )
        self._start_seconds = Histogram(
            "holdfast_activation_start_seconds",
            "Time from when an activation came into the queue until work first began.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._seconds = Histogram(
            "holdfast_activation_seconds",
            "Time from when an activation came into the queue to its end.",
            ["state"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )

    def observe(self, activations: Activations, breakers: Breakers) -> None:
        """Adds what there is now, read when it is asked for."""
        self._registry.register(_Present(activations, breakers))

    def changed(self, before: ActivationEntry | None, now: ActivationEntry) -> None:
        """Counts a step of an activation."""
        state, was = now.state, before.state if before is not None else None
        queued_ms = state.queue_time.ToMilliseconds()
        if state.HasField("start_time") and (was is None or not was.HasField("start_time")):
            self._start_seconds.observe(max(0, state.start_time.ToMilliseconds() - queued_ms) / 1000)
        if state.HasField("failure") and (was is None or was.failure != state.failure):
            reason = state.failure.reason
            self._failures.labels(reason if reason in OWN_REASONS else "OWNER").inc()
        if now.has_ended and not (before is not None and before.has_ended):
            name = state_name(state.state).lower()
            self._ended.labels(name).inc()
            self._attempts.observe(state.attempt)
            self._seconds.labels(name).observe(max(0, state.end_time.ToMilliseconds() - queued_ms) / 1000)


class _Present(Collector):
    """Reads counts at each scrape; runs on the scraper's thread and only reads numbers."""

    def __init__(self, activations: Activations, breakers: Breakers) -> None:
        self._activations = activations
        self._breakers = breakers

    def collect(self) -> Iterator[Metric]:
        there = GaugeMetricFamily(
            "holdfast_activations", "Activations, those that ended while they are kept included.", labels=["state"]
        )
        for state in ActivationState.values():
            if state:
                there.add_metric([state_name(state).lower()], self._activations.counts[state])
        yield there
        yield GaugeMetricFamily(
            "holdfast_activations_unfinished_bytes",
            "Bytes of the activations that have not ended, payloads included.",
            value=self._activations.all_unfinished[1],
        )
        breakers = GaugeMetricFamily(
            "holdfast_breakers", "Breakers in front of agents that are not CLOSED.", labels=["state"]
        )
        for breaker in (BreakerState.BREAKER_STATE_OPEN, BreakerState.BREAKER_STATE_HALF_OPEN):
            name = BreakerState.Name(breaker).removeprefix("BREAKER_STATE_").lower()
            breakers.add_metric([name], self._breakers.counts[breaker])
        yield breakers
