"""Activations through the handlers: what is created, who gets it, and what its owner may say."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations import creating
from holdfast.errors import Reason
from holdfast.registry.v1.agent_pb2 import AgentTier
from holdfast.registry.v1.agent_registry_service_pb2 import AgentExclusionReason
from holdfast.service.context import CallContext
from support.activating import ASSIGNED, PENDING, RUNNING, SAYINGS, SUCCEEDED, refused, working
from support.replica import PARENT
from support.working import Work, agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


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
