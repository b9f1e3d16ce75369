"""UpdateAgent changes what the mask says, for the current incarnation, on the version that was read."""

import asyncio
from collections.abc import Awaitable

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import validation
from holdfast.core.updates import MUTABLE, PATHS_MAX
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent, AgentStatus, AgentTier, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEventType, UpdateAgentRequest
from holdfast.store.memory import MemoryStore
from support.replica import CALL, PARENT, Replica, replica

NAME = f"{PARENT}/agents/a"
FULL = Agent(
    display_name="A",
    tier=AgentTier.AGENT_TIER_2_SPECIALIST,
    domain="d",
    capabilities=[Capability(id="c", version="1")],
    coordination_priority=70,
    max_concurrency=4,
    status=AgentStatus.AGENT_STATUS_ACTIVE,
    labels={"team": "core", "zone.eu/x": "1"},
)
OTHER = Agent(
    name=NAME,
    display_name="B",
    tier=AgentTier.AGENT_TIER_3_TASK,
    domain="e",
    capabilities=[Capability(id="x"), Capability(id="y")],
    coordination_priority=20,
    max_concurrency=9,
    status=AgentStatus.AGENT_STATUS_ERROR,
    labels={"team": "edge"},
)
MANY = [f"n{number}" for number in range(63)]
DEFAULTS = {"coordination_priority": 50, "max_concurrency": 1, "status": AgentStatus.AGENT_STATUS_IDLE}


async def update(here: Replica, agent: Agent, *paths: str, fence: int = 0) -> Agent:
    request = UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=paths), fence=fence)
    validation.check(request)
    return (await here.agents.update_agent(request, CALL)).agent


async def refused(call: Awaitable[object]) -> HoldfastError:
    with pytest.raises(HoldfastError) as error:
        await call
    return error.value


