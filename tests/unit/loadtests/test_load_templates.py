import statistics
import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.draws import KINDS, Draws
from holdfast_loadtests.templates import Scope, compile_template, names_in, problem_in

CAPTURED = {"fence": 7, "lease": "l1", "nested": {"x": [1]}}


def filled(value, seed=1, ordinal=5):
    return compile_template(value)(Scope({"id": "a-1"}, CAPTURED, ordinal, Draws(seed, ordinal, 0)))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{fence}}", 7),
        ("{{ fence }}", 7),
        ("f-{{fence}}", "f-7"),
        ("{{agents.id}}/{{fence}}/{{lease}}", "a-1/7/l1"),
        ({"a": ["{{fence}}", {"b": "{{nested}}"}], "c": 3}, {"a": [7, {"b": {"x": [1]}}], "c": 3}),
        ("{{counter}}:{{counter}}", "5:5"),
        ("{{int(4, 4)}}", 4),
        ("x{{pick(red)}}", "xred"),
        ("no holes", "no holes"),
        ("{fence} {{}} {{a b}}", "{fence} {{}} {{a b}}"),
    ],
)
def test_holes_are_filled_and_a_whole_text_keeps_its_json_type(template, expected):
    assert filled(template) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc {}", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3),
)


@given(json_values)
def test_a_value_without_holes_is_left_as_it_is(value):
    if not list(names_in(value)):
        assert filled(value) == value


def test_names_are_found_at_any_depth_in_order():
    assert list(names_in({"a": "{{x}}", "b": [{"c": "{{t.y}} {{z}}"}], "{{key}}": 1})) == ["x", "t.y", "z"]


def test_uuids_are_fixed_by_seed_scenario_and_step_and_differ_otherwise():
    def first_two(*key):
        draws = Draws(*key)
        return [draws.uuid(), draws.uuid()]

    assert first_two(1, 2, 3) == first_two(1, 2, 3)
    every = [
        uuid for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (12, 3, 4), (1, 23, 4)] for uuid in first_two(*key)
    ]
    assert len(set(every)) == len(every)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_uuid_is_of_version_four(seed, ordinal):
    found = uuid.UUID(Draws(seed, ordinal, 0).uuid())
    assert (found.version, found.variant) == (4, uuid.RFC_4122)


def drawn(call, count=20_000):
    render = compile_template(f"{{{{{call}}}}}")
    draws = Draws(3, 1, 0)
    return [render(Scope({}, {}, 0, draws)) for _ in range(count)]


def test_what_is_drawn_is_distributed_as_its_function_says():
    assert set(drawn("int(1, 6)")) == {1, 2, 3, 4, 5, 6}
    assert all(2.0 <= value < 3.0 for value in drawn("float(2, 3)"))
    assert statistics.fmean(drawn("normal(50, 10)")) == pytest.approx(50, abs=0.5)
    assert statistics.stdev(drawn("normal(50, 10)")) == pytest.approx(10, abs=0.5)
    assert statistics.fmean(drawn("exponential(20)")) == pytest.approx(20, abs=1)
    ranks = Counter(drawn("zipf(100, 1)"))
    assert ranks[1] / ranks[4] == pytest.approx(4, rel=0.15)
    assert max(ranks) <= 100
    assert Counter(drawn("pick(red, green)"))["red"] == pytest.approx(10_000, rel=0.05)
    assert {len(value) for value in drawn("text(70)", 10)} == {70}


@pytest.mark.parametrize("name", KINDS)
def test_every_function_is_fixed_by_the_seed_and_its_usage_can_be_drawn(name):
    text = f"{{{{{KINDS[name].usage}}}}}"
    assert problem_in(text) == ""
    assert filled(text) == filled(text)
    assert len({filled(text, ordinal=ordinal) for ordinal in range(200)}) > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("inte(1, 2)", "did you mean 'int'?"),
        ("int(1)", "expected int(1, 6)"),
        ("int(6, 1)", "6 is above 1"),
        ("int(a, b)", "expected int(1, 6)"),
        ("normal(0, nan)", "numbers must be finite"),
        ("normal(0, -1)", "a deviation of -1.0"),
        ("exponential(0)", "a mean of 0.0"),
        ("zipf(1e9, 1)", "at most 1000000 ranks"),
        ("pick()", "nothing to pick from"),
        ("text(-1)", "not one number from 0"),
        ("text(99999999)", "not one number from 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(call, message):
    assert message in problem_in({"a": [f"x {{{{{call}}}}}"]})
