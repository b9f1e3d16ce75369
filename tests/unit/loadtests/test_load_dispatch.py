"""Everything that is due is begun once, or accounted for."""

import asyncio

import pytest

from holdfast_loadtests import dispatch
from holdfast_loadtests.clock import RunClock
from holdfast_loadtests.dispatch import Dispatcher
from holdfast_loadtests.schedule import Due, schedule
from holdfast_loadtests.spec import LoadSpec

SPEC = LoadSpec.model_validate({"arrivals": [{"rate": "1000/s"}], "mix": [{"call": "p.S/M"}]})

HELD = LoadSpec.model_validate(
    {"arrivals": [{"rate": "10/s"}], "scenarios": [{"name": "s", "rows": "rows", "steps": [{"call": "p.S/M"}]}]}
)
"""A scenario that holds a row for itself."""


class Users:
    """Runs what it is given until told that it has ended."""

    def __init__(self, spec: LoadSpec, tables=None, *, ends_at_once: bool = False) -> None:
        self.clock = RunClock()
        self.begun: list[Due] = []
        self.running = []
        self.ends_at_once = ends_at_once
        dues = schedule(spec, tables or {}, 1)
        self.dispatcher = Dispatcher(dues, self.clock, closed=spec.users is not None, begin=self.begin)

    def begin(self, user, work, _since_s) -> None:
        self.begun.append(work.due)
        if self.ends_at_once:
            self.dispatcher.done(user, work, self.clock.now_s())
        else:
            self.running.append((user, work))

    def end_all(self) -> None:
        running, self.running = self.running, []
        for user, work in running:
            self.dispatcher.done(user, work, self.clock.now_s())


async def test_a_late_generator_leaves_nothing_out_that_was_due_when_the_load_ended():
    users = Users(SPEC)
    users.dispatcher.start(users.clock.now_s() - 2.0, 10)
    users.dispatcher.stop()
    left = await users.dispatcher.drain(0.0)
    assert 2000 <= len(users.begun) + len(left) <= 2100
    ordinals = [due.ordinal for due in users.begun] + [work.due.ordinal for work in left]
    assert sorted(ordinals) == list(range(len(ordinals)))


