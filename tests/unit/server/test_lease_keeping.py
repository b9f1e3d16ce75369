"""Leases end when nobody keeps them: not before, not long after, and with everything attached at once."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from holdfast.core.retention import EXPIRED_KEPT_S
from holdfast.core.state import LeaseEntry
from holdfast.errors import HoldfastError, Reason
from holdfast.leases import ENDED_TOGETHER_MAX, LeaseKeeper, not_kept
from holdfast.registry.v1.agent_pb2 import Agent, AgentLiveness
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentEventType,
    BatchRegisterAgentsRequest,
    RegisterAgentRequest,
)
from holdfast.registry.v1.lease_service_pb2 import GetLeaseRequest, LeaseDirective
from holdfast.service.drainer import Drainer
from holdfast.service.janitor import Janitor
from holdfast.storage.v1.records_pb2 import LeaseRecord
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import SqliteStore
from support.replica import CALL, PARENT, Clock, Replica, replica


async def test_nothing_expires_before_its_last_keepalive_and_ttl() -> None:
    """L1 and L2: kept at 0.9 TTL again and again it stands; left alone it is gone at TTL and hardly more."""
    async with replica() as here:
        agent = await here.register("a", ttl_s=2)
        for _ in range(10):
            await here.pass_time(1.8)
            [kept] = await here.keep(agent.lease)
            assert (kept.ttl.seconds, kept.directive) == (2, LeaseDirective.LEASE_DIRECTIVE_CONTINUE)
        await here.pass_time(1.99)
        assert await here.listed() == ["a"]
        await here.pass_time(0.25)
        assert await here.listed() == []
        [gone] = await here.keep(agent.lease)
        assert gone.directive == LeaseDirective.LEASE_DIRECTIVE_STOP
        assert gone.status.code


async def test_expiry_takes_everything_in_one_revision() -> None:
    """L3."""
    async with replica() as here:
        lease = await here.grant(ttl_s=1)
        for number in range(20):
            await here.register(f"a{number:02}", agent=Agent(lease=lease.name))
        before = here.registry.store.revision
        await here.pass_time(1.3)
        assert here.registry.store.revision == before + 1
        [message] = await here.watch(1, start_revision=before + 1)
        assert [event.type for event in message.events.events] == [AgentEventType.AGENT_EVENT_TYPE_EXPIRED] * 20
        assert {event.agent.revision for event in message.events.events} == {before + 1}
        assert all(event.previous.revision <= before for event in message.events.events)


async def test_results_come_in_the_order_asked() -> None:
    async with replica() as here:
        stands, ends = await here.grant(), await here.grant()
        await here.revoke(ends.name)
        results = await here.keep(ends.name, stands.name, "nonsense", stands.name)
        assert [result.lease for result in results] == [ends.name, stands.name, "nonsense", stands.name]
        assert [bool(result.status.code) for result in results] == [True, False, True, False]
        assert results[1].fence == stands.fence


async def test_a_lease_can_be_kept_as_soon_as_it_is_granted() -> None:
    """L4: the view may be a moment behind the acknowledgement, the answer may not."""
    async with replica() as here:
        for _ in range(50):
            lease = await here.grant()
            [kept] = await here.keep(lease.name)
            assert not kept.status.code


class SlowEnd:
    """Ends leases when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __call__(self, _due: Sequence[str]) -> int:
        self.asked.set()
        return await self.outcome


def one_lease(keeper: LeaseKeeper) -> LeaseEntry:
    lease = LeaseEntry("namespaces/n/leases/l", LeaseRecord(ttl_ms=1000, fence_epoch=1), 1)
    keeper.lease_stands(lease)
    return lease


def run_out(keeper: LeaseKeeper, clock: Clock) -> None:
    """Lets a second pass, in steps too small for a stall."""
    for _ in range(4):
        clock.now_s += 0.25
        keeper.look()


async def test_a_keepalive_waits_for_an_end_under_way() -> None:
    """L4: an OK is never given to a lease whose end is being written."""
    clock, end = Clock(), SlowEnd()
    keeper = LeaseKeeper(clock, end)
    lease = one_lease(keeper)
    run_out(keeper, clock)
    await end.asked.wait()
    assert keeper.keep(lease.name) is None
    answer = asyncio.create_task(keeper.keep_slowly(lease.name, lambda _name: None))
    await asyncio.sleep(0)
    assert not answer.done()
    end.outcome.set_result(1)
    assert (await answer).directive == LeaseDirective.LEASE_DIRECTIVE_STOP


async def test_an_end_that_nobody_can_confirm_is_no_answer_either_way() -> None:
    """While the store is down a keepalive is told so: neither kept nor gone."""
    clock, end = Clock(), SlowEnd()
    keeper = LeaseKeeper(clock, end)
    lease = one_lease(keeper)
    run_out(keeper, clock)
    answer = asyncio.create_task(keeper.keep_slowly(lease.name, lambda _name: None))
    await end.asked.wait()
    await asyncio.sleep(0)
    end.outcome.set_exception(HoldfastError(Reason.STORE_UNAVAILABLE, "the disk is full"))
    result = await answer
    assert "disk is full" in result.status.message
    assert result.directive == LeaseDirective.LEASE_DIRECTIVE_UNSPECIFIED
    assert keeper.keep(lease.name) is None, "it may have ended"
    for task in keeper._tasks:
        task.cancel()


