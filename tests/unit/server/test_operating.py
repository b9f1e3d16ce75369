"""What operators decide about agents, and that nothing but operators undoes it."""

import asyncio
from collections.abc import Awaitable

import pytest

from holdfast.core.retention import EXPIRED_KEPT_S
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEventType, WatchAgentsResponse
from holdfast.service.drainer import Drainer
from holdfast.service.janitor import Janitor
from holdfast.store.memory import MemoryStore
from support.replica import ADMIN_REQUESTS, PARENT, Replica, replica

ENABLED, CORDONED, DRAINING, DRAINED, BANNED = (
    AdminState.ADMIN_STATE_ENABLED,
    AdminState.ADMIN_STATE_CORDONED,
    AdminState.ADMIN_STATE_DRAINING,
    AdminState.ADMIN_STATE_DRAINED,
    AdminState.ADMIN_STATE_BANNED,
)
WAY_TO = {ENABLED: [], CORDONED: ["cordon"], DRAINING: ["drain"], DRAINED: ["drain", "finish"], BANNED: ["ban"]}
CONFLICT, IS_BANNED = Reason.ADMIN_STATE_CONFLICT, Reason.AGENT_BANNED
TABLE = [
    # call        ENABLED   CORDONED  DRAINING  DRAINED   BANNED
    ("cordon", (CORDONED, CORDONED, CONFLICT, CONFLICT, IS_BANNED)),
    ("uncordon", (ENABLED, ENABLED, ENABLED, ENABLED, IS_BANNED)),
    ("drain", (DRAINING, DRAINING, DRAINING, DRAINED, IS_BANNED)),
    ("ban", (BANNED, BANNED, BANNED, BANNED, BANNED)),
    ("unban", (CONFLICT, CORDONED, CONFLICT, CONFLICT, CORDONED)),
]


async def refused(call: Awaitable[object]) -> Reason:
    with pytest.raises(HoldfastError) as error:
        await call
    return error.value.reason


async def lead(here: Replica, agent_id: str, state: AdminState.ValueType) -> None:
    """Leads an ENABLED agent to a state."""
    for step in WAY_TO[state]:
        if step == "finish":
            await Drainer(here.registry).make_round()
        else:
            await here.rule(step, agent_id)
    await here.settle()


@pytest.mark.parametrize(
    ("call", "before", "outcome"),
    [(call, before, outcome) for call, outcomes in TABLE for before, outcome in zip(WAY_TO, outcomes, strict=True)],
)
@pytest.mark.parametrize("is_expired", [False, True])
async def test_each_call_makes_of_each_state_what_the_table_says(
    call: str, before: AdminState.ValueType, outcome: AdminState.ValueType | Reason, is_expired: bool
) -> None:
    """Allowed or refused alike for expired agents; what changes nothing writes nothing, and keeps revision and etag."""
    async with replica() as here:
        agent = await here.register("a")
        if is_expired:
            await here.revoke(agent.lease)
        await lead(here, "a", before)
        seen, revision = await here.get("a"), here.registry.store.revision
        assert seen.admin_state == before
        if isinstance(outcome, Reason):
            assert await refused(here.rule(call, "a")) is outcome
            assert await here.get("a") == seen
        else:
            answer = await here.rule(call, "a")
            assert answer == await here.get("a")
            assert answer.admin_state == outcome
            assert (answer.uid, answer.fence, answer.liveness) == (seen.uid, seen.fence, seen.liveness)
            assert (answer == seen) == (outcome == before)
        changed = not isinstance(outcome, Reason) and outcome != before
        assert here.registry.store.revision == revision + changed
        if changed:
            assert (await here.get("a")).revision == revision + 1
            assert (await here.get("a")).etag != seen.etag


@pytest.mark.parametrize("state", [CORDONED, DRAINING, DRAINED])
async def test_a_reconnect_never_undoes_an_operator(state: AdminState.ValueType) -> None:
    """The state survives expiry, deregistration, a take-over and a restart; only an operator ends it."""
    store = MemoryStore()
    async with replica(store) as here:
        await here.register("a", ttl_s=1)
        await lead(here, "a", state)
        await here.pass_time(1.3)
        again = await here.register("a")
        assert again.admin_state == state
        assert (await here.register("a", fence=again.fence)).admin_state == state
        await here.deregister("a")
        assert (await here.register("a")).admin_state == state
    async with replica(store) as there:
        assert (await there.get("a")).admin_state == state
        assert (await there.rule("uncordon", "a")).admin_state == ENABLED


