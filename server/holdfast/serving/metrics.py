"""What Prometheus can ask of the service. Every metric's help says what it counts; the README lists them from here."""

import time
from collections.abc import Iterator

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from holdfast import __version__
from holdfast.registry.v1.agent_pb2 import AgentLiveness, AgentTier
from holdfast.replicas import Replicas
from holdfast.service.registry import Registry
from holdfast.service.transport import CallObserver
from holdfast.serving.activation_metrics import ActivationMetrics
from holdfast.serving.decision_metrics import DecisionMetrics
from holdfast.serving.hold_metrics import HoldMetrics
from holdfast.store.batching import BatchStats

CALL_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10)
"""Of the call histogram: those of grpc-ecosystem, finer below 5 ms, and 2 s for the shipped p95 objective."""

COMMIT_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def code_name(code: grpc.StatusCode) -> str:
    """A status code as go-grpc spells it, which dashboards expect: `OK`, `AlreadyExists`, `Canceled`."""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"
    return "".join(word.capitalize() for word in code.name.split("_"))


class Metrics:
    """The service's own metrics; not the process-wide default, so that several servers fit in one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each that nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        method = ["grpc_type", "grpc_service", "grpc_method"]
        self._started = Counter("grpc_server_started_total", "RPCs that came in.", method, registry=self.registry)
        self._handled = Counter(
            "grpc_server_handled_total",
            "RPCs that ended, by status code.",
            [*method, "grpc_code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from an RPC's arrival to its end at the handler.",
            method,
            buckets=CALL_BUCKETS_S,
            registry=self.registry,
        )
        self._commit_seconds = Histogram(
            "holdfast_store_commit_seconds",
            "Time to decide, write and sync one batch of transactions.",
            buckets=COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "holdfast_store_commit_batch_size",
            "Transactions written together.",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self._commit_failures = Counter(
            "holdfast_store_commit_failures_total",
            "Batches that could not be confirmed durable.",
            registry=self.registry,
        )
        self.answers_forgotten_early = Counter(
            "holdfast_request_answers_forgotten_early",
            "Answers to requests with a request_id that were forgotten before their hour: there were too many, and a "
            "repeated request may happen again.",
            registry=self.registry,
        )
        self.activations = ActivationMetrics(self.registry)
        self.decisions = DecisionMetrics(self.registry)
        self.holds = HoldMetrics(self.registry)
        self.ready = Gauge(
            "holdfast_ready", "1 while the server serves, 0 while it starts or drains.", registry=self.registry
        )
        info = Gauge("holdfast_build_info", "Always 1; the version as a label.", ["version"], registry=self.registry)
        info.labels(__version__).set(1)

    def observe_batch(self, stats: BatchStats) -> None:
        """Counts one batch of the store."""
        if stats.failed:
            self._commit_failures.inc()
            return
        self._commit_seconds.observe(stats.seconds)
        self._batch_size.observe(stats.size)

    def observer_for(self, service: str, method: str, kind: str) -> CallObserver:
        """What counts the calls of one method."""
        return _MethodMetrics(
            self._started.labels(kind, service, method),
            self._handled,
            self._seconds.labels(kind, service, method),
            (kind, service, method),
        )

    def observe_registry(self, registry: Registry) -> None:
        """Adds the state's gauges, read when they are asked for."""
        self.registry.register(_RegistryCollector(registry))
        self.holds.observe(registry)
        self.activations.observe(registry.view.activations, registry.view.breakers)


class _MethodMetrics:
    """One method's metrics, with labels resolved once: resolving them costs more than counting."""

    def __init__(self, started: Counter, handled: Counter, seconds: Histogram, labels: tuple[str, str, str]) -> None:
        self._started = started
        self._seconds = seconds
        # Each code is there from the start, at 0: a rate over a counter that appears with its first error misses it.
        self._handled = {code: handled.labels(*labels, code_name(code)) for code in grpc.StatusCode}

    def started(self) -> None:
        self._started.inc()

    def handled(self, code: grpc.StatusCode, seconds: float) -> None:
        self._handled[code].inc()
        self._seconds.observe(seconds)