@given(paths=st.sets(st.sampled_from(MUTABLE), min_size=1), is_cleared=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_fields_of_the_mask_change_and_no_others(paths: set[str], is_cleared: bool) -> None:
    """What is in the mask becomes what is sent, or its default where nothing is; all else, identity included, stays."""

    async def check() -> None:
        async with replica() as here:
            first = await here.register("a", agent=FULL)
            sent = Agent(name=NAME) if is_cleared else OTHER
            answer = await update(here, sent, *paths)
            assert answer == await here.get("a")
            expected = Agent()
            expected.CopyFrom(first)
            for path in paths:
                expected.ClearField(path)
                if is_cleared and path in DEFAULTS:
                    setattr(expected, path, DEFAULTS[path])
                elif not is_cleared:
                    expected.MergeFrom(Agent(**{path: getattr(OTHER, path)}))
            for followed in ("etag", "revision", "update_time"):
                expected.ClearField(followed)
                answer.ClearField(followed)
            assert answer == expected

    asyncio.run(check())


async def test_without_a_mask_what_is_set_changes() -> None:
    async with replica() as here:
        first = await here.register("a", agent=FULL)
        answer = await update(here, Agent(name=NAME, display_name="B", labels={"only": "this"}))
        assert (answer.display_name, dict(answer.labels)) == ("B", {"only": "this"})
        assert (answer.domain, answer.tier, answer.fence, answer.uid) == ("d", first.tier, first.fence, first.uid)


async def test_a_star_replaces_everything_that_may_change() -> None:
    async with replica() as here:
        first = await here.register("a", agent=FULL)
        answer = await update(here, Agent(name=NAME, display_name="B"), "*")
        assert answer.display_name == "B"
        assert not answer.labels
        assert not answer.capabilities
        assert (answer.coordination_priority, answer.max_concurrency, answer.status) == tuple(DEFAULTS.values())
        assert (answer.lease, answer.create_time, answer.fence) == (first.lease, first.create_time, first.fence)


async def test_single_labels_are_set_and_removed() -> None:
    async with replica() as here:
        await here.register("a", agent=FULL)
        sent = Agent(name=NAME, labels={"new": "n", "ignored": "i"})
        answer = await update(here, sent, "labels.new", "labels.zone.eu/x", "labels.absent")
        assert dict(answer.labels) == {"team": "core", "new": "n"}


@pytest.mark.parametrize(
    ("agent", "paths", "field"),
    [
        (Agent(), [], "agent.name"),
        (Agent(name=NAME), ["lease"], "update_mask"),
        (Agent(name=NAME), ["name"], "update_mask"),
        (Agent(name=NAME), ["admin_state"], "update_mask"),
        (Agent(name=NAME), ["nonsense"], "update_mask"),
        (Agent(name=NAME), [""], "update_mask"),
        (Agent(name=NAME), ["labels."], "update_mask"),
        (Agent(name=NAME), ["capabilities.id"], "update_mask"),
        (Agent(name=NAME), ["*", "domain"], "update_mask"),
        (Agent(name=NAME), [f"labels.k{number}" for number in range(PATHS_MAX + 1)], "update_mask"),
        (Agent(name=NAME, lease=f"{PARENT}/leases/other"), ["domain"], "agent.lease"),
        (Agent(name=NAME, capabilities=[Capability(id="c")] * 2), [], "agent.capabilities[1].id"),
        (Agent(name=NAME, max_concurrency=10_001), [], "agent.max_concurrency"),
        (
            Agent(name=NAME, labels={f"n{n}": "" for n in range(63)}),
            [f"labels.n{n}" for n in range(63)],
            "agent.labels",
        ),
    ],
)
async def test_what_may_not_be_changed_is_named(agent: Agent, paths: list[str], field: str) -> None:
    async with replica() as here:
        first = await here.register("a", agent=FULL)
        error = await refused(update(here, agent, *paths))
        assert error.reason is Reason.INVALID_FIELD
        assert [violation.field for violation in error.field_violations] == [field]
        assert await here.get("a") == first


async def test_an_update_of_nothing_writes_nothing() -> None:
    async with replica() as here:
        first = await here.register("a", agent=FULL)
        revision = here.registry.store.revision
        assert await update(here, first) == first
        assert await update(here, first, "*") == first
        assert await update(here, Agent(name=NAME)) == first
        assert here.registry.store.revision == revision


async def test_a_stale_etag_or_fence_changes_nothing() -> None:
    """Whatever made it stale: another update, an operator, another incarnation."""
    async with replica() as here:
        first = await here.register("a")
        changed = await update(here, Agent(name=NAME, domain="x", etag=first.etag), fence=first.fence)
        assert (await refused(update(here, Agent(name=NAME, domain="y", etag=first.etag)))).reason is (
            Reason.ETAG_MISMATCH
        )
        await here.rule("cordon", "a")
        assert (await refused(update(here, Agent(name=NAME, domain="y", etag=changed.etag)))).reason is (
            Reason.ETAG_MISMATCH
        )
        second = await here.register("a", fence=first.fence)
        error = await refused(update(here, Agent(name=NAME, domain="y"), fence=first.fence))
        assert error.reason is Reason.FENCE_STALE
        assert error.metadata == {"current_fence": str(second.fence)}
        assert await here.get("a") == second


async def test_of_many_updates_of_one_version_exactly_one_happens() -> None:
    async with replica() as here:
        first = await here.register("a")
        sent = [Agent(name=NAME, domain=f"d{number}", etag=first.etag) for number in range(20)]
        outcomes = await asyncio.gather(*(update(here, each) for each in sent), return_exceptions=True)
        assert len([outcome for outcome in outcomes if isinstance(outcome, Agent)]) == 1
        assert {each.reason for each in outcomes if isinstance(each, HoldfastError)} == {Reason.ETAG_MISMATCH}


async def test_only_who_lives_can_be_changed() -> None:
    """The expired must register again; who never was is not found."""
    async with replica() as here:
        agent = await here.register("a")
        await here.revoke(agent.lease)
        assert (await refused(update(here, Agent(name=NAME, domain="x")))).reason is Reason.LEASE_NOT_FOUND
        await here.deregister("a")
        assert (await refused(update(here, Agent(name=NAME, domain="x")))).reason is Reason.AGENT_NOT_FOUND


async def test_an_update_is_the_same_incarnation_after_a_restart_and_one_event() -> None:
    store = MemoryStore()
    async with replica(store) as here:
        first = await here.register("a", agent=FULL)
        changed = await update(here, OTHER)
        assert (changed.fence, changed.uid, changed.revision) == (first.fence, first.uid, 2)
        [_, message] = await here.watch(2, start_revision=1)
        [event] = message.events.events
        assert (event.type, event.previous, event.agent) == (
            AgentEventType.AGENT_EVENT_TYPE_MODIFIED,
            first,
            changed,
        )
    async with replica(store) as here:
        assert await here.get("a") == changed
