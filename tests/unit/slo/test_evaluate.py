"""An objective judged from samples: exact where it can be, and never passed without data."""

from math import inf, nan

import pytest

from holdfast_slo.counters import Increase, increase
from holdfast_slo.evaluate import PhaseWindow, judge
from holdfast_slo.openslo import Objective
from holdfast_slo.prometheus import PrometheusError, Series
from holdfast_slo.selectors import parse_selector
from holdfast_slo.verdict import PhaseCount

WINDOWS = (PhaseWindow("baseline", 100, 110), PhaseWindow("fault:x", 110, 120), PhaseWindow("recovery", 120, 130))


class Recorded:
    """A source that holds series by the selector that finds them."""

    def __init__(self, series):
        self._series = series

    def raw(self, selector, start_s, end_s):
        found = self._series.get(selector, [])
        return [Series(one.labels, tuple(pair for pair in one.samples if start_s <= pair[0] <= end_s)) for one in found]


class Unreachable:
    def raw(self, *_):
        raise PrometheusError("Prometheus at http://127.0.0.1:1 cannot be reached")


def series(samples, name="handled", **labels):
    return Series({"__name__": name, **labels}, tuple(samples))


def ramp(upto, phase, since, until, **labels):
    """A counter that grows linearly to `upto` within its phase and is scraped each second until the end."""
    times = range(since, 132)
    return series(((at, upto * min(1.0, (at - since) / (until - since))) for at in times), phase=phase, **labels)


def objective(target=0.99, good=None, bad='handled{code="Internal"}', total="handled"):
    return Objective(
        "availability",
        "Calls answered",
        target,
        parse_selector(good) if good else None,
        parse_selector(bad) if bad else None,
        parse_selector(total),
        "a.yaml",
    )


def judged(held, phases=("baseline", "recovery"), **more):
    source = held if hasattr(held, "raw") else Recorded(held)
    result, reasons, seen = judge(objective(**more), phases, WINDOWS, source, 1.0)
    return result, [reason.code for reason in reasons], seen


def healthy():
    calls = [ramp(1000, "baseline", 100, 110), ramp(500, "fault:x", 110, 120), ramp(1000, "recovery", 120, 130)]
    return {"handled": calls, 'handled{code="Internal"}': [ramp(2, "recovery", 120, 130, code="Internal")]}


def test_healthy_samples_pass_with_exact_counts_per_phase():
    result, codes, seen = judged(healthy())
    assert (result.verdict, codes) == ("PASS", [])
    assert result.by_phase == (
        PhaseCount(phase="baseline", good=1000, total=1000),
        PhaseCount(phase="recovery", good=998, total=1000),
    )
    assert (result.good, result.total, result.observed) == (1998, 2000, 0.999)
    assert result.budget_consumed == pytest.approx(0.1)
    assert len(seen) == 4


def test_fault_windows_are_found_by_pattern():
    result, _, _ = judged(healthy(), phases=["fault:*"])
    assert (result.phase, result.total) == ("fault:x", 500)


def test_a_guilty_phase_is_not_hidden_by_the_calls_of_another():
    held = healthy() | {"handled": [ramp(100_000, "baseline", 100, 110), ramp(1000, "recovery", 120, 130)]}
    held['handled{code="Internal"}'] = [ramp(50, "recovery", 120, 130, code="Internal")]
    result, codes, _ = judged(held)
    assert result.observed > 0.999
    assert (result.verdict, codes) == ("FAIL", ["OBJECTIVE_VIOLATED"])
    assert "recovery" in result.detail


def test_too_few_calls_are_undecided_and_say_how_many_are_needed():
    result, codes, _ = judged(
        {"handled": [ramp(100, "baseline", 100, 110, code="OK")], 'handled{code="Internal"}': []}, ["baseline"]
    )
    assert (result.verdict, codes, result.samples_needed) == ("INCONCLUSIVE", ["TOO_FEW_SAMPLES"], 299)


def without(key):
    return {name: found for name, found in healthy().items() if name != key}


def last_value(value):
    held = healthy()
    broken = held["handled"][0]
    held["handled"][0] = Series(broken.labels, (*broken.samples, (131.5, value)))
    return held


