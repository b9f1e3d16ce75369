import math

import pytest

from holdfast.cli import InputError
from holdfast_loadtests.assertions import parse_assertion
from holdfast_loadtests.commands.load import exit_code_of
from holdfast_loadtests.histogram import Histogram
from holdfast_loadtests.results import Results, results_of


def histogram_of(*values_ms):
    histogram = Histogram()
    for value_ms in values_ms:
        histogram.record_s(value_ms / 1000)
    return histogram


def results(good_ms=(), bad_ms=(), never_sent=0, lag_ms=(0.1,), cpu_share=0.1, late=0, unended=0, out_of_room=0):
    return Results(
        seconds=10.0,
        ended_by_stop=len(good_ms) + len(bad_ms) - late,
        latency=histogram_of(*good_ms, *bad_ms),
        failed=histogram_of(*bad_ms),
        lag=histogram_of(*lag_ms),
        codes={("p.S/M", "OK"): len(good_ms)},
        outcomes={"ok": len(good_ms), "indefinite": len(bad_ms)},
        never_sent=never_sent,
        unended=unended,
        out_of_room=out_of_room,
        wrong=0,
        notes=(),
        cpu_share=cpu_share,
        stall_ms_max=0.0,
    )


HUNDRED = tuple(range(1, 101))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99 < 100ms", True),
        ("p99 < 99ms", False),
        ("p50<=51ms", True),
        ("p99.9 < 50ms", False),
        ("max <= 0.1s", True),
        ("mean > 50ms", True),
        ("errors <= 0.1%", True),
        ("errors == 0", True),
        ("rps >= 10", True),
        ("rps > 10", False),
        ("calls == 100", True),
        ("lag < 1ms", True),
    ],
)
def test_an_assertion_compares_what_was_measured_with_its_limit(text, holds):
    assert parse_assertion(text).judge(results(HUNDRED))[0] is holds


STALLED = {"good_ms": [10.0] * 995 + [300.0] * 5, "lag_ms": [0.1] * 995 + [290.0] * 5}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99.9 < 50ms", None),
        ("max < 50ms", None),
        ("mean < 11ms", None),
        ("max > 100ms", None),
        ("p99 < 50ms", True),
        ("p99.9 < 1s", True),
        ("max < 5ms", False),
        ("p50 < 5ms", False),
        ("calls == 1000", True),
        ("lag < 1ms", True),
    ],
)
def test_what_only_a_stall_of_the_generator_decides_is_not_decided(text, holds):
    found = results(**STALLED)
    assert found.saturated == "", "half a percent of the calls is not enough to call it saturated"
    judged, words = parse_assertion(text).judge(found)
    assert judged is holds
    assert ("without the 5 calls that the generator sent over" in words) is (holds is None)
    punctual = results(good_ms=STALLED["good_ms"])
    assert parse_assertion("p99.9 < 50ms").judge(punctual)[0] is False, "without a stall it is the server's"


def test_a_backlog_that_is_answered_after_the_load_is_no_throughput():
    assert parse_assertion("rps >= 9").judge(results(HUNDRED, late=20))[0] is False
    assert parse_assertion("calls == 100").judge(results(HUNDRED, late=20))[0] is True


@pytest.mark.parametrize("text", ["p99 < 50ms", "errors <= 100%", "rps < 1", "calls == 0", "max < 1h", "mean < 1h"])
def test_without_samples_no_assertion_holds(text):
    holds, why = parse_assertion(text).judge(results(never_sent=5))
    assert holds is None
    assert "no samples" in why


def test_calls_that_failed_quickly_are_not_fast():
    found = results(good_ms=[40.0] * 98, bad_ms=[0.1, 0.1])
    assert parse_assertion("p99 < 50ms").judge(found) == (False, "beyond any limit: too many calls failed")
    assert parse_assertion("p95 < 50ms").judge(found)[0] is True
    assert parse_assertion("errors < 1%").judge(found)[0] is False
    assert parse_assertion("mean < 1h").judge(found)[0] is False


def test_calls_that_were_never_sent_are_slower_than_any():
    assert results(good_ms=[1.0] * 98, never_sent=2).quantile_ms(0.99) == math.inf
    assert results(good_ms=[1.0] * 98, never_sent=2).quantile_ms(0.98) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p99", "expected a measure, a comparison and a limit"),
        ("p100 < 5ms", "expected a measure"),
        ("p99 < 50", "which unit?"),
        ("p99 < fast", "expected a duration"),
        ("erors < 1%", "did you mean 'errors'?"),
        ("errors < 200%", "expected a share"),
        ("rps > nan", "expected a number"),
        ("rps > x", "could not convert"),
        ("", "expected a measure"),
    ],
)
def test_what_is_no_assertion_is_refused_with_what_is(text, message):
    with pytest.raises(InputError) as refused:
        parse_assertion(text)
    assert message in refused.value.message


def test_each_sign_of_saturation_says_what_to_do():
    assert results(HUNDRED).saturated == ""
    assert "ask for a lower rate" in results(HUNDRED, lag_ms=[80.0]).saturated
    assert "a core of its own" in results(HUNDRED, cpu_share=0.97).saturated
    assert results(HUNDRED, out_of_room=2).saturated.startswith("2 calls were ended because the answers under way")
    assert "raise `concurrency`" in results(HUNDRED, never_sent=10).saturated


@pytest.mark.parametrize(("held", "code"), [([], 2), ([True], 2), ([True, False], 1)])
def test_calls_without_an_end_never_pass_and_hide_no_violation(held, code):
    found = results(HUNDRED, bad_ms=[5.0], unended=1)
    assert exit_code_of(found, held, ended_early=False) == code
    assert exit_code_of(results(HUNDRED, bad_ms=[5.0]), [True], ended_early=False) == 0
    assert found.as_json()["unended"] == 1


def test_results_add_up_what_the_generator_says_of_methods_codes_and_phases():
    ok, bad = histogram_of(1.0, 2.0), histogram_of(3.0)
    drained = {
        "stopped_s": 12.0,
        "ended_by_stop": 3,
        "wrong": 1,
        "latency": [
            ["unary", "p.S", "M", "OK", "a", ok.as_json()],
            ["unary", "p.S", "M", "Aborted", "b", bad.as_json()],
        ],
        "failed": [["unary", "p.S", "M", "b", bad.as_json()]],
        "lag": [["a", ok.as_json()], ["b", bad.as_json()]],
        "outcomes": {"ok": 2, "definite": 1},
        "never_sent": 0,
        "unended": 0,
        "out_of_room": 0,
        "notes": [["M Aborted: why", 1]],
        "cpu_share": 0.5,
        "stall_ms_max": 1.0,
    }
    found = results_of(drained, started_s=2.0)
    assert (found.ended, found.errors, found.seconds, found.rps) == (3, 1, 10.0, 0.3)
    assert found.codes == {("p.S/M", "OK"): 2, ("p.S/M", "Aborted"): 1}
    assert found.latency.counts == histogram_of(1.0, 2.0, 3.0).counts
    assert found.as_json()["latency_ms"]["p99"] is None, "a failed call has no finite latency"
