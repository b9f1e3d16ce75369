"""Activations through the handlers: every transition there is, every one that is refused, and what time does."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations import creating, forgetting, owning, retrying
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_DRAINED, AgentTier
from holdfast.registry.v1.agent_registry_service_pb2 import AgentExclusionReason
from holdfast.service import heartbeats
from holdfast.service.context import CallContext
from holdfast.service.drainer import Drainer
from holdfast.service.janitor import Janitor
from holdfast.serving.activation_metrics import ActivationMetrics
from holdfast.store.interface import Store
from support.engines import new_store
from support.replica import PARENT, Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work, agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""

PENDING, ASSIGNED, RUNNING, BACKOFF, SUCCEEDED, FAILED, DEAD, CANCELLED, TIMED_OUT = (
    pb.ACTIVATION_STATE_PENDING,
    pb.ACTIVATION_STATE_ASSIGNED,
    pb.ACTIVATION_STATE_RUNNING,
    pb.ACTIVATION_STATE_BACKOFF,
    pb.ACTIVATION_STATE_SUCCEEDED,
    pb.ACTIVATION_STATE_FAILED,
    pb.ACTIVATION_STATE_DEAD_LETTERED,
    pb.ACTIVATION_STATE_CANCELLED,
    pb.ACTIVATION_STATE_TIMED_OUT,
)


@contextlib.asynccontextmanager
async def working(store: Store | None = None, clock: Clock | None = None) -> AsyncIterator[tuple[Replica, Work]]:
    """A replica and its work; at the end the view is what the store says."""
    async with replica(store, clock) as here:
        yield here, Work(here)
        await assert_view_is_what_the_store_says(here.registry)


@contextlib.asynccontextmanager
async def refused(
    reason: Reason, here: Replica, activation: pb.Activation | None = None
) -> AsyncIterator[pytest.ExceptionInfo[HoldfastError]]:
    """The block is refused for a reason, and leaves the record as it was."""
    before = await Work(here).read(activation) if activation is not None else None
    revision = here.registry.store.revision
    with pytest.raises(HoldfastError) as caught:
        yield caught
    assert caught.value.reason is reason, caught.value
    assert here.registry.store.revision == revision
    if activation is not None:
        assert await Work(here).read(activation) == before


async def test_work_goes_from_its_creation_to_its_result() -> None:
    """Each step is one revision; what was asked goes through untouched, and the slot is free again."""
    async with working() as (here, work):
        await work.hire("a", can="review")
        asked = AgentSelector(all_of=["review"])
        created = await work.create(
            selector=asked, payload=b"\x00\xff", requester="r", correlation_id="c-1", traceparent="00-ab-cd-01"
        )
        assert (created.state, created.fence, created.attempt) == (PENDING, 0, 0)
        (assigned,) = await work.fetch("a")
        assert (assigned.state, assigned.agent, assigned.attempt) == (ASSIGNED, agent("a"), 1)
        assert assigned.fence == (here.registry.store.epoch << 40) + assigned.revision
        assert (assigned.payload, assigned.requester) == (b"\x00\xff", "r")
        assert (assigned.correlation_id, assigned.traceparent) == ("c-1", "00-ab-cd-01")
        assert here.registry.view.slots_held(agent("a")) == 1
        running = await work.accept(assigned)
        assert (running.state, running.fence) == (RUNNING, assigned.fence)
        told = await work.heartbeat(running, 40)
        assert (told.progress.percent, told.state) == (40, RUNNING)
        revision = here.registry.store.revision
        ended = await work.complete(running, b"\xfe\x01")
        assert (ended.state, ended.revision) == (SUCCEEDED, revision + 1)
        whole = await work.read(ended)
        assert (whole.result, whole.payload, whole.fence) == (b"\xfe\x01", b"\x00\xff", 0)
        assert here.registry.view.slots_held(agent("a")) == 0


async def test_what_is_left_out_is_filled_in() -> None:
    async with working() as (here, work):
        await work.hire("a")
        created = await work.create(correlation_id="")
        assert (created.priority, created.heartbeat_timeout, created.correlation_id) == (
            50,
            Duration(seconds=30),
            "correlation",
        )
        assert created.retry_policy == policy(3, 1, 60, 2)
        assert created.deadline == created.start_deadline == in_s(here, 3600)


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "a priority of 101": ("activation.priority", {"priority": 101}),
    "a negative priority": ("activation.priority", {"priority": -1}),
    "a deadline in the past": ("activation.deadline", {"deadline": Timestamp(seconds=999)}),
    "a deadline of now": ("activation.deadline", {"deadline": Timestamp(seconds=1000)}),
    "a deadline 31 days ahead": ("activation.deadline", {"deadline": Timestamp(seconds=1000 + 31 * 86_400)}),
    "a start deadline in the past": ("activation.start_deadline", {"start_deadline": Timestamp(seconds=1)}),
    "a start deadline after the deadline": (
        "activation.start_deadline",
        {"start_deadline": Timestamp(seconds=1020), "deadline": Timestamp(seconds=1010)},
    ),
    "heartbeats of no time": ("activation.heartbeat_timeout", {"heartbeat_timeout": Duration()}),
    "a payload too large": ("activation.payload", {"payload": b"x" * (256 * 1024 + 1)}),
    "no attempts": ("activation.retry_policy.max_attempts", {"retry_policy": pb.RetryPolicy(max_attempts=-1)}),
    "101 attempts": ("activation.retry_policy.max_attempts", {"retry_policy": pb.RetryPolicy(max_attempts=101)}),
    "a multiplier of NaN": (
        "activation.retry_policy.multiplier",
        {"retry_policy": pb.RetryPolicy(multiplier=math.nan)},
    ),
    "a multiplier below 1": ("activation.retry_policy.multiplier", {"retry_policy": pb.RetryPolicy(multiplier=0.5)}),
    "a multiplier of 11": ("activation.retry_policy.multiplier", {"retry_policy": pb.RetryPolicy(multiplier=11)}),
    "a longest backoff below the first": ("activation.retry_policy.max_backoff", {"retry_policy": policy(3, 5, 4)}),
    "an agent of elsewhere": ("activation.selector.agent", {"selector": AgentSelector(agent="namespaces/o/agents/a")}),
    "a correlation id with a space": ("activation.correlation_id", {"correlation_id": "a b"}),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_named_and_creates_nothing(case: str) -> None:
    field, fields = WRONG[case]
    async with working() as (here, work):
        await work.hire("a")
        async with refused(Reason.INVALID_FIELD, here) as caught:
            await work.create(**fields)
        assert [each.field for each in caught.value.field_violations] == [field]


async def test_a_repeated_request_creates_one_activation() -> None:
    """X3: also after it has gone on, and though the call's own correlation id is another each time."""
    async with working() as (here, work):
        await work.hire("a")
        first = await work.create(request_id="r", payload=b"p" * 1000)
        assert (await work.read(first)).state == ASSIGNED
        request = pb.CreateActivationRequest(
            parent=PARENT, activation=pb.Activation(payload=b"p" * 1000), request_id="r"
        )
        again = await here.activations.create_activation(request, CallContext("service", "method", "another"))
        assert again.activation == first
        assert len(here.registry.view.activations.after(PARENT)) == 1
        async with refused(Reason.REQUEST_ID_REUSED, here):
            await work.create(request_id="r", payload=b"other")