async def test_a_stall_of_the_process_is_not_held_against_leases() -> None:
    """Keepalives wait in the sockets of a process that stands still; time is given for them, once and bounded."""
    async with replica() as here:
        kept, lost = await here.register("kept", ttl_s=5), await here.register("lost", ttl_s=5)
        await here.pass_time(1)
        here.clock.now_s += 60
        here.registry.keeper.look()
        await here.settle()
        assert await here.listed() == ["kept", "lost"]
        assert here.registry.keeper.guard.stalls_total == 1
        await here.keep(kept.lease)
        await here.pass_time(4.9)
        assert await here.listed() == ["kept", "lost"]
        await here.keep(kept.lease)
        await here.pass_time(0.5)
        assert await here.listed() == ["kept"]
        assert (await here.keep(lost.lease))[0].status.code


@pytest.mark.parametrize("away_s", [0, 3600])
async def test_a_restart_gives_every_lease_its_full_ttl(tmp_path: Path, away_s: float) -> None:
    """L2 across a restart: never early however long it took, and gone a TTL after."""
    clock = Clock()
    store = SqliteStore(tmp_path / "h.db")
    await store.open()
    async with replica(store, clock) as before:
        await before.register("a", ttl_s=10)
        await before.pass_time(9)
    await store.close()
    clock.now_s += away_s
    again = SqliteStore(tmp_path / "h.db")
    await again.open()
    async with replica(again, clock) as after:
        await after.pass_time(9.9)
        assert await after.listed() == ["a"]
        await after.pass_time(0.3)
        assert await after.listed() == []
    await again.close()


async def test_granting_is_repeatable() -> None:
    async with replica() as here:
        first = await here.grant(request_id="g1")
        assert await here.grant(request_id="g1") == first
        with pytest.raises(HoldfastError) as refused:
            await here.grant(ttl_s=31, request_id="g1")
        assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_leases_that_run_out_together_end_in_few_revisions() -> None:
    """Mass expiry costs a revision per some hundred leases, not per lease; each agent expires in exactly one."""
    async with replica() as here:
        for number in range(1200):
            await here.register(f"a{number:04}", ttl_s=5)
        before = here.registry.store.revision
        await here.pass_time(5.3)
        assert await here.listed() == []
        assert here.registry.store.revision - before == math.ceil(1200 / ENDED_TOGETHER_MAX)
        assert here.registry.keeper.expirations_total == 1200
        steps = here.registry.view.history.after(before, 10)
        ended = [event.agent.name for step in steps for events in step.events.values() for event in events]
        assert len(ended) == len(set(ended)) == 1200


async def test_one_lease_that_is_revoked_meanwhile_holds_up_no_other() -> None:
    """The ends of leases are written together under one condition; where it fails, the rest is decided anew."""
    async with replica() as here:
        leases = [(await here.register(f"a{number}", ttl_s=2)).lease for number in range(10)]
        await here.pass_time(1.8)
        here.clock.now_s += 0.3
        revoking = asyncio.create_task(here.revoke(leases[3]))
        await asyncio.sleep(0)
        here.registry.keeper.look()
        await revoking
        await here.settle()
        assert await here.listed() == []
        assert here.registry.keeper.expirations_total == 9


def bulky(count: int) -> dict[str, object]:
    """An agent's labels, of some 250 bytes each."""
    return {"labels": {f"text{number}": "x" * 240 for number in range(count)}}


async def test_what_ends_together_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """W4 and the 4 MB clients take: ends are split over revisions before their one message becomes too large."""
    monkeypatch.setattr("holdfast.core.leases.AGENTS_BYTES_MAX", 20_000)
    async with replica() as here:
        for number in range(10):
            await here.register(f"a{number}", ttl_s=2, agent=bulky(16))
        before = here.registry.store.revision
        await here.pass_time(2.3)
        assert await here.listed() == []
        assert here.registry.store.revision - before == 3


async def test_agents_that_could_not_end_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By registration, alone or many at once, and by an update that makes one larger; nothing is written."""
    monkeypatch.setattr("holdfast.core.leases.AGENTS_BYTES_MAX", 10_000)
    async with replica() as here:
        lease = (await here.grant()).name
        large = {"lease": lease, **bulky(16)}
        await here.register("a", agent=large)
        await here.register("b", agent=large)
        before = here.registry.store.revision
        for call in (
            here.register("c", agent=large),
            here.update("a", bulky(24), "labels"),
            here.batch({"c": {"lease": lease}, "d": large}),
        ):
            with pytest.raises(HoldfastError) as refused:
                await call
            assert refused.value.reason is Reason.QUOTA_EXCEEDED
        assert here.registry.store.revision == before
        await here.update("a", bulky(1), "labels")
        await here.register("c", agent=large)


async def test_the_holder_of_a_draining_agent_is_told_to_finish() -> None:
    """From the operator's decision on, through DRAINED, until it is uncordoned; other leases carry on."""
    async with replica() as here:
        mine, other = (await here.register("mine")).lease, (await here.register("other")).lease
        await here.rule("drain", "mine")
        directives = [result.directive for result in await here.keep(mine, other, mine)]
        drain, go_on = LeaseDirective.LEASE_DIRECTIVE_DRAIN, LeaseDirective.LEASE_DIRECTIVE_CONTINUE
        assert directives == [drain, go_on, drain]
        await Drainer(here.registry).make_round()
        assert (await here.keep(mine))[0].directive == drain
        await here.rule("uncordon", "mine")
        assert (await here.keep(mine))[0].directive == go_on


