"""The circuit breaker in front of an agent: one record, shared by all, that opens, lets one through, and closes."""

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.admin.v1.quota_service_pb2 import Breaker, ListBreakersRequest, ResetBreakerRequest
from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations.breaker import FAILURES_MAX, OPEN_S, Policy
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import (
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_HALF_OPEN,
    BREAKER_STATE_OPEN,
    Agent,
)
from holdfast.registry.v1.agent_registry_service_pb2 import AGENT_EVENT_TYPE_MODIFIED, AgentExclusionReason
from holdfast.store.sqlite import SqliteStore
from support.engines import new_store
from support.replica import CALL, PARENT, Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work, agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""

PENDING, ASSIGNED = pb.ACTIVATION_STATE_PENDING, pb.ACTIVATION_STATE_ASSIGNED


async def fail_often(work: Work, times: int = FAILURES_MAX) -> None:
    """Has the only agent there is fail some pieces of work."""
    for _ in range(times):
        await work.fail(await work.started(retry_policy=policy(1)))


async def breaker_of(here: Replica, name: str = "a") -> int:
    return (await here.get(name)).breaker_state


async def listed(here: Replica, only: str = "", page_size: int = 0) -> list[Breaker]:
    """The breakers on all pages of a list."""
    found: list[Breaker] = []
    request = ListBreakersRequest(parent=PARENT, filter=only, page_size=page_size)
    while True:
        response = await here.quotas.list_breakers(request, CALL)
        found += response.breakers
        request.page_token = response.next_page_token
        if not request.page_token:
            return found


async def reset(here: Replica, name: str = "a") -> Breaker:
    return (await here.quotas.reset_breaker(ResetBreakerRequest(agent=agent(name)), CALL)).breaker


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
    store, clock = new_store(), Clock()
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


async def test_breakers_are_listed_by_the_names_of_their_agents_with_what_they_count() -> None:
    async with replica() as here:
        work = Work(here)
        await here.register("idle")
        for name, failures in (("b", FAILURES_MAX), ("a", FAILURES_MAX - 1), ("c", 0)):
            await here.register(name, ttl_s=60)
            for _ in range(failures):
                only = AgentSelector(agent=agent(name))
                await work.fail(await work.started(name, selector=only, retry_policy=policy(1)))
        await work.started("c", selector=AgentSelector(agent=agent("c")))
        there = await listed(here)
        assert [(each.agent, each.state, each.failures) for each in there] == [
            (agent("a"), BREAKER_STATE_CLOSED, FAILURES_MAX - 1),
            (agent("b"), BREAKER_STATE_OPEN, FAILURES_MAX),
            (agent("c"), BREAKER_STATE_CLOSED, 0),
        ]
        shut = there[1]
        assert (there[0].revision, shut.revision) == (0, (await here.get("b")).revision)
        assert shut.retry_time.ToMilliseconds() - shut.update_time.ToMilliseconds() == OPEN_S * 1000
        assert await listed(here, page_size=1) == there
        assert await listed(here, "state = OPEN") == [shut]


@pytest.mark.parametrize("state", [BREAKER_STATE_OPEN, BREAKER_STATE_HALF_OPEN])
async def test_a_reset_lets_work_through_at_once_and_counts_anew(state: int) -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a", slots=5)
        await fail_often(work)
        waiting = [await work.create() for _ in range(2)]
        if state == BREAKER_STATE_HALF_OPEN:
            await here.pass_time(OPEN_S + 0.5)
        assert await breaker_of(here) == state
        closed = await reset(here)
        assert (closed.state, closed.failures, closed.HasField("retry_time")) == (BREAKER_STATE_CLOSED, 0, False)
        assert closed.revision == (await here.get("a")).revision == here.registry.view.revision
        assert await breaker_of(here) == BREAKER_STATE_CLOSED
        assert await listed(here) == [closed]
        await here.settle()
        assert [(await work.read(each)).state for each in waiting] == [ASSIGNED, ASSIGNED]
        await here.pass_time(OPEN_S + 0.5)  # the time it was to be OPEN counts no more
        assert await breaker_of(here) == BREAKER_STATE_CLOSED
        await assert_view_is_what_the_store_says(here.registry)