async def test_nobody_who_could_ever_do_it_is_an_error_that_counts_why() -> None:
    async with working() as (here, work):
        async with refused(Reason.NO_ELIGIBLE_AGENT, here) as caught:
            await work.create()
        assert "nobody is registered" in caught.value.message
        await work.hire("a", can="test", tier=AgentTier.AGENT_TIER_1_CORE)
        await work.hire("b", "c", can="review", tier=AgentTier.AGENT_TIER_4_DOMAIN)
        await work.hire("d", can="review")
        await here.rule("ban", "d")
        asked = AgentSelector(all_of=["review"], tier_max=AgentTier.AGENT_TIER_2_SPECIALIST)
        async with refused(Reason.NO_ELIGIBLE_AGENT, here) as caught:
            await work.create(selector=asked)
        assert caught.value.metadata == {"CAPABILITY": "1", "TIER": "2", "ADMIN_STATE": "1"}
        async with refused(Reason.NO_ELIGIBLE_AGENT, here) as caught:
            await work.create(selector=AgentSelector(agent=agent("nobody")))
        assert "not registered" in caught.value.message


@pytest.mark.parametrize("held_back", ["busy", "cordon", "drain"])
async def test_work_waits_for_those_who_could_and_cannot_now(held_back: str) -> None:
    """Each exclusion is explained, and work begins once it is lifted."""
    async with working() as (here, work):
        await work.hire("a")
        first = await work.create() if held_back == "busy" else None
        if first is None:
            await here.rule(held_back, "a")
        waiting = await work.read(await work.create())
        reason = (
            AgentExclusionReason.AGENT_EXCLUSION_REASON_SLOTS
            if first is not None
            else AgentExclusionReason.AGENT_EXCLUSION_REASON_ADMIN_STATE
        )
        assert waiting.state == PENDING
        assert [(each.agent, list(each.reasons)) for each in waiting.exclusions] == [(agent("a"), [reason])]
        if first is not None:
            await work.cancel(first)
        else:
            await here.rule("uncordon", "a")
            await here.settle()
        assert (await work.read(waiting)).state == ASSIGNED