SABOTAGE = {
    "no prometheus": (Unreachable(), "PROMETHEUS_UNREACHABLE"),
    "nothing at all": ({}, "METRICS_MISSING"),
    "total missing": (without("handled"), "METRICS_MISSING"),
    "a NaN": (last_value(nan), "METRICS_MISSING"),
    "an infinity": (last_value(inf), "METRICS_MISSING"),
    "a negative counter": (last_value(-1.0), "METRICS_MISSING"),
    "a fraction of a call": (last_value(1000.5), "METRICS_MISSING"),
    "a phase without calls": ({"handled": [ramp(1000, "baseline", 100, 110, code="OK")]}, "METRICS_MISSING"),
    "more bad than all": (
        healthy() | {'handled{code="Internal"}': [ramp(2000, "recovery", 120, 130, code="Internal")]},
        "METRICS_MISSING",
    ),
    "scrapes that ended early": (
        {"handled": [Series(one.labels, tuple(p for p in one.samples if p[0] < 124)) for one in healthy()["handled"]]},
        "METRICS_MISSING",
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_no_way_of_lacking_data_passes(name):
    held, code = SABOTAGE[name]
    result, codes, _ = judged(held)
    assert (result.verdict, codes) == ("INCONCLUSIVE", [code])
    assert result.observed is None


@pytest.mark.parametrize(
    "bad", ['handeld{code="Internal"}', 'handled{kode="Internal"}', 'handled{kode=~"Internal|Unknown"}']
)
def test_a_misspelt_query_for_bad_events_is_not_a_clean_run(bad):
    held = {"handled": [ramp(1000, "baseline", 100, 110, code="OK")]}
    result, codes, _ = judged(held, ["baseline"], bad=bad)
    assert (result.verdict, codes) == ("INCONCLUSIVE", ["METRICS_MISSING"])
    twin, no_codes, _ = judged(held, ["baseline"])
    assert (twin.verdict, no_codes) == ("PASS", [])


def test_a_bucket_that_does_not_exist_is_no_slow_server():
    buckets = [series(ramp(1000, "x", 100, 110).samples, "b", phase="baseline", le=le) for le in ("1.0", "2.0")]
    held = {"c": [series(buckets[0].samples, "c", phase="baseline")], "b": buckets, 'b{le="2.0"}': [buckets[1]]}
    result, codes, _ = judged(held, ["baseline"], bad=None, good='b{le="2"}', total="c")
    assert (result.verdict, codes) == ("INCONCLUSIVE", ["METRICS_MISSING"])
    assert "1.0, 2.0" in result.detail
    assert judged(held, ["baseline"], bad=None, good='b{le="2.0"}', total="c")[0].verdict == "PASS"


def test_a_phase_that_never_took_place_is_undecided():
    result, codes, _ = judged(healthy(), ["baseline", "fault:other"])
    assert (result.verdict, codes) == ("INCONCLUSIVE", ["TOO_FEW_SAMPLES"])


def test_a_restarted_counter_counts_on():
    restarted = series([(100, 0), (101, 5), (102, 9), (103, 2), (104, 4)], phase="baseline")
    assert increase(restarted, ["baseline"], WINDOWS) == Increase(13, 1)


def test_a_series_without_a_phase_is_cut_by_the_windows():
    growing = series((at, at * 10) for at in range(90, 140))
    assert increase(growing, ["baseline"], WINDOWS) == Increase(100, 0)
    assert increase(growing, ["baseline", "recovery"], WINDOWS) == Increase(200, 0)


def test_a_series_that_appears_within_a_window_counts_from_zero():
    born = series([(105, 3), (106, 4), (125, 9)])
    assert increase(born, ["baseline"], WINDOWS) == Increase(4, 0)
    assert increase(born, ["recovery"], WINDOWS) == Increase(5, 0)


class Moving:
    """A source whose counters gain a call at every look, all of them good: a scrape lands between two queries."""

    def __init__(self):
        self._now_s = 110

    def raw(self, selector, start_s, end_s):
        self._now_s += 1
        samples = ((float(at), float(at - 100)) for at in range(101, self._now_s + 1) if start_s <= at <= end_s)
        labels = {"code": "OK"} if "{" in selector else {}
        return [series(samples, phase="baseline", **labels)]


def test_a_scrape_between_two_queries_does_not_make_more_good_events_than_events():
    counted = objective(good='handled{code="OK"}', bad=None)
    windows = [PhaseWindow("baseline", 100, 110)]
    torn, _, _ = judge(counted, ["baseline"], windows, Moving(), 1.0)
    assert torn.observed is None
    whole, _, _ = judge(counted, ["baseline"], windows, Moving(), 1.0, until_s=110)
    assert (whole.good, whole.total) == (10, 10)
