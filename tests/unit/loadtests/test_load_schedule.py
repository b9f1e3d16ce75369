from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import InputError
from holdfast_loadtests.schedule import NO_ROW, expected_calls, samples_by_second, schedule
from holdfast_loadtests.spec import LoadSpec, check

TABLES = {"agents": [{"id": str(number)} for number in range(7)]}


def load_of(*arrivals, **parts):
    parts = parts or {"mix": [{"call": "p.S/M"}]}
    return LoadSpec.model_validate({"arrivals": list(arrivals) or [{"rate": "10/s"}], **parts})


def scenario(name, **parts):
    return {"name": name, "steps": [{"call": f"p.S/{name}"}], **parts}


def first(spec, count, seed=1):
    return list(islice(schedule(spec, TABLES, seed), count))


def test_constant_arrivals_are_evenly_spaced_and_do_not_drift():
    dues = first(load_of({"rate": "30/s"}), 90_001)
    assert dues[-1].due_offset_s == pytest.approx(3000.0, abs=1e-9)
    assert [due.ordinal for due in dues] == list(range(90_001))


def test_stretches_follow_each_other_and_the_last_may_end():
    spec = load_of({"rate": "2/s", "for": "2s"}, {"rate": "4/s", "for": "1s"})
    assert [due.due_offset_s for due in schedule(spec, TABLES, 1)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process():
    spec = load_of({"rate": "100/s", "for": "200s", "process": "poisson"})
    counts = Counter(int(due.due_offset_s) for due in schedule(spec, TABLES, 3))
    mean = sum(counts.values()) / 200
    variance = sum((counts[second] - mean) ** 2 for second in range(200)) / 199
    assert 97 < mean < 103
    assert 0.7 < variance / mean < 1.4


@given(st.integers(0, 2**63 - 1))
def test_a_seed_fixes_the_whole_schedule(seed):
    spec = load_of(
        {"rate": "10/s", "process": "poisson"}, scenarios=[scenario("a", rows="agents"), scenario("b", weight=2)]
    )
    assert first(spec, 50, seed) == first(spec, 50, seed)


def test_seeds_differ():
    spec = load_of(scenarios=[scenario("a", rows="agents"), scenario("b")])
    assert first(spec, 50, 1) != first(spec, 50, 2)


@given(st.integers(0, 1000))
def test_every_row_has_its_turn_before_any_has_its_second(seed):
    dues = first(load_of(scenarios=[scenario("a", rows="agents"), scenario("b", rows="agents")]), 28, seed)
    rows = [due.row_index for due in dues]
    assert all(sorted(rows[start : start + 7]) == list(range(7)) for start in range(0, 28, 7))


def test_a_scenario_that_uses_no_table_has_no_row():
    assert {due.row_index for due in first(load_of(), 10)} == {NO_ROW}


def test_a_scenario_that_reads_a_table_visits_its_rows_without_holding_them():
    dues = first(load_of(mix=[{"call": "p.S/M", "request": {"id": "{{agents.id}}"}}]), 7)
    assert sorted(due.row_index for due in dues) == list(range(7))


def test_scenarios_come_by_weight():
    counts = Counter(
        due.scenario.name for due in first(load_of(scenarios=[scenario("a", weight=3), scenario("b")]), 8000)
    )
    assert 2.7 < counts["a"] / counts["b"] < 3.3


def test_adding_a_table_leaves_times_and_scenarios_where_they_were():
    plain = load_of({"rate": "9/s", "process": "poisson"}, scenarios=[scenario("a"), scenario("b")])
    held = load_of({"rate": "9/s", "process": "poisson"}, scenarios=[scenario("a", rows="agents"), scenario("b")])
    assert [(due.due_offset_s, due.scenario.name) for due in first(plain, 99)] == [
        (due.due_offset_s, due.scenario.name) for due in first(held, 99)
    ]


STEPS = [{"call": "p.S/In"}, {"call": "p.S/Out", "after": "1s"}]


def test_expected_calls_count_each_step_when_it_is_due():
    spec = load_of({"rate": "4/s", "for": "2s"}, {"rate": "10/s"}, scenarios=[{"name": "life", "steps": STEPS}])
    assert expected_calls(spec, 0, 3) == pytest.approx({"p.S/In": 18.0, "p.S/Out": 8.0})
    assert expected_calls(spec, 2, 3) == pytest.approx({"p.S/In": 10.0, "p.S/Out": 4.0})


def test_samples_by_second_are_those_of_the_schedule_itself():
    spec = load_of({"rate": "5/s"}, scenarios=[{"name": "life", "steps": STEPS}])
    assert samples_by_second(spec, TABLES, 1, 3) == [
        {"p.S/In": 5},
        {"p.S/In": 5, "p.S/Out": 5},
        {"p.S/In": 5, "p.S/Out": 5},
    ]


def test_a_closed_model_promises_no_number_of_calls():
    spec = LoadSpec.model_validate({"users": 2, "mix": [{"call": "p.S/M"}]})
    with pytest.raises(ValueError, match="no rate of its own"):
        expected_calls(spec, 0, 1)
    assert samples_by_second(spec, TABLES, 1, 2) == [{}, {}]


@pytest.mark.parametrize("process", ["constant", "poisson"])
def test_a_ramp_brings_as_many_as_its_rate_adds_up_to_in_every_part_of_it(process):
    spec = load_of({"rate": "10/s", "to": "110/s", "for": "100s", "process": process})
    offsets_s = [due.due_offset_s for due in schedule(spec, TABLES, 5)]
    assert offsets_s == sorted(offsets_s)
    first_half = sum(offset_s < 50 for offset_s in offsets_s)
    assert first_half == pytest.approx(10 * 50 + 50 * 50 / 2, rel=0.01 if process == "constant" else 0.08)
    assert len(offsets_s) == pytest.approx(6000, rel=0.001 if process == "constant" else 0.05)
    assert expected_calls(spec, 0, 50) == pytest.approx({"p.S/M": 1750.0})
    assert expected_calls(spec, 50, 200) == pytest.approx({"p.S/M": 4250.0})


@given(st.floats(0.1, 1000), st.floats(0.1, 1000), st.floats(0.5, 20))
def test_every_arrival_of_a_ramp_comes_when_the_rate_has_added_up_to_it(first, last, length_s):
    spec = load_of({"rate": f"{first:f}/s", "to": f"{last:f}/s", "for": f"{length_s:.3f}s"})
    [stretch] = spec.arrivals
    (start, end), whole_s = stretch.rates_per_s, stretch.for_.total_seconds()
    for due in schedule(spec, TABLES, 1):
        at_s = due.due_offset_s
        assert start * at_s + (end - start) * at_s * at_s / (2 * whole_s) == pytest.approx(due.ordinal, abs=1e-6)


def test_a_spike_is_a_short_stretch_between_two_others():
    spec = load_of({"rate": "1/s", "for": "2s"}, {"rate": "100/s", "for": "1s"}, {"rate": "1/s", "for": "2s"})
    assert Counter(int(due.due_offset_s) for due in schedule(spec, TABLES, 1)) == {0: 1, 1: 1, 2: 100, 3: 1, 4: 1}


def test_a_trace_is_replayed_time_by_time():
    tables = {"seen": [{"at_s": "0.25"}, {"at_s": "0.25"}, {"at_s": "1.5"}, {"at_s": "9"}]}
    spec = load_of({"rate": "1/s", "for": "2s"}, {"trace": "seen", "for": "5s"}, {"trace": "seen"})
    check(spec, tables)
    found = [due.due_offset_s for due in schedule(spec, tables, 1)]
    assert found == [0.0, 1.0, 2.25, 2.25, 3.5, 7.25, 7.25, 8.5, 16.0]
    assert expected_calls(spec, 0, 7, tables) == {"p.S/M": 5.0}


@pytest.mark.parametrize(
    "arrivals",
    [{}, {"rate": "1/s", "trace": "x"}, {"trace": "x", "to": "1/s"}, {"rate": "1/s", "to": "2/s"}],
)
def test_a_stretch_is_one_of_the_kinds_there_are(arrivals):
    with pytest.raises(ValueError, match=r"`rate` or `trace`|beside"):
        load_of(arrivals)


@pytest.mark.parametrize("times", [["1", "0.5"], ["-1"], ["x"], ["nan"], ["1e9"]])
def test_a_trace_whose_times_do_not_ascend_is_refused_by_row(times):
    with pytest.raises(InputError, match="ascending seconds"):
        check(load_of({"trace": "seen"}), {"seen": [{"at_s": text} for text in times]})
