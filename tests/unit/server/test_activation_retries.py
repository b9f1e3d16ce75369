"""Work that was declined or failed: who is asked next, when, and how often."""

import pytest

from holdfast.core.activations import retrying
from holdfast.errors import Reason
from holdfast.registry.v1.agent_registry_service_pb2 import AgentExclusionReason
from support.activating import ASSIGNED, BACKOFF, DEAD, PENDING, refused, working
from support.working import agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


async def test_what_is_declined_goes_to_another_and_costs_no_attempt() -> None:
    async with working() as (_here, work):
        await work.hire("a", "b")
        created = await work.read(await work.create())
        first = created.agent
        await work.decline(created, "not mine")
        other = await work.read(created)
        assert other.state == ASSIGNED
        assert other.agent != first
        assert (other.attempt, other.failure.reason, other.failure.agent) == (1, "DECLINED", first)


async def test_who_declined_is_asked_again_only_after_a_pause() -> None:
    """Nobody else is there: it waits, says why, and no loop spins."""
    async with working() as (here, work):
        await work.hire("a")
        created = await work.read(await work.create(retry_policy=policy(3, 2)))
        declined = await work.decline(created)
        waiting = await work.read(declined)
        assert waiting.state == PENDING
        assert [list(each.reasons) for each in waiting.exclusions] == [
            [AgentExclusionReason.AGENT_EXCLUSION_REASON_DECLINED]
        ]
        await here.pass_time(1.5)
        assert (await work.read(waiting)).state == PENDING
        await here.pass_time(1)
        again = await work.read(waiting)
        assert (again.state, again.attempt) == (ASSIGNED, 1)


async def test_a_retry_goes_to_another_agent() -> None:
    async with working() as (here, work):
        await work.hire("a", "b", "c")
        running = await work.started(retry_policy=policy(3, 0.01))
        failed = await work.fail(running, reason="OUT_OF_DISK")
        assert (failed.state, failed.failure.reason, failed.failure.agent) == (BACKOFF, "OUT_OF_DISK", running.agent)
        await here.pass_time(0.4)
        again = await work.read(running)
        assert (again.state, again.attempt) == (ASSIGNED, 2)
        assert again.agent != running.agent


async def test_a_retry_goes_to_the_same_agent_if_there_is_no_other() -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(retry_policy=policy(3, 0.01))
        await work.fail(running)
        await here.pass_time(0.4)
        assert (await work.read(running)).agent == agent("a")


async def test_attempts_are_counted_and_no_more_than_allowed() -> None:
    """X2; the last failure makes a dead letter, and it can be tried again with its attempts counted anew."""
    async with working() as (here, work):
        await work.hire("a", "b", "c", "d")
        running = await work.started(retry_policy=policy(2, 0.01), deadline=in_s(here, 100))
        await work.fail(running)
        await here.pass_time(0.4)
        second = await work.accept(await work.read(running))
        dead = await work.fail(second)
        assert (dead.state, dead.attempt) == (DEAD, 2)
        await here.pass_time(5)
        assert (await work.read(dead)).state == DEAD
        requeued = await work.requeue(dead)
        assert (requeued.state, requeued.attempt, requeued.deadline) == (PENDING, 0, in_s(here, 100))
        third = await work.read(dead)
        assert (third.state, third.attempt) == (ASSIGNED, 1)
        assert third.fence > second.fence


async def test_only_dead_letters_are_requeued() -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started()
        async with refused(Reason.ACTIVATION_STATE_CONFLICT, here, running):
            await work.requeue(running)
        await work.complete(running)
        async with refused(Reason.ACTIVATION_CLOSED, here, running):
            await work.requeue(running)
        dead = await work.fail(await work.started(retry_policy=policy(1)))
        async with refused(Reason.INVALID_FIELD, here, dead):
            await work.requeue(dead, in_s(here, -1))
        assert (await work.requeue(dead, in_s(here, 7))).deadline == in_s(here, 7)


def test_backoff_is_a_random_time_below_one_that_grows() -> None:
    """Full jitter: from 0 to the least of initial * multiplier^(attempt - 1) and the longest; evenly; it replays."""
    retry = policy(100, 1, 60, 2)
    for attempt, longest_ms in ((1, 1000), (2, 2000), (3, 4000), (6, 32_000), (7, 60_000), (99, 60_000)):
        drawn = [retrying.backoff_ms(retry, attempt, f"activation-{number}") for number in range(400)]
        assert 0 <= min(drawn) < longest_ms * 0.05
        assert longest_ms * 0.95 < max(drawn) < longest_ms
        assert abs(sum(drawn) / len(drawn) - longest_ms / 2) < longest_ms * 0.1
        assert drawn == [retrying.backoff_ms(retry, attempt, f"activation-{number}") for number in range(400)]
