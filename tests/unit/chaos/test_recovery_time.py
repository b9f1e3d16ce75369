"""Recovered is the start of the first 5 s after which every indicator holds, until the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_chaos.recovery_time import STEP_S, WINDOW_S, Indicator, recovered_after_s


def indicator(bad_until_s: float, *, end_s: float = 30.0, target: float = 0.99, per_s: int = 100) -> Indicator:
    """Calls at a steady rate from 0, all bad before `bad_until_s`."""
    return Indicator.of(target, [(n / per_s, n / per_s < bad_until_s) for n in range(int(end_s * per_s))])


def test_a_service_that_never_failed_has_recovered_at_once() -> None:
    assert recovered_after_s([indicator(0)], 0, 30) == 0


@given(st.floats(0.2, 20))
def test_recovery_takes_as_long_as_the_failures_last(bad_until_s: float) -> None:
    found = recovered_after_s([indicator(bad_until_s)], 0, 30)
    assert found is not None
    # One bad call in a hundred is within the target, so it may hold a little before the last failure.
    assert bad_until_s - WINDOW_S * 0.01 - STEP_S <= found <= bad_until_s + STEP_S


def test_the_slowest_indicator_decides() -> None:
    assert recovered_after_s([indicator(1), indicator(7)], 0, 30) == pytest.approx(7, abs=0.2)


def test_a_relapse_counts() -> None:
    events = [(n / 100, n / 100 < 1 or 12 <= n / 100 < 14) for n in range(3000)]
    assert recovered_after_s([Indicator.of(0.99, events)], 0, 30) == pytest.approx(14, abs=0.2)


def test_a_service_that_never_comes_back_has_not_recovered() -> None:
    assert recovered_after_s([indicator(30)], 0, 30) is None


def test_less_than_five_seconds_show_nothing() -> None:
    assert recovered_after_s([indicator(0)], 0, 4.9) is None


@pytest.mark.parametrize("indicators", [[], [Indicator.of(0.99, [])]], ids=["no indicator", "no events"])
def test_without_events_nothing_has_recovered(indicators: list[Indicator]) -> None:
    assert recovered_after_s(indicators, 0, 30) is None


def test_silence_after_the_heal_is_not_recovery() -> None:
    events = [(10 + n / 100, False) for n in range(2000)]
    assert recovered_after_s([Indicator.of(0.99, events)], 0, 30) == pytest.approx(5, abs=0.2)
