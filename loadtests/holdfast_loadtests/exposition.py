"""The load's own metrics for Prometheus; names and labels are those of go-grpc-middleware's clients, plus `phase`."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast_loadtests.tally import Histogram, Tally

_STARTED: Final = ("grpc_type", "grpc_service", "grpc_method", "phase")
_HANDLED: Final = ("grpc_type", "grpc_service", "grpc_method", "grpc_code", "phase")


class TallyCollector(Collector):
    """Turns the totals into metrics when scraped, so that a call costs no more than a few additions."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def describe(self) -> list[Metric]:
        """Nothing: a registry that asks would otherwise collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the load."""
        yield self._started()
        yield from self._handled()
        yield self._lag()
        yield self._never_sent()
        in_flight = "Calls sent and not yet ended."
        yield GaugeMetricFamily("holdfast_load_in_flight", in_flight, value=self._tally.in_flight)

    def _started(self) -> Metric:
        family = CounterMetricFamily("grpc_client_started", "Attempts sent, retries included.", labels=_STARTED)
        for labels, count in self._tally.started.items():
            family.add_metric(labels, count)
        return family

    def _handled(self) -> Iterator[Metric]:
        handled = CounterMetricFamily("grpc_client_handled", "Attempts ended, by code.", labels=_HANDLED)
        latency = HistogramMetricFamily(
            "grpc_client_handling_seconds",
            "From the moment an attempt was due to its end, errors included.",
            labels=_HANDLED,
        )
        for labels, histogram in self._tally.latency.items():
            handled.add_metric(labels, sum(histogram.counts))
            latency.add_metric(labels, _cumulative(histogram), histogram.sum_s)
        yield handled
        yield latency

    def _lag(self) -> Metric:
        family = HistogramMetricFamily(
            "holdfast_load_schedule_lag_seconds",
            "How much later than it could have been the generator sent an attempt.",
            labels=["phase"],
        )
        for phase, histogram in self._tally.lag.items():
            family.add_metric([phase], _cumulative(histogram), histogram.sum_s)
        return family

    def _never_sent(self) -> Metric:
        family = CounterMetricFamily("holdfast_load_never_sent", "Calls due that were never sent.", labels=_STARTED)
        for labels, count in self._tally.never_sent.items():
            family.add_metric(labels, count)
        return family


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*(str(bound_s) for bound_s in histogram.bounds_s), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
