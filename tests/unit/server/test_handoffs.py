"""Handoffs: at every revision exactly one agent owns the work, whatever becomes of the offer."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import validation
from holdfast.coordination.v1 import activation_service_pb2 as activations_pb
from holdfast.coordination.v1 import handoff_service_pb2 as pb
from holdfast.core.activations.breaker import FAILURES_MAX
from holdfast.core.activations.creating import DEADLINE_S
from holdfast.core.handoffs import deciding, forgetting
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.service.janitor import Janitor
from holdfast.store.interface import Store
from support.engines import new_store
from support.replica import CALL, PARENT, Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work, agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""

RUNNING, HANDING_OFF = activations_pb.ACTIVATION_STATE_RUNNING, activations_pb.ACTIVATION_STATE_HANDING_OFF


class Handing:
    """Offers and answers in a line each; work runs at `a`, and is offered to `b`."""

    def __init__(self, here: Replica) -> None:
        self.here = here
        self.work = Work(here)

    async def offer(self, running: activations_pb.Activation, request_id: str = "", **fields: Any) -> pb.Handoff:
        told = {"activation": running.name, "from_agent": running.agent, "to_agent": agent("b"), **fields}
        request = pb.OfferHandoffRequest(
            parent=PARENT, handoff=pb.Handoff(**told), fence=running.fence, request_id=request_id
        )
        validation.check(request)
        return (await self.here.handoffs.offer_handoff(request, CALL)).handoff

    async def accept(self, handoff: pb.Handoff, name: str = "b", agent_fence: int = 0) -> pb.AcceptHandoffResponse:
        request = pb.AcceptHandoffRequest(name=handoff.name, agent=agent(name), agent_fence=agent_fence)
        return await self.here.handoffs.accept_handoff(request, CALL)

    async def reject(self, handoff: pb.Handoff, name: str = "b", reason: str = "") -> pb.Handoff:
        request = pb.RejectHandoffRequest(name=handoff.name, agent=agent(name), reason=reason)
        return (await self.here.handoffs.reject_handoff(request, CALL)).handoff

    async def withdraw(self, handoff: pb.Handoff, fence: int) -> pb.Handoff:
        request = pb.WithdrawHandoffRequest(name=handoff.name, fence=fence, reason="mine")
        return (await self.here.handoffs.withdraw_handoff(request, CALL)).handoff

    async def read(self, handoff: pb.Handoff) -> pb.Handoff:
        return (await self.here.handoffs.get_handoff(pb.GetHandoffRequest(name=handoff.name), CALL)).handoff


@contextlib.asynccontextmanager
async def handing(
    store: Store | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[Handing, activations_pb.Activation]]:
    """Work that runs at `a`, with `b` there and free; at the end the view is what the store says."""
    async with replica(store, clock) as here:
        hands = Handing(here)
        await hands.work.hire("a")
        running = await hands.work.started("a", correlation_id="chain", retry_policy=policy(3, 0.01))
        await hands.work.hire("b")
        yield hands, running
        await here.settle()
        await assert_view_is_what_the_store_says(here.registry)


@contextlib.asynccontextmanager
async def refused(reason: Reason, hands: Handing) -> AsyncIterator[pytest.ExceptionInfo[HoldfastError]]:
    """The block is refused for a reason, and changes nothing."""
    revision = hands.here.registry.store.revision
    with pytest.raises(HoldfastError) as caught:
        yield caught
    assert caught.value.reason is reason, caught.value
    assert hands.here.registry.store.revision == revision


async def test_accepting_changes_the_owner_in_one_revision() -> None:
    """H1: the old fence is stale and the new one greater, slots move, the attempt stays, and progress is kept."""
    async with handing() as (hands, running):
        work, view = hands.work, hands.here.registry.view
        await work.heartbeat(running, 30)
        offered = await hands.offer(running, context_uri="s3://notes", context_sha256=b"h" * 32, reason="not my trade")
        assert (offered.state, offered.from_fence, offered.chain_position) == (
            pb.HANDOFF_STATE_OFFERED,
            running.fence,
            0,
        )
        assert (offered.correlation_id, offered.deadline) == ("chain", in_s(hands.here, deciding.OFFERED_S))
        current = await work.read(running)
        assert (current.state, current.agent, current.fence) == (HANDING_OFF, agent("a"), running.fence)
        assert (await work.heartbeat(running, 40)).state == HANDING_OFF
        revision = hands.here.registry.store.revision
        accepted = await hands.accept(offered)
        assert hands.here.registry.store.revision == revision + 1
        assert accepted.handoff.state == pb.HANDOFF_STATE_ACCEPTED
        taken = await work.read(running)
        assert (taken.state, taken.agent, taken.handoffs, taken.attempt) == (RUNNING, agent("b"), 1, 1)
        assert taken.fence == accepted.fence == accepted.handoff.fence > running.fence
        assert taken.progress.percent == 40
        assert (view.slots_held(agent("a")), view.slots_held(agent("b"))) == (0, 1)
        async with refused(Reason.FENCE_STALE, hands):
            await work.complete(running)
        assert await hands.read(offered) == accepted.handoff
        await work.complete(taken)


@pytest.mark.parametrize("end", ["REJECTED", "WITHDRAWN", "EXPIRED"])
async def test_without_it_the_owner_stays_as_it_was(end: str) -> None:
    """H2: the same fence, the same slot, and it may be offered again."""
    async with handing() as (hands, running):
        offered = await hands.offer(running, deadline=in_s(hands.here, 5))
        match end:
            case "REJECTED":
                ended = await hands.reject(offered, reason="busy")
                assert ended.end_reason == "busy"
            case "WITHDRAWN":
                await hands.withdraw(offered, running.fence)
            case _:
                await hands.here.pass_time(6)
        ended = await hands.read(offered)
        assert pb.HandoffState.Name(ended.state) == f"HANDOFF_STATE_{end}"
        assert ended.HasField("end_time")
        current = await hands.work.read(running)
        assert (current.state, current.agent, current.fence) == (RUNNING, agent("a"), running.fence)
        again = await hands.offer(running)
        assert (await hands.accept(again)).fence > running.fence


@pytest.mark.parametrize("how", ["complete", "fail", "cancel", "lease lost", "deadline"])
async def test_with_its_activation_the_offer_is_cancelled(how: str) -> None:
    """In that very revision, and nobody can accept it."""
    async with handing() as (hands, running):
        offered = await hands.offer(running, deadline=in_s(hands.here, 7200))
        match how:
            case "complete":
                await hands.work.complete(running)
            case "fail":
                await hands.work.fail(running)
            case "cancel":
                await hands.work.cancel(running)
            case "lease lost":
                revision = await hands.here.revoke((await hands.here.get("a")).lease)
                assert hands.here.registry.store.revision == revision
                assert (await hands.read(offered)).state == pb.HANDOFF_STATE_CANCELLED
            case _:
                await hands.here.pass_time(3601)
        async with refused(Reason.HANDOFF_CLOSED, hands):
            await hands.accept(offered)
        await hands.here.settle()
        ended = await hands.read(offered)
        assert ended.state == pb.HANDOFF_STATE_CANCELLED
        assert ended.HasField("end_time")
        assert hands.here.registry.view.handoffs.ended_count == 1


async def test_when_the_new_owner_dies_the_offer_stands_until_its_time() -> None:
    async with handing() as (hands, running):
        offered = await hands.offer(running)
        await hands.here.deregister("b")
        async with refused(Reason.AGENT_NOT_FOUND, hands):
            await hands.accept(offered)
        assert (await hands.work.read(running)).fence == running.fence
        await hands.here.register("b", ttl_s=600)
        assert (await hands.accept(offered)).handoff.state == pb.HANDOFF_STATE_ACCEPTED


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "to oneself": ("handoff.to_agent", {"to_agent": agent("a")}),
    "to an agent of elsewhere": ("handoff.to_agent", {"to_agent": "namespaces/o/agents/b"}),
    "a deadline in the past": ("handoff.deadline", {"deadline": Timestamp(seconds=5)}),
    "a deadline two days ahead": ("handoff.deadline", {"deadline": Timestamp(seconds=1000 + 2 * 86_400)}),
    "half a hash": ("handoff.context_sha256", {"context_sha256": b"x" * 16}),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_with_an_offer_is_named(case: str) -> None:
    field, fields = WRONG[case]
    async with handing() as (hands, running):
        async with refused(Reason.INVALID_FIELD, hands) as caught:
            await hands.offer(running, **fields)
        assert [each.field for each in caught.value.field_violations] == [field]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("banned", Reason.AGENT_BANNED),
        ("cordoned", Reason.ADMIN_STATE_CONFLICT),
        ("full", Reason.SLOTS_EXHAUSTED),
        ("expired", Reason.AGENT_NOT_FOUND),
        ("unknown", Reason.AGENT_NOT_FOUND),
        ("broken", Reason.BREAKER_OPEN),
    ],
)
@pytest.mark.parametrize("when", ["offered", "accepted"])
async def test_who_may_not_take_work_is_not_handed_any(what: str, reason: Reason, when: str) -> None:
    """Neither when it is offered nor when it would accept."""
    async with handing() as (hands, running):
        offered = await hands.offer(running) if when == "accepted" else None
        match what:
            case "banned" | "cordoned":
                await hands.here.rule("ban" if what == "banned" else "cordon", "b")
            case "full":
                await hands.work.create()
            case "expired":
                await hands.here.revoke((await hands.here.get("b")).lease)
            case "unknown":
                await hands.here.deregister("b")
            case _:
                for _ in range(FAILURES_MAX):
                    await hands.work.fail(await hands.work.started("b", retry_policy=policy(1)))
        async with refused(reason, hands):
            await (hands.accept(offered) if offered is not None else hands.offer(running))
        assert (await hands.work.read(running)).fence == running.fence


async def test_only_the_owner_offers_and_only_whom_it_was_offered_to_answers() -> None:
    async with handing() as (hands, running):
        await hands.work.hire("c")
        async with refused(Reason.NOT_OWNER, hands):
            await hands.offer(running, from_agent=agent("c"))
        stale = activations_pb.Activation(name=running.name, agent=running.agent, fence=running.fence + 1)
        async with refused(Reason.FENCE_STALE, hands):
            await hands.offer(stale)
        offered = await hands.offer(running)
        async with refused(Reason.ACTIVATION_STATE_CONFLICT, hands):
            await hands.offer(running, to_agent=agent("c"))
        async with refused(Reason.NOT_OWNER, hands):
            await hands.accept(offered, "c")
        async with refused(Reason.NOT_OWNER, hands):
            await hands.reject(offered, "c")
        async with refused(Reason.FENCE_STALE, hands):
            await hands.accept(offered, agent_fence=1)
        async with refused(Reason.FENCE_STALE, hands):
            await hands.withdraw(offered, running.fence + 1)
        await hands.accept(offered, agent_fence=(await hands.here.get("b")).fence)
        for late in (hands.accept(offered), hands.reject(offered), hands.withdraw(offered, running.fence)):
            async with refused(Reason.HANDOFF_CLOSED, hands):
                await late


async def test_work_that_was_not_begun_is_not_handed_over() -> None:
    async with handing() as (hands, _running):
        assigned = await hands.work.read(await hands.work.create())
        async with refused(Reason.ACTIVATION_STATE_CONFLICT, hands):
            await hands.offer(assigned, to_agent=agent("a"))


async def test_there_is_none_that_was_never_offered() -> None:
    async with handing() as (hands, running):
        none = pb.Handoff(name=f"{PARENT}/handoffs/none")
        for call in (hands.read(none), hands.accept(none), hands.reject(none), hands.withdraw(none, running.fence)):
            async with refused(Reason.HANDOFF_NOT_FOUND, hands):
                await call
        with pytest.raises(HoldfastError) as caught:
            await hands.offer(activations_pb.Activation(name=f"{PARENT}/activations/x", agent=agent("a"), fence=1))
        assert caught.value.reason is Reason.ACTIVATION_NOT_FOUND


async def test_a_repeated_request_makes_one_offer() -> None:
    async with handing() as (hands, running):
        first = await hands.offer(running, "r")
        await hands.accept(first)
        assert await hands.offer(running, "r") == first
        async with refused(Reason.REQUEST_ID_REUSED, hands):
            await hands.offer(running, "r", reason="other")


@pytest.mark.parametrize("passed", ["its own deadline", "that of its activation"])
@pytest.mark.parametrize("said", ["accept", "reject", "withdraw"])
async def test_what_is_said_too_late_is_refused_before_the_end_is_written(passed: str, said: str) -> None:
    """H2: after its deadline, or its activation's, nobody acts on an offer, though its end may not be written yet."""
    async with handing() as (hands, running):
        is_own = passed == "its own deadline"
        offered = await hands.offer(running, deadline=in_s(hands.here, 5 if is_own else 2 * DEADLINE_S))
        hands.here.clock.now_s += 6 if is_own else DEADLINE_S + 1
        async with refused(Reason.HANDOFF_CLOSED, hands):
            if said == "withdraw":
                await hands.withdraw(offered, running.fence)
            else:
                await getattr(hands, said)(offered)