async def test_a_lease_whose_end_hangs_holds_up_no_other() -> None:
    """One that waits for the store is told so in time; those beside it are kept at once."""
    async with replica() as here:
        hung = await here.register("hung", ttl_s=1)
        held = asyncio.Event()

        async def hang(_due: Sequence[str]) -> int:
            await held.wait()
            return 0

        here.registry.keeper._expire = hang
        other = await here.register("other", ttl_s=5)
        for _ in range(5):
            here.clock.now_s += 0.25
            here.registry.keeper.look()
        waiting = asyncio.create_task(here.keep(hung.lease, other.lease))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert here.registry.keeper.left_s(other.lease) == 5
        unknown, kept = await waiting
        assert unknown.directive == LeaseDirective.LEASE_DIRECTIVE_UNSPECIFIED
        assert "did not say within" in unknown.status.message
        assert not kept.status.code
        held.set()
        await here.settle()


def test_ten_thousand_refusals_fit_one_message() -> None:
    """Whatever the names are that were sent, and whatever the reason."""
    for name in ("x" * 160, "\N{PILE OF POO}" * 40, "'\"\\" * 53):
        for reason in (Reason.LEASE_NOT_FOUND, Reason.STORE_UNAVAILABLE, Reason.OVERLOADED):
            result = not_kept(name, HoldfastError(reason, f"no lease {name!r} stands: {'w' * 1000}", subject=name))
            assert result.ByteSize() * 10_000 < 4 * 1024 * 1024, f"{result.ByteSize()} bytes for {name!r}"


async def leave_by_deregistering(here: Replica, agent: Agent) -> None:
    await here.deregister("a")


async def leave_by_take_over(here: Replica, agent: Agent) -> None:
    await here.register("a", fence=agent.fence)


async def leave_for_a_shared_lease(here: Replica, agent: Agent) -> None:
    await here.register("a", fence=agent.fence, agent={"lease": (await here.grant()).name})


async def leave_in_a_batch(here: Replica, agent: Agent) -> None:
    one = RegisterAgentRequest(parent=PARENT, agent_id="a", fence=agent.fence)
    await here.agents.batch_register_agents(BatchRegisterAgentsRequest(parent=PARENT, requests=[one]), CALL)


@pytest.mark.parametrize(
    "leave", [leave_by_deregistering, leave_by_take_over, leave_for_a_shared_lease, leave_in_a_batch]
)
async def test_a_lease_that_went_with_its_agent_is_known_to_have_ended(
    leave: Callable[[Replica, Agent], Awaitable[None]],
) -> None:
    """L4: what was kept a moment ago is not said never to have been, after a restart neither, until it is forgotten."""
    store = MemoryStore()
    async with replica(store) as here:
        agent = await here.register("a")
        assert not (await here.keep(agent.lease))[0].HasField("status")
        await leave(here, agent)
        [gone] = await here.keep(agent.lease)
        with pytest.raises(HoldfastError) as refused:
            await here.leases.get_lease(GetLeaseRequest(name=agent.lease), CALL)
    async with replica(store) as here:
        assert [gone] == await here.keep(agent.lease)
        assert refused.value.reason is Reason.LEASE_NOT_FOUND
        assert gone.directive == LeaseDirective.LEASE_DIRECTIVE_STOP
        for message in (refused.value.message, gone.status.message):
            assert f"it went with its agent, or its agent left it, at revision {store.revision}" in message
        here.clock.now_s += EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        assert here.registry.view.lease(agent.lease) is None


async def test_nobody_expires_with_a_lease_that_went_with_its_agent() -> None:
    """One who goes is DELETED and one who comes back is ADDED, each once and LIVE, also to those who ask who lives."""
    async with replica() as here:
        agent = await here.register("a")
        again = await here.register("a", fence=agent.fence)
        await here.deregister("a")
        for only in ("", "liveness = LIVE"):
            told = [message.events.events for message in await here.watch(3, start_revision=1, filter=only)]
            kinds = [AgentEventType.AGENT_EVENT_TYPE_ADDED] * 2 + [AgentEventType.AGENT_EVENT_TYPE_DELETED]
            assert [[event.type for event in events] for events in told] == [[kind] for kind in kinds]
            assert [events[0].agent.uid for events in told] == [agent.uid, again.uid, again.uid]
            assert all(events[0].agent.liveness == AgentLiveness.AGENT_LIVENESS_LIVE for events in told)
        assert here.registry.view.expired_count == 0
