"""The load's own metrics in Prometheus's text format; names and labels are go-grpc-middleware's, plus `phase`.

Written by hand, because a scrape must not make calls late: rendering 2 000 lines anew with prometheus-client held the
generator's only thread for 65 ms, twice a second. Here the lines of a series are kept until its count changes, and most
series belong to phases that are over.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final, TypeVar

from holdfast_loadtests.tally import Tally
from holdfast_loadtests.timings import Timings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_STARTED: Final = ("grpc_type", "grpc_service", "grpc_method", "phase")
_HANDLED: Final = ("grpc_type", "grpc_service", "grpc_method", "grpc_code", "phase")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = tuple[str, ...]
LabelsT = TypeVar("LabelsT", bound=Labels)


class Exposition:
    """The totals of a load as text, made when asked for, so that a call costs no more than a few additions."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._kept: dict[tuple[str, Labels], tuple[int, str]] = {}

    def text(self) -> str:
        """All metrics of the load."""
        tally = self._tally
        latency = tally.latency
        handled = {labels: timings.count for labels, timings in latency.items()}
        lag = {(phase,): lags for phase, lags in tally.lags.items()}
        started = {labels: lane.started for labels, lane in tally.lanes.items() if lane.started}
        never_sent = {labels: lane.never_sent for labels, lane in tally.lanes.items() if lane.never_sent}
        return "".join(
            (
                _head("grpc_client_started_total", "Attempts sent, retries included.", "counter"),
                *self._counters("grpc_client_started_total", _STARTED, started),
                _head("grpc_client_handled_total", "Attempts ended, by code.", "counter"),
                *self._counters("grpc_client_handled_total", _HANDLED, handled),
                _head("grpc_client_handling_seconds", "From when an attempt was due to its end.", "histogram"),
                *self._histograms("grpc_client_handling_seconds", _HANDLED, latency),
                _head("holdfast_load_schedule_lag_seconds", "How late the generator sent an attempt.", "histogram"),
                *self._histograms("holdfast_load_schedule_lag_seconds", ("phase",), lag),
                _head("holdfast_load_never_sent_total", "Calls due that were never sent.", "counter"),
                *self._counters("holdfast_load_never_sent_total", _STARTED, never_sent),
                _head("holdfast_load_in_flight", "Calls sent and not yet ended.", "gauge"),
                f"holdfast_load_in_flight {tally.in_flight}\n",
            )
        )

    def _counters(self, name: str, names: Labels, found: Mapping[LabelsT, int]) -> Iterator[str]:
        for values, count in found.items():
            yield self._lines(name, values, count) or self._keep(
                name, values, count, f"{name}{{{_written(names, values)}}} {count}\n"
            )

    def _histograms(self, name: str, names: Labels, found: Mapping[LabelsT, Timings]) -> Iterator[str]:
        for values, timings in found.items():
            count = timings.count
            yield self._lines(name, values, count) or self._keep(
                name, values, count, "".join(_histogram_lines(name, _written(names, values), timings))
            )

    def _lines(self, name: str, values: Labels, count: int) -> str:
        """The lines of a series as they were, if its count has not changed; nothing otherwise."""
        kept_count, text = self._kept.get((name, values), (-1, ""))
        return text if kept_count == count else ""

    def _keep(self, name: str, values: Labels, count: int, text: str) -> str:
        self._kept[name, values] = (count, text)
        return text


def _head(name: str, about: str, kind: str) -> str:
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n"


def _written(names: Labels, values: Labels) -> str:
    pairs = zip(names, values, strict=True)
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)


def _histogram_lines(name: str, labels: str, timings: Timings) -> Iterator[str]:
    bounds = [*map(str, timings.bounds_s), "+Inf"]
    for bound, count in zip(bounds, accumulate(timings.counts), strict=True):
        yield f'{name}_bucket{{{labels},le="{bound}"}} {count}\n'
    yield f"{name}_count{{{labels}}} {timings.count}\n"
    yield f"{name}_sum{{{labels}}} {timings.sum_s!r}\n"
