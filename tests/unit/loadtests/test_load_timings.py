import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.histogram import Histogram
from holdfast_loadtests.timings import LOT, Timings

BOUNDS_S = (0.005, 0.1, 2.0)


@given(st.lists(st.integers(-5, 3_000_000).map(lambda us: us / 1e6), max_size=30), st.integers(0, 30))
def test_a_duration_equal_to_a_bound_is_within_it_whenever_somebody_looks(durations_s, looks_after):
    timings, histogram = Timings(BOUNDS_S), Histogram()
    for number, duration_s in enumerate([*durations_s, 2.0]):
        timings.add(duration_s)
        histogram.record_s(duration_s)
        if number == looks_after:
            assert timings.count == number + 1
    edges_s = (*BOUNDS_S, float("inf"))
    within = [sum(max(one, 0.0) <= edge_s for one in [*durations_s, 2.0]) for edge_s in edges_s]
    assert [sum(timings.counts[: number + 1]) for number in range(len(edges_s))] == within
    assert timings.histogram.counts == histogram.counts
    assert timings.sum_s == pytest.approx(histogram.sum_us / 1e6)


def test_what_nobody_looks_at_does_not_pile_up():
    timings = Timings(BOUNDS_S)
    for _ in range(10 * LOT):
        timings.add(0.001)
    assert len(timings._fresh) < LOT
    assert timings.count == 10 * LOT
