"""Reports add up to exactly what was found, whoever found it and however it was cut."""

import json

from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.histogram import Histogram, merged
from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.tally import Started, Tally

calls = st.tuples(
    st.sampled_from(["p.S/Get", "p.S/List"]),
    st.sampled_from(["OK", "NotFound", "Unavailable"]),
    st.floats(0.0, 200.0),
    st.booleans(),
)
OUTCOMES = {"OK": "ok", "NotFound": "definite", "Unavailable": "indefinite"}


def ledger_of(made) -> Ledger:
    found = Ledger()
    for method, code, latency_s, is_wrong in made:
        found.record(method, code, OUTCOMES[code], latency_s, latency_s / 10, "why" if is_wrong else "")
    return found


def plain(ledger: Ledger) -> dict:
    return {
        key: sorted(value, key=str) if isinstance(value, list) else value for key, value in ledger.as_json().items()
    }


@given(st.lists(st.lists(calls, max_size=30), max_size=6))
def test_news_of_one_that_grows_add_up_to_it_bucket_for_bucket(reports):
    grown, reported, together = Ledger(), Ledger(), Ledger()
    for made in reports:
        grown.add(ledger_of(made))
        news = grown.since(reported)
        reported = Ledger.of_json(grown.as_json())
        together.add(Ledger.of_json(json.loads(json.dumps(news.as_json()))))
    assert plain(together) == plain(grown)
    whole = ledger_of([call for made in reports for call in made])
    assert together.all_latency().as_json() == whole.all_latency().as_json()


@given(st.lists(st.lists(calls, max_size=30), min_size=2, max_size=4))
def test_what_several_found_is_what_one_would_have(generators):
    together = Ledger()
    for made in generators:
        together.add(ledger_of(made))
    one = ledger_of([call for made in generators for call in made])
    assert plain(together) == plain(one)
    for series, histogram in one.latency.items():
        own = merged(ledger_of(made).latency.get(series, Histogram()) for made in generators)
        assert own.as_json() == histogram.as_json()


def test_an_engines_totals_are_copied_with_their_phases_added_up():
    tally = Tally()
    for phase in ("load", "later"):
        lane = tally.lane(Started("unary", "p.S", "Get", phase))
        lane.start(0.001)
        lane.end("OK", 0.004, expected=phase == "load")
        lane.never_sent += 1
        tally.judge("ok", expected=phase == "load")
    found = Ledger.of_tally(tally, {("p.S/Get", "OK: revision is 7"): 1})
    assert found.latency["p.S/Get", "OK"].count == found.lag.count == found.ended == 2
    assert (found.failed["p.S/Get"].count, found.wrong, found.never_sent["p.S/Get"]) == (1, 1, 2)
    tally.lane(Started("unary", "p.S", "Get", "load")).end("OK", 0.004)
    assert found.ended == 2  # a copy


def test_its_results_count_a_failure_as_slower_than_any_answer():
    results = ledger_of([("p.S/Get", "OK", 0.01, False)] * 9 + [("p.S/Get", "NotFound", 0.001, True)]).results(
        seconds=2.0, ended_by_stop=10, unended=0, out_of_room=0, cpu_share=0.1, stall_ms_max=3.0
    )
    assert (results.ended, results.errors, results.rps) == (10, 1, 5.0)
    assert results.quantile_ms(0.9) == 10.0
    assert results.quantile_ms(0.99) == float("inf")
    assert results.notes == (("Get NotFound: why", 1),)