async def test_a_reset_again_or_of_an_agent_that_did_nothing_yet_writes_nothing() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        revision = here.registry.store.revision
        assert await reset(here) == Breaker(agent=agent("a"), state=BREAKER_STATE_CLOSED)
        assert here.registry.store.revision == revision
        await fail_often(work)
        first = await reset(here)
        revision = here.registry.store.revision
        assert await reset(here) == first
        assert here.registry.store.revision == revision


async def test_a_reset_forgets_failures_that_did_not_open_it_yet() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await fail_often(work, FAILURES_MAX - 1)
        assert (await reset(here)).failures == 0
        await fail_often(work, FAILURES_MAX - 1)
        assert await breaker_of(here) == BREAKER_STATE_CLOSED


async def test_a_reset_of_an_agent_nobody_knows_is_refused() -> None:
    async with replica() as here:
        with pytest.raises(HoldfastError, match="agents/nobody") as refused:
            await reset(here, "nobody")
        assert refused.value.reason is Reason.AGENT_NOT_FOUND
        assert here.registry.store.revision == 0


async def test_a_reset_survives_a_restart(tmp_path: Path) -> None:
    clock = Clock()

    async def open_store() -> SqliteStore:
        store = SqliteStore(tmp_path / "a.db")
        await store.open()
        return store

    store = await open_store()
    async with replica(store, clock) as here:
        await Work(here).hire("a")
        await fail_often(Work(here))
        opened = await listed(here)
    await store.close()
    store = await open_store()
    async with replica(store, clock) as here:
        assert await listed(here) == opened
        closed = await reset(here)
    await store.close()
    store = await open_store()
    async with replica(store, clock) as here:
        assert await listed(here) == [closed]
        assert await breaker_of(here) == BREAKER_STATE_CLOSED
    await store.close()


@pytest.mark.parametrize("batch", [False, True])
async def test_a_registration_answers_the_breaker_as_it_is_also_when_it_is_repeated(batch: bool) -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await fail_often(work)
        await here.revoke((await here.get("a")).lease)
        await here.settle()

        async def registered() -> Agent:
            if batch:
                return (await here.batch({"a": {}}, request_id="again"))[0]
            return await here.register("a", request_id="again")

        first = await registered()
        assert first.breaker_state == BREAKER_STATE_OPEN
        assert first == await here.get("a")
        await reset(here)
        assert await registered() == first


async def test_breakers_that_are_switched_off_never_open() -> None:
    async with replica(breaker_policy=Policy(failures_max=0)) as here:
        work = Work(here)
        await work.hire("a")
        await fail_often(work, 3 * FAILURES_MAX)
        assert await breaker_of(here) == BREAKER_STATE_CLOSED
        assert (await work.read(await work.create())).state == ASSIGNED


@pytest.mark.parametrize("state", [BREAKER_STATE_OPEN, BREAKER_STATE_HALF_OPEN])
async def test_what_is_open_when_breakers_are_switched_off_closes_whatever_comes(state: int) -> None:
    store, clock = new_store(), Clock()
    async with replica(store, clock) as here:
        await Work(here).hire("a")
        await fail_often(Work(here))
        if state == BREAKER_STATE_HALF_OPEN:
            await here.pass_time(OPEN_S + 0.5)
        assert await breaker_of(here) == state
    async with replica(store, clock, Policy(failures_max=0)) as here:
        if state == BREAKER_STATE_OPEN:
            await here.pass_time(OPEN_S + 0.5)
        else:
            await fail_often(Work(here), 1)
        assert await breaker_of(here) == BREAKER_STATE_CLOSED


async def test_one_failure_is_enough_where_that_is_asked_for() -> None:
    async with replica(breaker_policy=Policy(failures_max=1)) as here:
        work = Work(here)
        await work.hire("a")
        await fail_often(work, 1)
        assert await breaker_of(here) == BREAKER_STATE_OPEN