async def test_an_offer_does_not_expire_before_its_time() -> None:
    """Also where something acts on its deadline that has moved, or has not passed."""
    async with handing() as (hands, running):
        offered = await hands.offer(running, deadline=in_s(hands.here, 5))
        await hands.here.registry._act_on_deadline(offered.name)
        assert (await hands.read(offered)).state == pb.HANDOFF_STATE_OFFERED


async def test_of_those_who_answer_at_the_same_moment_one_is_heard() -> None:
    """H1: one owner, and a handoff that says the same as its activation."""
    for _ in range(5):
        async with handing() as (hands, running):
            offered = await hands.offer(running)
            await asyncio.gather(
                hands.accept(offered),
                hands.withdraw(offered, running.fence),
                hands.work.complete(running),
                hands.reject(offered),
                return_exceptions=True,
            )
            ended, current = await hands.read(offered), await hands.work.read(running)
            if ended.state == pb.HANDOFF_STATE_ACCEPTED:
                assert (current.agent, current.fence) == (agent("b"), ended.fence)
            else:
                assert current.agent == agent("a")
                assert current.fence in (0, running.fence)


async def test_a_chain_goes_on_from_agent_to_agent() -> None:
    """research-orchestrator → academic-researcher → technical-researcher, as in the original framework."""
    async with replica() as here:
        hands = Handing(here)
        chain = ["research-orchestrator", "academic-researcher", "technical-researcher"]
        await hands.work.hire(chain[0])
        current = await hands.work.started(chain[0], correlation_id="thesis")
        await hands.work.hire(*chain[1:])
        fences = [current.fence]
        for position, (_, to_agent) in enumerate(itertools.pairwise(chain)):
            offered = await hands.offer(current, to_agent=agent(to_agent))
            assert (offered.chain_position, offered.correlation_id) == (position, "thesis")
            fences.append((await hands.accept(offered, to_agent)).fence)
            current = await hands.work.read(current)
        assert fences == sorted(set(fences))
        assert (current.agent, current.handoffs) == (agent(chain[2]), 2)


