"""Generators that share a load make together exactly what one would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.schedule import schedule
from holdfast_loadtests.shares import WHOLE, Share
from holdfast_loadtests.spec import LoadSpec

TABLES = {"agents": [{"id": f"a{number}"} for number in range(7)]}
SPEC = LoadSpec.model_validate(
    {
        "arrivals": [{"rate": "20/s", "to": "80/s", "for": "4s", "process": "constant"}],
        "scenarios": [{"name": "life", "rows": "agents", "weight": 2, "steps": [{"call": "p.S/Register"}]}],
        "mix": [{"call": "p.S/Get", "request": {"id": "{{agents.id}}"}}, {"call": "p.S/List"}],
    }
)


@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_shares_together_are_the_whole_schedule_once(count, seed):
    shares = [list(Share(index, count).of(schedule(SPEC, TABLES, seed))) for index in range(count)]
    together = sorted((due for share in shares for due in share), key=lambda due: due.ordinal)
    assert together == list(schedule(SPEC, TABLES, seed))
    assert all([due.due_offset_s for due in share] == sorted(due.due_offset_s for due in share) for share in shares)


@given(count=st.integers(2, 9), seed=st.integers(0, 99))
def test_a_row_that_is_held_is_held_by_one_generator_only(count, seed):
    holders = {}
    for index in range(count):
        for due in Share(index, count).of(schedule(SPEC, TABLES, seed)):
            if due.scenario.rows:
                assert holders.setdefault(due.row_index, index) == index
    assert set(holders) == set(range(len(TABLES["agents"])))


@given(rows=st.integers(0, 50), count=st.integers(1, 9))
def test_every_row_belongs_to_one_share(rows, count):
    assert sum(Share(index, count).rows(rows) for index in range(count)) == rows


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_share_that_is_none_is_refused(index, count):
    with pytest.raises(ValueError, match=f"no share {index} of {count}"):
        Share(index, count)


def test_a_share_survives_the_way_to_another_process():
    assert Share.of_json(Share(1, 3).as_json()) == Share(1, 3)
    assert Share.of_json([0, 1]) == WHOLE
