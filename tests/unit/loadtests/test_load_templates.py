import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.templates import SeededUuids, compile_template, names_in

VALUES = {"fence": 7, "lease": "l1", "agents.id": "a-1", "nested": {"x": [1]}}


def filled(value):
    return compile_template(value)(VALUES.__getitem__)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{fence}}", 7),
        ("{{ fence }}", 7),
        ("f-{{fence}}", "f-7"),
        ("{{agents.id}}/{{fence}}/{{lease}}", "a-1/7/l1"),
        ({"a": ["{{fence}}", {"b": "{{nested}}"}], "c": 3}, {"a": [7, {"b": {"x": [1]}}], "c": 3}),
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
        uuids = SeededUuids(*key)
        return [uuids.next(), uuids.next()]

    assert first_two(1, 2, 3) == first_two(1, 2, 3)
    every = [
        uuid for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (12, 3, 4), (1, 23, 4)] for uuid in first_two(*key)
    ]
    assert len(set(every)) == len(every)