class _RegistryCollector(Collector):
    """Reads the state's counts at each scrape; runs on the scraper's thread and only reads numbers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._started_s = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        registry = self._registry
        view, store, keeper = registry.view, registry.store, registry.keeper
        yield self._agents()
        yield GaugeMetricFamily("holdfast_leases", "Leases that stand.", value=view.leases.standing_count)
        yield GaugeMetricFamily(
            "holdfast_leases_ended", "Leases that ended and are still remembered.", value=view.leases.ended_count
        )
        yield GaugeMetricFamily(
            "holdfast_agents_bytes", "Bytes of the agents that are LIVE, as they are sent.", value=view.live_bytes
        )
        yield GaugeMetricFamily(
            "holdfast_agents_ruled",
            "Agents, there or gone, about which an operator has decided something.",
            value=view.rulings_count,
        )
        yield GaugeMetricFamily(
            "holdfast_request_answers", "Answers kept for requests with a request_id.", value=len(view.answers)
        )
        yield GaugeMetricFamily("holdfast_watchers", "Watches that run.", value=registry.audience.count)
        yield GaugeMetricFamily("holdfast_store_revision", "The newest revision of the store.", value=store.revision)
        yield GaugeMetricFamily(
            "holdfast_store_compact_revision",
            "The revision up to which history was dropped.",
            value=store.compact_revision,
        )
        yield GaugeMetricFamily(
            "holdfast_history_start_revision",
            "The revision after which watches can resume; beyond the compacted one if the history took too much.",
            value=view.history.start,
        )
        yield GaugeMetricFamily(
            "holdfast_history_bytes",
            "Memory that the history takes for watches to resume from, besides some 2 KB a revision.",
            value=view.history.size_bytes,
        )
        yield GaugeMetricFamily(
            "holdfast_view_lag_revisions",
            "Revisions the view is behind the store.",
            value=store.revision - view.revision,
        )
        yield CounterMetricFamily(
            "holdfast_lease_expirations", "Leases that ended because nobody kept them.", value=keeper.expirations_total
        )
        yield GaugeMetricFamily(
            "holdfast_lease_restart_grace_seconds",
            "The longest that a lease met at start may outlive its TTL: the greatest time added by giving all a full "
            "TTL again.",
            value=keeper.restart_grace_s,
        )
        yield GaugeMetricFamily(
            "holdfast_leases_ending", "Leases that ran out and whose end is not written yet.", value=keeper.ending_count
        )
        yield CounterMetricFamily(
            "holdfast_lease_stalls",
            "Times the process stood still, or could not reach the store it shares, for so long that leases were given "
            "time.",
            value=keeper.guard.stalls_total,
        )
        yield CounterMetricFamily(
            "holdfast_lease_stall_grace_seconds",
            "Time given to leases after such stalls.",
            value=keeper.guard.grace_s_total,
        )
        if registry.replicas is not None:
            yield from self._replicas(registry.replicas)

    def _replicas(self, replicas: Replicas) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "holdfast_replica_may_keep",
            "1 while this replica can prove that the leases it owns are its own, and acknowledges keepalives.",
            value=int(replicas.may_keep),
        )
        yield CounterMetricFamily(
            "holdfast_replica_takeovers",
            "Leases taken over from replicas that fell silent.",
            value=replicas.takeovers_total,
        )

    def _agents(self) -> Metric:
        family = GaugeMetricFamily(
            "holdfast_agents", "Agents, expired ones included while they are kept.", labels=["tier", "liveness"]
        )
        for tier_name, tier in AgentTier.items():
            for liveness in (AgentLiveness.AGENT_LIVENESS_LIVE, AgentLiveness.AGENT_LIVENESS_EXPIRED):
                labels = [
                    tier_name.removeprefix("AGENT_TIER_"),
                    AgentLiveness.Name(liveness).removeprefix("AGENT_LIVENESS_"),
                ]
                family.add_metric([label.lower() for label in labels], self._registry.view.agents_count(tier, liveness))
        return family
