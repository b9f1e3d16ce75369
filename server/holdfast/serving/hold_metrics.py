"""Locks and elections: how many are held, who waits for them, how waits end, and what is lost."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from holdfast import names
from holdfast.core.holds.entry import HoldEntry
from holdfast.service.registry import Registry

COLLECTIONS = ("locks", "elections")
SECONDS_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 3600)
"""Of the time until a call has what it wants, or gives up: a write, the usual delay of 1 s, 10 min for a lock."""


class HoldMetrics:
    """Counters of locks (`collection="locks"`) and leaderships (`collection="elections"`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._waits = Histogram(
            "holdfast_hold_wait_seconds",
            "Time from a call for a lock or leadership to its end: granted, held (by another all the time), gone (its "
            "caller), refused.",
            ["collection", "outcome"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._lost = Counter(
            "holdfast_holds_lost",
            "Locks and leaderships lost while this server watched: with their lease, or taken away by an operator.",
            ["collection", "how"],
            registry=registry,
        )
        for collection in COLLECTIONS:
            for how in ("lease_ended", "taken_away"):
                self._lost.labels(collection, how)

    def observe(self, registry: Registry) -> None:
        """Counts the calls for a registry's holds, and shows how many there are."""
        registry.holding.on_wait_ended = self.wait_ended
        self._registry.register(_HoldCollector(registry))

    def wait_ended(self, name: str, outcome: str, seconds: float) -> None:
        """Counts a call for a lock or leadership that has ended."""
        self._waits.labels(names.collection_of(name), outcome).observe(seconds)

    def lost(self, entry: HoldEntry) -> None:
        """Counts a hold that has just been lost."""
        how = "taken_away" if entry.record.HasField("taken") else "lease_ended"
        self._lost.labels(names.collection_of(entry.name), how).inc()


class _HoldCollector(Collector):
    """Gauges, read when they are asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Reads them."""
        held = GaugeMetricFamily("holdfast_holds", "Locks and leaderships that are held.", labels=["collection"])
        for collection in COLLECTIONS:
            held.add_metric([collection], self._registry.view.holds.held_count(collection))
        yield held
        yield GaugeMetricFamily(
            "holdfast_hold_waiters",
            "Calls that wait in line for a lock or leadership on this server.",
            value=len(self._registry.holding.lines),
        )