async def test_offers_outlive_a_restart() -> None:
    store, clock = new_store(), Clock()
    async with handing(store, clock) as (hands, running):
        offered = await hands.offer(running, deadline=in_s(hands.here, 20))
    async with replica(store, clock) as here:
        assert await Handing(here).read(offered) == offered
        await here.pass_time(21)
        assert (await Handing(here).read(offered)).state == pb.HANDOFF_STATE_EXPIRED


async def test_an_agent_on_a_stream_hears_of_offers_and_of_what_comes_of_them() -> None:
    """An offer comes once; accepted, it comes as an assignment that runs, and its owner before hears a revocation."""
    from .test_assignments import line

    async with handing() as (hands, running), line(hands.here, "a") as old, line(hands.here, "b") as new:
        assert (await old.assignment()).name == running.name
        offered = await hands.offer(running)
        assert (await new.hear()).offer == offered
        accepted = await hands.accept(offered)
        taken = await new.assignment()
        assert (taken.fence, taken.state) == (accepted.fence, RUNNING)
        revoked = (await old.hear()).revocation
        assert (revoked.activation, revoked.fence) == (running.name, running.fence)
        assert await new.is_quiet()


async def test_ended_handoffs_are_listed_and_then_forgotten() -> None:
    async with handing() as (hands, running):
        names = []
        for _ in range(3):
            offered = await hands.offer(running)
            names.append(offered.name)
            await hands.reject(offered)
        request = pb.ListHandoffsRequest(parent=PARENT, filter="state = REJECTED", page_size=2)
        found: list[str] = []
        while True:
            page = await hands.here.handoffs.list_handoffs(request, CALL)
            found += [each.name for each in page.handoffs]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert found == sorted(names)
        hands.here.clock.now_s += forgetting.ENDED_KEPT_S + 1
        await Janitor(hands.here.registry).make_round()
        async with refused(Reason.HANDOFF_NOT_FOUND, hands):
            await hands.read(offered)


async def test_handing_over_is_not_a_way_around_slots() -> None:
    """X4: two offers to one free slot, accepted at the same moment."""
    async with replica() as here:
        hands = Handing(here)
        await hands.work.hire("a", slots=2)
        both = [await hands.work.started("a") for _ in range(2)]
        await here.register("b", ttl_s=600, agent=Agent(max_concurrency=1))
        offers = [await hands.offer(each) for each in both]
        outcomes = await asyncio.gather(*map(hands.accept, offers), return_exceptions=True)
        refusals = [each.reason for each in outcomes if isinstance(each, HoldfastError)]
        assert refusals == [Reason.SLOTS_EXHAUSTED]
        assert here.registry.view.slots_held(agent("b")) == 1
