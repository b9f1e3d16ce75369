"""What time ends, and what it does not."""

import pytest

from holdfast.errors import Reason
from support.activating import ASSIGNED, BACKOFF, PENDING, RUNNING, TIMED_OUT, refused, working
from support.replica import Clock
from support.working import in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


@pytest.mark.parametrize("state", [PENDING, ASSIGNED, RUNNING, BACKOFF])
async def test_the_deadline_ends_it_wherever_it_stands(state: int) -> None:
    """X5."""
    async with working() as (here, work):
        await work.hire("a", slots=1)
        if state == PENDING:
            await work.create(deadline=in_s(here, 100))
        created = await work.create(deadline=in_s(here, 5), retry_policy=policy(3, 3600, 7200))
        if state in (RUNNING, BACKOFF):
            running = await work.accept(await work.read(created))
            if state == BACKOFF:
                await work.fail(running)
        assert (await work.read(created)).state == state
        await here.pass_time(4.8)
        assert (await work.read(created)).state == state
        await here.pass_time(0.6)
        ended = await work.read(created)
        assert (ended.state, ended.failure.reason, ended.fence) == (TIMED_OUT, "DEADLINE", 0)


async def test_what_is_not_started_in_time_ends() -> None:
    """What was started once is not bound by it, also while it is tried again."""
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(start_deadline=in_s(here, 5), deadline=in_s(here, 100))
        late = await work.create(start_deadline=in_s(here, 5), deadline=in_s(here, 100))
        await here.pass_time(6)
        assert (await work.read(running)).state == RUNNING
        ended = await work.read(late)
        assert (ended.state, ended.failure.reason) == (TIMED_OUT, "START_DEADLINE")


async def test_a_completion_after_the_deadline_is_too_late() -> None:
    """Also in the moment in which the end is not written yet."""
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(deadline=in_s(here, 5))
        here.clock.now_s += 6
        async with refused(Reason.ACTIVATION_CLOSED, here, running):
            await work.complete(running)


async def test_setting_the_clock_ends_nothing() -> None:
    """Deadlines are counted on a clock that does not jump."""
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(deadline=in_s(here, 50))
        wall = Clock(here.clock.now_s + 1e6)
        here.registry.deadlines._wall_clock = wall
        await here.pass_time(5)
        assert (await work.read(running)).state == RUNNING
