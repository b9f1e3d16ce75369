"""The circuit breaker in front of an agent: one record, shared by all, that opens, lets one through, and closes."""

import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.core.activations.breaker import FAILURES_MAX, OPEN_S
from holdfast.registry.v1.agent_pb2 import (
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_HALF_OPEN,
    BREAKER_STATE_OPEN,
    Agent,
)
from holdfast.registry.v1.agent_registry_service_pb2 import AGENT_EVENT_TYPE_MODIFIED, AgentExclusionReason
from holdfast.store.memory import MemoryStore
from support.replica import Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work, agent, in_s, policy

PENDING, ASSIGNED = pb.ACTIVATION_STATE_PENDING, pb.ACTIVATION_STATE_ASSIGNED


async def fail_often(work: Work, times: int = FAILURES_MAX) -> None:
    """Has the only agent there is fail some pieces of work."""
    for _ in range(times):
        await work.fail(await work.started(retry_policy=policy(1)))


async def breaker_of(here: Replica, name: str = "a") -> int:
    return (await here.get(name)).breaker_state


async def test_a_breaker_built_per_call_never_opens_and_this_one_does() -> None:
    """The original framework's defect: each call made a breaker of its own, which counted one failure at most."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await fail_often(work, FAILURES_MAX - 1)
        assert await breaker_of(here) == BREAKER_STATE_CLOSED
        await fail_often(work, 1)
        assert await breaker_of(here) == BREAKER_STATE_OPEN
        waiting = await work.read(await work.create())
        assert waiting.state == PENDING
        assert list(waiting.exclusions[0].reasons) == [AgentExclusionReason.AGENT_EXCLUSION_REASON_BREAKER]
        await assert_view_is_what_the_store_says(here.registry)


async def test_failures_through_two_replicas_count_together_and_survive_a_restart() -> None:
    store, clock = MemoryStore(), Clock()
    async with replica(store, clock) as one:
        await Work(one).hire("a")
        await fail_often(Work(one), 1)
        async with replica(store, clock) as two:
            await fail_often(Work(two), 1)
    async with replica(store, clock) as here:
        await fail_often(Work(here), 1)
        assert await breaker_of(here) == BREAKER_STATE_OPEN


@pytest.mark.parametrize("trial", ["succeeds", "fails"])
async def test_after_its_time_one_piece_of_work_is_let_through(trial: str) -> None:
    """Its success closes the breaker, its failure opens it for as long again."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a", slots=5)
        await fail_often(work)
        created = [await work.create(retry_policy=policy(1)) for _ in range(3)]
        await here.pass_time(OPEN_S - 1)
        assert await breaker_of(here) == BREAKER_STATE_OPEN
        await here.pass_time(1.5)
        assert await breaker_of(here) == BREAKER_STATE_HALF_OPEN
        states = [(await work.read(each)).state for each in created]
        assert (states.count(ASSIGNED), states.count(PENDING)) == (1, 2)
        on_trial = await work.accept((await work.fetch("a"))[0])
        await (work.complete(on_trial) if trial == "succeeds" else work.fail(on_trial))
        await here.settle()
        states = [(await work.read(each)).state for each in created]
        if trial == "succeeds":
            assert await breaker_of(here) == BREAKER_STATE_CLOSED
            assert states.count(ASSIGNED) == 2
        else:
            assert await breaker_of(here) == BREAKER_STATE_OPEN
            assert states.count(PENDING) == 2
            await here.pass_time(OPEN_S + 0.5)
            assert await breaker_of(here) == BREAKER_STATE_HALF_OPEN
        await assert_view_is_what_the_store_says(here.registry)


async def test_a_success_in_between_counts_them_anew() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        for _ in range(3):
            await fail_often(work, FAILURES_MAX - 1)
            await work.complete(await work.started())
        assert await breaker_of(here) == BREAKER_STATE_CLOSED


async def test_what_says_nothing_of_the_agent_does_not_count() -> None:
    """Work that failed for good, was declined, was cancelled, or ran out of time."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        for _ in range(FAILURES_MAX):
            await work.fail(await work.started(), retryable=False)
            await work.decline(await work.read(await work.create(deadline=in_s(here, 5))))
            await work.cancel(await work.started())
            await work.started(deadline=in_s(here, 1))
            await here.pass_time(7)
        assert await breaker_of(here) == BREAKER_STATE_CLOSED


@pytest.mark.parametrize("silence", ["before it is accepted", "while it runs"])
async def test_silence_counts(silence: str) -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        created = await work.create(heartbeat_timeout=Duration(seconds=1), retry_policy=policy(9, 0.01, 0.01))
        for _ in range(FAILURES_MAX):
            current = await work.read(created)
            assert current.state == ASSIGNED
            if silence == "while it runs":
                await work.accept(current)
            await here.pass_time(1.8 if silence == "while it runs" else 1.4)
        assert await breaker_of(here) == BREAKER_STATE_OPEN


async def test_the_end_of_an_agent_is_one_failure_however_much_it_held() -> None:
    """And one that comes back under the same name is still known: who crashes each time is left alone."""
    async with replica() as here:
        work = Work(here)
        await work.hire("b")
        for number in range(FAILURES_MAX):
            await here.register("a", ttl_s=60, agent=Agent(max_concurrency=5, coordination_priority=99))
            for _ in range(5):
                await work.started("a", retry_policy=policy(1))
            assert await breaker_of(here) == BREAKER_STATE_CLOSED, number
            await here.revoke((await here.get("a")).lease)
            await here.settle()
        assert (await here.register("a", ttl_s=60)).name == agent("a")
        assert await breaker_of(here) == BREAKER_STATE_OPEN
        await assert_view_is_what_the_store_says(here.registry)


async def test_whoever_watches_agents_sees_it_open() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await fail_often(work)
        opened = await here.get("a")
        (told,) = await here.watch(1, start_revision=opened.revision)
        assert told.events.events[0].type == AGENT_EVENT_TYPE_MODIFIED
        assert told.events.events[0].agent.breaker_state == BREAKER_STATE_OPEN