async def test_what_exceeds_the_backlog_is_refused_and_kept_to_be_recorded(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKLOG_MAX", 100)
    users = Users(SPEC)
    users.dispatcher.start(users.clock.now_s() - 1.0, 10)
    users.dispatcher.stop()
    left = await users.dispatcher.drain(0.0)
    assert (len(users.begun), len(left)) == (10, 100)
    assert len(users.dispatcher.refused) >= 890


async def test_scenarios_that_end_as_they_begin_do_not_pile_up_on_the_stack():
    users = Users(SPEC, ends_at_once=True)
    users.dispatcher.start(users.clock.now_s() - 5.0, 1)
    users.dispatcher.stop()
    assert await users.dispatcher.drain(1.0) == []
    assert len(users.begun) >= 5000


async def test_nothing_begins_before_it_is_due():
    users = Users(SPEC, ends_at_once=True)
    start_s = users.clock.now_s()
    early: list[bool] = []
    fifty = asyncio.Event()
    begin = users.begin

    def checked(user, work, since_s) -> None:
        early.append(users.clock.now_s() < work.due_s)
        begin(user, work, since_s)
        if len(early) == 50:
            fifty.set()

    users.dispatcher._begin = checked
    users.dispatcher.start(start_s, 10)
    async with asyncio.timeout(10):
        await fifty.wait()
    users.dispatcher.stop()
    assert not any(early)
    assert [due.ordinal for due in users.begun] == list(range(len(users.begun)))


async def test_a_held_row_goes_to_who_waited_longest_for_it():
    users = Users(HELD, {"rows": [{"id": "0"}]})
    users.dispatcher.start(users.clock.now_s() - 0.45, 10)
    users.dispatcher.stop()
    assert len(users.running) == 1
    for _ in range(5):
        users.end_all()
        assert len(users.running) <= 1
    assert [due.ordinal for due in users.begun] == [0, 1, 2, 3, 4]


async def test_nobody_takes_over_a_row_whose_scenario_the_end_of_the_load_cut_short():
    users = Users(HELD, {"rows": [{"id": "0"}]})
    users.dispatcher.start(users.clock.now_s() - 1.0, 10)
    users.dispatcher.stop()
    [(user, work)] = users.running
    users.dispatcher.done(user, work, users.clock.now_s(), cut_short=True)
    left = await users.dispatcher.drain(0.0)
    assert len(users.begun) == 1
    assert sorted(one.due.ordinal for one in left) == list(range(1, len(left) + 1))


@pytest.mark.parametrize("count", [1, 7])
async def test_the_closed_model_keeps_every_user_busy_and_no_more(count):
    users = Users(LoadSpec.model_validate({"users": count, "mix": [{"call": "p.S/M"}]}))
    users.dispatcher.start(users.clock.now_s(), count)
    await asyncio.sleep(0)
    assert len(users.running) == count
    for _ in range(3):
        users.end_all()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(users.running) == count
    users.dispatcher.stop()
    users.end_all()
    await users.dispatcher.wait_idle(1.0)
    assert users.running == []


async def test_in_the_closed_model_rows_that_are_held_are_passed_over_and_nothing_waits(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKLOG_MAX", 3)
    tables = {"rows": [{"id": "0"}, {"id": "1"}]}
    users = Users(
        LoadSpec.model_validate(
            {"users": 2, "scenarios": [{"name": "s", "rows": "rows", "steps": [{"call": "p.S/M"}]}]}
        ),
        tables,
    )
    users.dispatcher.start(users.clock.now_s(), 2)
    await asyncio.sleep(0)
    held = users.running.pop(0)  # one life lasts; the other user goes on for long
    for _ in range(20):
        users.end_all()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [work.due.row_index for _, work in users.running] == [1 - held[1].due.row_index]
    assert users.dispatcher.refused == []
    users.dispatcher.stop()
    assert await users.dispatcher.drain(0.0) == []


async def test_in_the_closed_model_a_call_is_due_when_its_user_became_free():
    users = Users(LoadSpec.model_validate({"users": 1, "mix": [{"call": "p.S/M"}]}))
    start_s = users.clock.now_s()
    users.dispatcher.start(start_s, 1)
    await asyncio.sleep(0)
    [(user, first)] = users.running
    assert first.due_s == start_s
    users.dispatcher.done(user, first, start_s + 1.0)  # and the loop stands still until it looks
    await asyncio.sleep(0)
    assert users.running[-1][1].due_s == start_s + 1.0


CLOSED = LoadSpec.model_validate({"users": 1, "mix": [{"call": "p.S/M"}]})


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_users_of_the_closed_model_grow_at_once_and_shrink_as_their_scenarios_end():
    users = Users(CLOSED)
    users.dispatcher.start(users.clock.now_s(), 0)
    await settled()
    assert users.running == []
    users.dispatcher.resize(4)
    await settled()
    assert sorted(user for user, _ in users.running) == [0, 1, 2, 3]
    users.dispatcher.resize(1)
    await settled()
    assert len(users.running) == 4  # none is cut off
    users.end_all()
    await settled()
    assert len(users.running) == 1
    users.dispatcher.resize(3)
    await settled()
    assert len({user for user, _ in users.running}) == len(users.running) == 3
    assert {user for user, _ in users.running} <= {0, 1, 2, 3}  # numbers come back, and connections with them


async def test_users_asked_back_before_they_left_stay():
    users = Users(CLOSED)
    users.dispatcher.start(users.clock.now_s(), 3)
    await settled()
    users.dispatcher.resize(0)
    users.dispatcher.resize(2)
    users.end_all()
    await settled()
    assert len(users.running) == 2


async def test_a_load_that_is_over_takes_no_more_users():
    users = Users(CLOSED)
    users.dispatcher.start(users.clock.now_s(), 1)
    await settled()
    users.dispatcher.stop()
    users.dispatcher.resize(5)
    users.end_all()
    await settled()
    assert users.running == []