async def test_the_banned_stay_out_until_they_are_unbanned() -> None:
    async with replica() as here:
        agent = await here.register("a", ttl_s=1)
        banned = await here.rule("ban", "a")
        assert banned.liveness == AgentLiveness.AGENT_LIVENESS_LIVE
        assert await refused(here.register("a", fence=agent.fence)) is IS_BANNED
        await here.pass_time(1.3)
        assert await refused(here.register("a")) is IS_BANNED
        await here.deregister("a")
        assert await refused(here.register("a")) is IS_BANNED
        assert await refused(here.get("a")) is Reason.AGENT_NOT_FOUND
        answer = await here.rule("unban", "a")
        assert (answer.name, answer.admin_state) == (banned.name, CORDONED)
        assert (await here.register("a")).admin_state == CORDONED


async def test_a_ban_wins_against_a_registration_under_way() -> None:
    """Whatever the order, nobody is registered after a ban was acknowledged."""
    async with replica() as here:
        for number in range(20):
            name = f"a{number}"
            await here.register(name)
            await here.deregister(name)
            await here.register(name)
            await here.rule("cordon", name)
            await here.deregister(name)
            await asyncio.gather(here.rule("ban", name), here.register(name), return_exceptions=True)
            assert await refused(here.register(name)) is IS_BANNED


@pytest.mark.parametrize("call", list(ADMIN_REQUESTS))
async def test_of_an_agent_that_never_was_nothing_can_be_decided(call: str) -> None:
    async with replica() as here:
        assert await refused(here.rule(call, "nobody")) is Reason.AGENT_NOT_FOUND
        assert here.registry.store.revision == 0


async def test_of_an_agent_that_is_gone_nothing_is_left_once_it_is_enabled() -> None:
    """A decision outlives its agent; ENABLED is none, so it goes with the agent or when it is made later."""
    async with replica() as here:
        for agent_id in ("a", "b"):
            await here.register(agent_id, ttl_s=1)
            await here.rule("cordon", agent_id)
        await here.rule("uncordon", "b")
        await here.pass_time(1.3)
        here.clock.now_s += EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        await here.settle()
        assert [found.key for found in (await here.registry.store.range(""))[1]] == [f"admin:{PARENT}/agents/a"]
        assert (await here.rule("uncordon", "a")) == Agent(name=f"{PARENT}/agents/a", admin_state=ENABLED)
        assert (await here.registry.store.range(""))[1] == []
        assert await refused(here.rule("uncordon", "a")) is Reason.AGENT_NOT_FOUND
        await here.register("c")
        await here.rule("cordon", "c")
        await here.rule("uncordon", "c")
        await here.deregister("c")
        here.clock.now_s += EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        assert (await here.registry.store.range(""))[1] == []


async def test_watchers_and_etags_count_decisions() -> None:
    async with replica() as here:
        agent = await here.register("a")
        cordoned = await here.rule("cordon", "a", reason="maintenance")
        [_, change] = await here.watch(2, start_revision=1)
        [event] = change.events.events
        assert isinstance(change, WatchAgentsResponse)
        assert event.type == AgentEventType.AGENT_EVENT_TYPE_MODIFIED
        assert (event.previous, event.agent) == (agent, cordoned)
        assert await refused(here.deregister("a", etag=agent.etag)) is Reason.ETAG_MISMATCH
        await here.deregister("a", etag=cordoned.etag)


async def test_draining_ends_by_itself_and_after_a_restart() -> None:
    store = MemoryStore()
    async with replica(store) as here:
        await here.register("before")
        assert (await here.rule("drain", "before")).admin_state == DRAINING
    async with replica(store) as here:
        drainer = asyncio.create_task(Drainer(here.registry).run())
        await here.register("after")
        await here.rule("drain", "after")
        async with asyncio.timeout(10):
            while here.registry.view.to_drain:  # noqa: ASYNC110 - it sets no event when it is done
                await asyncio.sleep(0)
        drainer.cancel()
        assert {(await here.get(each)).admin_state for each in ("before", "after")} == {DRAINED}


async def test_a_lease_knows_that_an_agent_of_it_drains() -> None:
    async with replica() as here:
        view, shared = here.registry.view, await here.grant()
        for agent_id in ("a", "b"):
            await here.register(agent_id, agent=Agent(lease=shared.name))
        assert not view.is_draining(shared.name)
        await here.rule("drain", "a")
        assert view.is_draining(shared.name)
        await Drainer(here.registry).make_round()
        assert view.is_draining(shared.name), "it still takes no new work"
        await here.rule("drain", "b")
        await here.rule("uncordon", "a")
        assert view.is_draining(shared.name)
        await here.deregister("b")
        assert not view.is_draining(shared.name)
