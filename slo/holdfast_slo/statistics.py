"""What a sample can prove: exact bounds of ratios and quantiles, and the three-valued decision on them.

Ratios are bounded by Clopper and Pearson (Biometrika 26, 1934): bounds from the binomial tail itself, which hold for
every sample size and every true ratio. Normal approximations fail where gates live, at few failures in many calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, exp, expm1, lgamma, log, log1p, sqrt
from statistics import NormalDist
from typing import Final

CONFIDENCE: Final = 0.95
"""One-sided, of every decision: a server exactly at its target is called good, or bad, in at most 5 % of runs."""

_TINY: Final = 1e-300
_EPSILON: Final = 1e-15


class Decision(StrEnum):
    """What a sample says of a target."""

    PASS = "PASS"  # noqa: S105  a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of an unknown ratio or value."""

    low: float
    high: float


def clopper_pearson_lower(good: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The largest ratio that the sample rules out falling below: true ratio ≥ it, with at least `confidence`.

    Solves P(X ≥ good | total, p) = 1 − confidence for p; 0 when nothing was good or nothing was seen.

    Raises:
        ValueError: the counts are negative or good exceeds total, or the confidence is not between 0 and 1.
    """
    _check(good, total, confidence)
    if good == 0:
        return 0.0
    if good == total:
        return exp(log(1 - confidence) / total)
    return _solve(lambda p: regularized_beta(good, total - good + 1, p), 1 - confidence)[0]


def clopper_pearson_upper(good: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The smallest ratio that the sample rules out exceeding: true ratio ≤ it, with at least `confidence`.

    Solves P(X ≤ good | total, p) = 1 − confidence for p; 1 when all were good or nothing was seen.

    Raises:
        ValueError: as for `clopper_pearson_lower`.
    """
    _check(good, total, confidence)
    if good == total:
        return 1.0
    if good == 0:
        return -expm1(log(1 - confidence) / total)
    return _solve(lambda p: regularized_beta(good + 1, total - good, p), confidence)[1]


def wilson(good: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's two-sided score interval, for display: narrower than the exact one, and right on average only.

    Raises:
        ValueError: as for `clopper_pearson_lower`.
    """
    _check(good, total, confidence)
    if total == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    ratio, shrink = good / total, 1 + z * z / total
    centre = (ratio + z * z / (2 * total)) / shrink
    half = z * sqrt(ratio * (1 - ratio) / total + z * z / (4 * total * total)) / shrink
    low = 0.0 if good == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if good == total else min(1.0, centre + half))


def decide_ratio(good: int, total: int, target: float, confidence: float = CONFIDENCE) -> Decision:
    """PASS if the sample proves the ratio at or above the target, FAIL if it proves it below, else INCONCLUSIVE.

    Raises:
        ValueError: as for `clopper_pearson_lower`.
    """
    if clopper_pearson_lower(good, total, confidence) >= target:
        return Decision.PASS
    if clopper_pearson_upper(good, total, confidence) < target:
        return Decision.FAIL
    return Decision.INCONCLUSIVE


def samples_needed(target: float, failures: int = 0, confidence: float = CONFIDENCE) -> int:
    """The fewest events, `failures` of them bad, that prove a ratio of `target`: 299, 2 995, 29 956 for 2, 3, 4 nines.

    Raises:
        ValueError: the target is not between 0 and 1 (no finite sample proves 100 %), or failures is negative.
    """
    if not 0 < target < 1:
        raise ValueError(f"the target must lie between 0 and 1, exclusive, got {target}: no finite sample proves 100 %")
    if failures < 0:
        raise ValueError(f"failures cannot be negative, got {failures}")
    low, high = failures, failures + max(1, ceil(log(1 - confidence) / log(target)))
    while decide_ratio(high - failures, high, target, confidence) is not Decision.PASS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        proven = decide_ratio(middle - failures, middle, target, confidence) is Decision.PASS
        low, high = (low, middle) if proven else (middle, high)
    return high


def quantile_bounds(
    sorted_values: Sequence[float], q: float, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """One-sided bounds of a population's q-quantile by order statistics, each holding with at least `confidence`.

    A bound is None where the sample is too small for any of its values to be one: 59 values are needed to bound a p95
    from above. Free of any assumption about the distribution (David and Nagaraja, Order Statistics, 3rd ed., 7.1).

    Raises:
        ValueError: q or the confidence is not between 0 and 1.
    """
    if not 0 < q < 1:
        raise ValueError(f"q must lie between 0 and 1, exclusive, got {q}")
    count = len(sorted_values)
    _check(0, count, confidence)
    lower = _last_rank(count, lambda rank: 1 - binomial_cdf(rank - 1, count, q) >= confidence)
    below = _last_rank(count, lambda rank: binomial_cdf(rank - 1, count, q) < confidence)
    return (
        sorted_values[lower - 1] if lower else None,
        sorted_values[below] if below < count else None,
    )


def quantile(sorted_values: Sequence[float], q: float) -> float:
    """The sample's q-quantile: the smallest value with at least q of the sample at or below it (never interpolated).

    Raises:
        ValueError: the sample is empty or q is not in (0, 1].
    """
    if not sorted_values:
        raise ValueError("an empty sample has no quantile")
    if not 0 < q <= 1:
        raise ValueError(f"q must lie in (0, 1], got {q}")
    return sorted_values[min(len(sorted_values), max(1, ceil(q * len(sorted_values) - 1e-9))) - 1]


def binomial_cdf(successes: int, trials: int, p: float) -> float:
    """P(X ≤ successes) of a binomial of `trials` with probability p."""
    if successes < 0:
        return 0.0
    return 1.0 if successes >= trials else regularized_beta(trials - successes, successes + 1, 1 - p)


def regularized_beta(a: float, b: float, x: float) -> float:
    """Iₓ(a, b) for positive a and b, by the continued fraction of DLMF 8.17.22 evaluated with Lentz's method."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast; elsewhere by symmetry
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1))
    value = d
    steps = 1000 + 20 * round(sqrt(a + b))  # converges in O(√max(a, b)) steps
    for m in range(1, steps):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _nonzero(1.0 + even * d)
        c = _nonzero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _nonzero(1.0 + odd * d)
        c = _nonzero(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < _EPSILON:
            return value
    raise ArithmeticError(f"the continued fraction of I_{x}({a}, {b}) did not converge in {steps} steps")


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _solve(rising: Callable[[float], float], wanted: float) -> tuple[float, float]:
    """The neighbouring arguments between which a function that rises over [0, 1] crosses `wanted`."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
        if high - low < _EPSILON * high:
            break
    return low, high


def _last_rank(count: int, holds: Callable[[int], bool]) -> int:
    """The largest rank of 1..count at which a condition that only ever turns false holds; 0 if at none."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _check(good: int, total: int, confidence: float) -> None:
    if not 0 <= good <= total:
        raise ValueError(f"expected 0 ≤ good ≤ total, got good={good}, total={total}")
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence must lie between 0 and 1, exclusive, got {confidence}")
