"""Work whose owner is gone, falls silent or drains: it is lost in one revision, and goes on elsewhere."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_DRAINED
from holdfast.service import heartbeats
from holdfast.service.drainer import Drainer
from support.activating import ASSIGNED, BACKOFF, PENDING, RUNNING, SAYINGS, refused, working
from support.engines import new_store
from support.replica import Clock, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work, agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


async def test_with_its_agents_lease_all_that_it_held_is_lost_in_that_revision() -> None:
    """L3, X4: fences are stale and slots free from the revision of the lease's end on, before more is written."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a", slots=3)
        running = await work.started()
        assigned = await work.read(await work.create())
        lease = (await here.get("a")).lease
        revision = await here.revoke(lease)
        assert here.registry.store.revision == revision
        for each in (running, assigned):
            lost = await work.read(each)
            assert (lost.state, lost.fence, lost.revision) == (BACKOFF, 0, revision)
        assert here.registry.view.slots_held(agent("a")) == 0
        async with refused(Reason.FENCE_STALE, here, running):
            await work._ask("complete_activation", pb.CompleteActivationRequest(name=running.name, fence=running.fence))
        await here.settle()
        for each in (running, assigned):
            lost = await work.read(each)
            assert (lost.state, lost.failure.reason, lost.attempt) == (BACKOFF, "LEASE_LOST", 1)
        await assert_view_is_what_the_store_says(here.registry)


@pytest.mark.parametrize("how", ["expire", "deregister", "ban", "take over"])
async def test_whatever_ends_an_agent_its_work_goes_on_elsewhere(how: str) -> None:
    async with working() as (here, work):
        await here.register("a", ttl_s=2)
        running = await work.started("a", retry_policy=policy(3, 0.01))
        await work.hire("b")
        match how:
            case "expire":
                await here.pass_time(4)
            case "deregister":
                await here.deregister("a")
            case "ban":
                await here.rule("ban", "a")
            case _:
                await here.register("a", ttl_s=2, fence=(await here.get("a")).fence)
        await here.settle()
        await here.pass_time(0.4)
        elsewhere = await work.read(running)
        assert (elsewhere.state, elsewhere.agent, elsewhere.attempt) == (ASSIGNED, agent("b"), 2)
        assert elsewhere.failure.reason == ("AGENT_BANNED" if how == "ban" else "LEASE_LOST")
        async with refused(Reason.FENCE_STALE, here, running):
            await work.complete(running)


async def test_who_is_banned_does_nothing_more() -> None:
    """Refused at once, though its lease stands and its work is not taken back yet."""
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started()
        await here.rule("ban", "a")
        for say in SAYINGS.values():
            with pytest.raises(HoldfastError) as caught:
                await say(work, running)
            assert caught.value.reason in (Reason.AGENT_BANNED, Reason.FENCE_STALE)
        with pytest.raises(HoldfastError, match="banned"):
            await work.fetch("a")


async def test_an_owner_that_says_nothing_loses_its_work() -> None:
    """Not before `heartbeat_timeout`, and at most a third and a tick later."""
    async with working() as (here, work):
        await work.hire("a", "b")
        running = await work.started(heartbeat_timeout=Duration(seconds=9), retry_policy=policy(3, 0.01))
        await here.pass_time(9)
        assert (await work.read(running)).state == RUNNING
        await here.pass_time(3.5)
        lost = await work.read(running)
        assert (lost.state, lost.failure.reason) == (ASSIGNED, "HEARTBEAT_LOST")
        assert lost.agent != running.agent


async def test_heartbeats_keep_it_and_few_are_written() -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(heartbeat_timeout=Duration(seconds=9), deadline=in_s(here, 3600))
        revision = here.registry.store.revision
        for _ in range(90):
            await here.pass_time(1)
            assert (await work.heartbeat(running)).state == RUNNING
        assert here.registry.store.revision - revision <= 31


async def test_no_acknowledged_heartbeat_is_followed_by_its_loss_within_the_timeout() -> None:
    """Whenever the last heartbeat was, written or not, the timeout counts from it."""
    for last_tenths in range(10, 120, 7):
        async with working() as (here, work):
            await work.hire("a")
            running = await work.started(heartbeat_timeout=Duration(seconds=3), deadline=in_s(here, 3600))
            for _ in range(last_tenths // 5):
                await here.pass_time(0.5)
                await work.heartbeat(running)
            await here.pass_time(last_tenths % 5 / 10)
            await work.heartbeat(running)
            await here.pass_time(2.8)
            assert (await work.read(running)).state == RUNNING, last_tenths
            await here.pass_time(1.6)
            assert (await work.read(running)).state != RUNNING, last_tenths


async def test_a_heartbeat_through_another_replica_counts_here() -> None:
    """Two replicas of one store: each knows of the other's heartbeats only what is written; neither is early."""
    store, clock = new_store(), Clock()
    async with replica(store, clock) as one, replica(store, clock) as two:
        work, elsewhere = Work(one), Work(two)
        await work.hire("a")
        running = await work.started(heartbeat_timeout=Duration(seconds=3), deadline=in_s(one, 3600))
        for number in range(40):
            await asyncio.gather(one.pass_time(0.5), two.settle())
            assert (await (work, elsewhere)[number // 7 % 2].heartbeat(running)).state == RUNNING


async def test_progress_that_runs_away_is_held_back() -> None:
    """A burst, then one in a second; heartbeats without news are never limited."""
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started()
        for percent in range(heartbeats.PROGRESS_BURST):
            await work.heartbeat(running, percent)
        async with refused(Reason.RATE_LIMITED, here, running):
            await work.heartbeat(running, 99)
        for _ in range(50):
            await work.heartbeat(running)
        await here.pass_time(1)
        assert (await work.heartbeat(running, 99)).progress.percent == 99


async def test_an_assignment_that_is_ignored_goes_to_another() -> None:
    async with working() as (here, work):
        await work.hire("a", "b")
        first = await work.read(await work.create(heartbeat_timeout=Duration(seconds=2)))
        await here.pass_time(1.8)
        assert (await work.read(first)).agent == first.agent
        await here.pass_time(0.6)
        other = await work.read(first)
        assert (other.state, other.attempt, other.failure.reason) == (ASSIGNED, 1, "NOT_STARTED")
        assert other.agent != first.agent


async def test_a_process_that_stood_still_gives_time_to_those_it_did_not_hear() -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(heartbeat_timeout=Duration(seconds=3), deadline=in_s(here, 3600))
        await here.pass_time(0.5)
        here.clock.now_s += 20
        await here.registry.deadlines.look()
        await here.settle()
        assert (await work.heartbeat(running)).state == RUNNING
        await here.pass_time(25)
        assert (await work.read(running)).state != RUNNING


async def test_an_agent_that_drains_finishes_its_work_first() -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started()
        await here.rule("drain", "a")
        drainer = Drainer(here.registry)
        await drainer.make_round()
        assert (await here.get("a")).admin_state != ADMIN_STATE_DRAINED
        assert (await work.read(await work.create())).state == PENDING
        await work.complete(running)
        await drainer.make_round()
        assert (await here.get("a")).admin_state == ADMIN_STATE_DRAINED