async def test_activating_a_busy_agent_does_not_succeed() -> None:
    """The original framework's defect: an agent at work was given more, and said it had it."""
    async with working() as (here, work):
        await work.hire("a", slots=2)
        created = [await work.create(selector=AgentSelector(agent=agent("a"))) for _ in range(5)]
        states = [(await work.read(each)).state for each in created]
        assert (states.count(ASSIGNED), states.count(PENDING)) == (2, 3)
        assert here.registry.view.slots_held(agent("a")) == 2


async def test_a_queue_that_is_full_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes, each namespace by itself; what ends makes room."""
    async with working() as (here, work):
        await work.hire("a")
        await here.register("z", parent="namespaces/others", ttl_s=3600)
        monkeypatch.setattr(creating, "UNFINISHED_MAX", 2)
        created = [await work.create() for _ in range(2)]
        async with refused(Reason.SLOTS_EXHAUSTED, here):
            await work.create()
        await work.create(parent="namespaces/others")
        await work.cancel(created[0])
        monkeypatch.setattr(creating, "UNFINISHED_BYTES_MAX", 5000)
        await work.create()
        await work.cancel(created[1])
        async with refused(Reason.SLOTS_EXHAUSTED, here):
            await work.create(payload=b"x" * 5000)
        monkeypatch.setattr(creating, "ALL_UNFINISHED_MAX", 2)
        async with refused(Reason.QUOTA_EXCEEDED, here):
            await work.create(parent="namespaces/others")


Say = Callable[[Work, pb.Activation], Awaitable[pb.Activation]]
SAYINGS: dict[str, Say] = {
    "accept": Work.accept,
    "decline": Work.decline,
    "heartbeat": Work.heartbeat,
    "complete": Work.complete,
    "fail": Work.fail,
}


@pytest.mark.parametrize("saying", SAYINGS)
async def test_a_stale_fence_is_refused_whatever_it_says(saying: str) -> None:
    """Of the owner before, one too great, and while nobody owns it."""
    async with working() as (here, work):
        await work.hire("a", "b")
        old = await work.started(retry_policy=policy(5, 0.01))
        failed = await work.fail(old)
        async with refused(Reason.FENCE_STALE, here, old):
            await SAYINGS[saying](work, old)
        await here.pass_time(1)
        new = await work.read(failed)
        assert new.fence > old.fence
        assert new.agent != old.agent
        for fence in (old.fence, new.fence + 1, 1):
            async with refused(Reason.FENCE_STALE, here, new) as caught:
                await SAYINGS[saying](work, pb.Activation(name=new.name, fence=fence))
            assert caught.value.metadata["current_fence"] == str(new.fence)


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED", "DEAD_LETTERED", "CANCELLED", "TIMED_OUT"])
async def test_what_has_ended_is_closed(saying: str, end: str) -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started(retry_policy=policy(1), deadline=in_s(here, 10))
        match end:
            case "SUCCEEDED":
                await work.complete(running)
            case "FAILED":
                await work.fail(running, retryable=False)
            case "DEAD_LETTERED":
                await work.fail(running)
            case "CANCELLED":
                await work.cancel(running)
            case _:
                await here.pass_time(11)
        ended = await work.read(running)
        assert pb.ActivationState.Name(ended.state) == f"ACTIVATION_STATE_{end}"
        async with refused(Reason.ACTIVATION_CLOSED, here, ended):
            await SAYINGS[saying](work, running)
        async with refused(Reason.ACTIVATION_CLOSED, here, ended):
            await work.cancel(running)
        assert here.registry.view.slots_held(agent("a")) == 0


@pytest.mark.parametrize("saying", ["heartbeat", "complete", "fail"])
async def test_work_that_was_not_accepted_is_not_done(saying: str) -> None:
    async with working() as (here, work):
        await work.hire("a")
        await work.create()
        (assigned,) = await work.fetch("a")
        async with refused(Reason.ACTIVATION_STATE_CONFLICT, here, assigned):
            await SAYINGS[saying](work, assigned)


async def test_work_that_has_begun_is_not_declined() -> None:
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started()
        async with refused(Reason.ACTIVATION_STATE_CONFLICT, here, running):
            await work.decline(running)


async def test_what_there_is_not_is_not_found() -> None:
    async with working() as (here, work):
        none = pb.Activation(name=f"{PARENT}/activations/none", fence=1)
        for say in (*SAYINGS.values(), Work.cancel, Work.requeue, Work.read):
            async with refused(Reason.ACTIVATION_NOT_FOUND, here):
                await say(work, none)


async def test_accepting_twice_begins_once() -> None:
    """A call whose answer was lost can be repeated."""
    async with working() as (here, work):
        await work.hire("a")
        running = await work.started()
        revision = here.registry.store.revision
        assert await work.accept(running) == running
        assert here.registry.store.revision == revision


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


async def test_all_outlive_a_restart() -> None:
    """A replica built from the store goes on where the other ended: states, fences, timers."""
    store, clock = new_store(), Clock()
    async with working(store, clock) as (here, work):
        await work.hire("a", slots=2)
        running = await work.started(deadline=in_s(here, 50))
        waiting = await work.fail(await work.started(retry_policy=policy(3, 20, 20), deadline=in_s(here, 50)))
    async with working(store, clock) as (here, work):
        assert (await work.heartbeat(running)).state == RUNNING
        assert (await work.read(waiting)).state == BACKOFF
        await here.pass_time(21)
        assert (await work.read(waiting)).state == ASSIGNED
        await here.pass_time(31)
        assert {(await work.read(each)).state for each in (running, waiting)} == {TIMED_OUT}


async def test_two_replicas_never_give_away_one_slot_twice() -> None:
    """X4: both see the same free slot at the same moment."""
    store, clock = new_store(), Clock()
    async with replica(store, clock) as one, replica(store, clock) as two:
        await Work(one).hire("a", slots=2)
        created = [
            (
                await here.activations.create_activation(
                    pb.CreateActivationRequest(parent=PARENT, activation=pb.Activation()),
                    CallContext("service", "method", "c"),
                )
            ).activation
            for here in (one, two, one, two, one)
        ]
        for each in (one, two):
            await each.registry.view.reached(store.revision)
        await asyncio.gather(one.dispatcher.make_round(), two.dispatcher.make_round())
        for each in (one, two):
            await each.settle()
        states = [(await Work(two).read(each)).state for each in created]
        assert (states.count(ASSIGNED), states.count(PENDING)) == (2, 3)
        assert one.registry.view.slots_held(agent("a")) == two.registry.view.slots_held(agent("a")) == 2


async def test_of_those_who_end_it_at_the_same_moment_one_does() -> None:
    async with working() as (_here, work):
        await work.hire("a")
        running = await work.started()
        outcomes = await asyncio.gather(
            work.complete(running), work.fail(running), work.cancel(running), return_exceptions=True
        )
        refusals = [each for each in outcomes if isinstance(each, HoldfastError)]
        assert [each.reason for each in refusals] == [Reason.ACTIVATION_CLOSED] * 2


async def test_ended_ones_are_forgotten_and_dead_letters_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with working() as (here, work):
        await work.hire("a")
        done = await work.complete(await work.started())
        dead = await work.fail(await work.started(retry_policy=policy(1)))
        janitor = Janitor(here.registry)
        here.clock.now_s += forgetting.ENDED_KEPT_S - 1
        await janitor.make_round()
        assert (await work.read(done)).state == SUCCEEDED
        here.clock.now_s += 2
        await janitor.make_round()
        async with refused(Reason.ACTIVATION_NOT_FOUND, here):
            await work.read(done)
        assert (await work.read(dead)).state == DEAD
        here.clock.now_s += forgetting.DEAD_KEPT_S
        await janitor.make_round()
        async with refused(Reason.ACTIVATION_NOT_FOUND, here):
            await work.read(dead)


async def test_of_too_many_ended_ones_the_first_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "ENDED_MAX", 2)
    async with working() as (here, work):
        await work.hire("a")
        ended = [await work.complete(await work.started()) for _ in range(4)]
        await Janitor(here.registry).make_round()
        left = [entry.name for entry in here.registry.view.activations.after(PARENT)]
        assert left == sorted(each.name for each in ended[2:])


async def test_what_is_known_of_agents_that_are_gone_is_forgotten() -> None:
    async with working() as (here, work):
        await work.hire("a")
        await work.complete(await work.started())
        await Janitor(here.registry).make_round()
        assert here.registry.view.work(agent("a")) is not None
        await here.deregister("a")
        await Janitor(here.registry).make_round()
        assert here.registry.view.work(agent("a")) is None


async def test_lists_are_filtered_and_paged_and_leave_out_payloads() -> None:
    async with working() as (_here, work):
        await work.hire("a")
        created = [await work.create(payload=b"p", requester=f"r{number % 2}") for number in range(6)]
        request = pb.ListActivationsRequest(parent=PARENT, page_size=2, filter="requester = r1")
        found: list[pb.Activation] = []
        while True:
            page = await work._ask("list_activations", request)
            found += page.activations
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert [each.name for each in found] == sorted(each.name for each in created[1::2])
        assert {each.payload for each in found} == {b""}


def test_what_the_core_says_is_pure() -> None:
    """Nothing of it asks for the time or for chance."""
    for module in (creating, owning, retrying):
        assert not {"time", "random", "secrets", "asyncio"} & set(vars(module))


async def test_each_step_is_counted_once_and_what_there_is_is_shown() -> None:
    registry = CollectorRegistry()
    metrics = ActivationMetrics(registry)
    async with working() as (here, work):
        metrics.observe(here.registry.view.activations, here.registry.view.breakers)
        here.registry.view.activations.on_changed = metrics.changed
        await work.hire("a")
        running = await work.started(retry_policy=policy(2, 0.01))
        await here.pass_time(3)
        await work.fail(running, reason="whatever an owner says")
        await here.pass_time(0.4)
        await work.complete(await work.accept(await work.read(running)))
        await work.create()

        def sample(name: str, **labels: str) -> float:
            value = registry.get_sample_value(name, labels)
            assert value is not None, name
            return value

        assert sample("holdfast_activations_ended_total", state="succeeded") == 1
        assert sample("holdfast_activations_ended_total", state="failed") == 0
        assert sample("holdfast_activation_failures_total", reason="OWNER") == 1
        assert sample("holdfast_activation_attempts_sum") == 2
        assert sample("holdfast_activation_start_seconds_count") == 1
        assert 3 <= sample("holdfast_activation_seconds_sum", state="succeeded") < 4
        assert sample("holdfast_activations", state="assigned") == 1
        assert sample("holdfast_breakers", state="open") == 0
