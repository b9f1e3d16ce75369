import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.histogram import VALUE_MAX_US, Histogram, bucket_of, highest_us, lowest_us, merged
from holdfast_loadtests.tally import at_quantile

VALUES_S = st.lists(st.integers(0, 10**9).map(lambda us: us / 1e6), max_size=60)


def histogram_of(values_s):
    histogram = Histogram()
    for value_s in values_s:
        histogram.record_s(value_s)
    return histogram


def same(one, other):
    return (one.counts, one.sum_us, one.max_us) == (other.counts, other.sum_us, other.max_us)


@given(st.integers(0, VALUE_MAX_US))
def test_a_value_lies_in_its_bucket_which_is_a_thousandth_of_it_wide(value_us):
    bucket = bucket_of(value_us)
    assert lowest_us(bucket) <= value_us <= highest_us(bucket)
    assert highest_us(bucket) - lowest_us(bucket) <= value_us / 1000
    assert bucket_of(highest_us(bucket) + 1) > bucket


@given(st.lists(st.floats(-1.0, 2.0 * VALUE_MAX_US / 1e6) | st.floats(0.0, 0.004), max_size=60))
def test_recording_all_at_once_is_recording_one_after_the_other(values_s):
    histogram = Histogram()
    ordered_us = histogram.record_all_s(values_s)
    assert same(histogram, histogram_of(values_s))
    assert ordered_us == sorted(ordered_us)
    assert sum(ordered_us) == histogram.sum_us


@given(VALUES_S, VALUES_S)
def test_merging_is_recording_everything_in_one(some, others):
    assert same(merged([histogram_of(some), histogram_of(others)]), histogram_of([*some, *others]))


@given(VALUES_S, VALUES_S)
def test_what_came_since_a_copy_is_what_was_recorded_after_it(before, after):
    found = histogram_of([*before, *after]).since(histogram_of(before))
    assert (found.counts, found.sum_us) == (histogram_of(after).counts, histogram_of(after).sum_us)


@given(VALUES_S.filter(bool), st.floats(0, 1))
def test_a_quantile_is_the_nearest_ranks_within_a_thousandth(values_s, share):
    [found_us] = histogram_of(values_s).quantiles_us([share])
    exact_us = round(at_quantile(sorted(values_s), share) * 1e6)
    assert exact_us <= found_us <= exact_us * 1.001


@given(VALUES_S)
def test_a_histogram_is_read_back_as_it_was_written(values_s):
    histogram = histogram_of(values_s)
    assert same(Histogram.of_json(json.loads(json.dumps(histogram.as_json()))), histogram)


@pytest.mark.parametrize("buckets", [{"2049": 1}, {"5": 0}, {"5": "x"}, None, {"a": 1}])
def test_what_is_no_histogram_is_refused(buckets):
    with pytest.raises(ValueError):
        Histogram.of_json({"sum": 1, "max": 1, "buckets": buckets})


def test_nothing_recorded_has_quantiles_of_zero_and_odd_values_are_kept_in_range():
    assert Histogram().quantiles_us([0.5, 0.99]) == [0, 0]
    odd = histogram_of([-1.0, 1e9])
    assert (odd.count, odd.max_us) == (2, VALUE_MAX_US)
    assert odd.quantiles_us([0.5, 1.0]) == [0, VALUE_MAX_US]
