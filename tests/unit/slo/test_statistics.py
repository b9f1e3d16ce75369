"""The statistics against exact rational arithmetic and published tables."""

from fractions import Fraction
from math import comb, nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_slo.statistics import (
    Decision,
    binomial_cdf,
    clopper_pearson_lower,
    clopper_pearson_upper,
    decide_ratio,
    quantile,
    quantile_bounds,
    samples_needed,
    wilson,
)

exactly = settings(deadline=None, max_examples=40)  # rational arithmetic is slow where it is exact
counts = st.integers(1, 80).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
ratios = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(999, 1000))


def exact_cdf(successes, trials, p):
    """P(X ≤ successes) without a rounding error."""
    return sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes + 1))


@exactly
@given(counts, ratios)
def test_binomial_tail_equals_the_exact_rational_sum(pair, p):
    successes, trials = pair
    assert binomial_cdf(successes, trials, float(p)) == pytest.approx(float(exact_cdf(successes, trials, p)), abs=1e-12)


@exactly
@given(counts)
def test_lower_bound_solves_its_defining_equation_exactly(pair):
    good, total = pair
    low = Fraction(clopper_pearson_lower(good, total))
    if good == 0:
        assert low == 0
    else:
        assert float(1 - exact_cdf(good - 1, total, low)) == pytest.approx(0.05, abs=1e-10)


@exactly
@given(counts)
def test_upper_bound_solves_its_defining_equation_exactly(pair):
    good, total = pair
    high = Fraction(clopper_pearson_upper(good, total))
    if good == total:
        assert high == 1
    else:
        assert float(exact_cdf(good, total, high)) == pytest.approx(0.05, abs=1e-10)


@exactly
@given(counts)
def test_bounds_mirror_each_other_and_enclose_the_observed_ratio(pair):
    good, total = pair
    low, high = clopper_pearson_lower(good, total), clopper_pearson_upper(good, total)
    assert low <= good / total <= high
    assert high == pytest.approx(1 - clopper_pearson_lower(total - good, total), abs=1e-12)
    assert wilson(good, total).low <= good / total <= wilson(good, total).high


@exactly
@given(st.integers(1, 60), ratios)
def test_lower_bound_covers_the_true_ratio_in_at_least_95_percent_of_all_samples(total, p):
    wrong = sum(
        comb(total, good) * p**good * (1 - p) ** (total - good)
        for good in range(total + 1)
        if Fraction(clopper_pearson_lower(good, total)) > p
    )
    assert wrong <= Fraction(5, 100) + Fraction(1, 10**9)


@pytest.mark.parametrize(
    ("good", "total", "low", "high"),
    [
        (8, 10, 0.4439, 0.9748),
        (0, 10, 0.0, 0.3085),
        (5, 10, 0.1871, 0.8129),
        (1, 20, 0.0013, 0.2487),
        (15, 50, 0.1786, 0.4461),
    ],
)
def test_two_sided_95_percent_intervals_equal_the_published_tables(good, total, low, high):
    assert clopper_pearson_lower(good, total, 0.975) == pytest.approx(low, abs=5e-5)
    assert clopper_pearson_upper(good, total, 0.975) == pytest.approx(high, abs=5e-5)


def test_wilson_equals_its_published_example():
    assert wilson(8, 10).low == pytest.approx(0.4902, abs=5e-5)
    assert wilson(8, 10).high == pytest.approx(0.9433, abs=5e-5)


@pytest.mark.parametrize(("target", "needed"), [(0.95, 59), (0.99, 299), (0.999, 2_995), (0.9999, 29_956)])
def test_zero_error_proofs_need_the_known_sample_sizes(target, needed):
    assert samples_needed(target) == needed
    assert decide_ratio(needed, needed, target) is Decision.PASS
    assert decide_ratio(needed - 1, needed - 1, target) is Decision.INCONCLUSIVE


@exactly
@given(st.sampled_from([0.9, 0.95, 0.99, 0.995]), st.integers(0, 12))
def test_samples_needed_is_the_least_that_passes(target, failures):
    needed = samples_needed(target, failures)
    assert decide_ratio(needed - failures, needed, target) is Decision.PASS
    assert decide_ratio(needed - 1 - failures, needed - 1, target) is Decision.INCONCLUSIVE


def test_decisions_have_three_values_and_no_data_is_not_a_pass():
    assert decide_ratio(0, 0, 0.5) is Decision.INCONCLUSIVE
    assert decide_ratio(900, 1_000, 0.99) is Decision.FAIL
    assert decide_ratio(100, 100, 0.99) is Decision.INCONCLUSIVE
    assert decide_ratio(1_000, 1_000, 0.99) is Decision.PASS


@exactly
@given(st.integers(0, 60), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_quantile_bounds_are_the_tightest_order_statistics_that_hold(count, q):
    exact = Fraction(q)
    lower, upper = quantile_bounds(list(range(1, count + 1)), q)
    margin = Fraction(1, 10**12)  # ranks whose confidence equals 95 % within rounding do not occur here
    holds_above = [
        rank for rank in range(1, count + 1) if exact_cdf(rank - 1, count, exact) >= Fraction(95, 100) - margin
    ]
    holds_below = [
        rank for rank in range(1, count + 1) if 1 - exact_cdf(rank - 1, count, exact) >= Fraction(95, 100) - margin
    ]
    assert upper == (min(holds_above) if holds_above else None)
    assert lower == (max(holds_below) if holds_below else None)


def test_quantile_is_a_value_of_the_sample():
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile(list(range(1, 101)), 0.95) == 95
    assert quantile([7.0], 0.99) == 7.0


def test_millions_of_events_are_bounded_precisely():
    low = clopper_pearson_lower(9_999_000, 10_000_000)
    assert binomial_cdf(9_998_999, 10_000_000, low) == pytest.approx(0.95, abs=1e-6)
    assert low < 0.9999 < clopper_pearson_upper(9_999_000, 10_000_000)


@pytest.mark.parametrize(("good", "total"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_are_refused_with_their_values(good, total):
    with pytest.raises(ValueError, match=f"good={good}, total={total}"):
        clopper_pearson_lower(good, total)


@pytest.mark.parametrize("target", [0.0, 1.0, nextafter(1, 2)])
def test_no_sample_size_proves_perfection(target):
    with pytest.raises(ValueError, match="no finite sample"):
        samples_needed(target)
