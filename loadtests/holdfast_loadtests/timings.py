"""Durations counted twice, at little cost: in a histogram that merges, and in the buckets that Prometheus asks for."""

from bisect import bisect_right
from typing import Final

from holdfast_loadtests.histogram import Histogram

LOT: Final = 256
"""Durations gathered before they are counted: a lot is sorted and counted in C, at half of what one by one costs; the
event loop stands still for some 50 µs meanwhile."""


class Timings:
    """Durations of one kind, in seconds; negative ones count as 0.

    Args:
        bounds_s: the upper bounds of Prometheus's buckets, ascending. A duration equal to one, in whole microseconds,
            is within it.
    """

    __slots__ = ("_bounds_us", "_counts", "_fresh", "_histogram", "bounds_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self._bounds_us = tuple(round(bound_s * 1e6) for bound_s in bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)
        self._histogram = Histogram()
        self._fresh: list[float] = []

    def add(self, duration_s: float) -> None:
        """Counts one."""
        fresh = self._fresh
        fresh.append(duration_s)
        if len(fresh) >= LOT:
            self._count()

    @property
    def histogram(self) -> Histogram:
        """All of them."""
        self._count()
        return self._histogram

    @property
    def counts(self) -> list[int]:
        """How many are in each of Prometheus's buckets; the last one holds what exceeds every bound."""
        self._count()
        return self._counts

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    @property
    def sum_s(self) -> float:
        """Their sum in seconds."""
        return self.histogram.sum_us / 1e6

    def _count(self) -> None:
        if not self._fresh:
            return
        ordered_us = self._histogram.record_all_s(self._fresh)
        self._fresh.clear()
        counts, below = self._counts, 0
        for number, bound_us in enumerate(self._bounds_us):
            within = bisect_right(ordered_us, bound_us, below)
            counts[number] += within - below
            below = within
        counts[-1] += len(ordered_us) - below
