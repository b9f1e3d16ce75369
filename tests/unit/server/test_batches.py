"""Many agents at once: all at one revision, or none."""

import pytest

from holdfast import validation
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import BatchRegisterAgentsRequest, RegisterAgentRequest
from holdfast.store.memory import MemoryStore
from support.replica import CALL, PARENT, Replica, replica


def one(agent_id: str, **fields: object) -> RegisterAgentRequest:
    return RegisterAgentRequest(agent_id=agent_id, **fields)


async def batch(here: Replica, *requests: RegisterAgentRequest, request_id: str = "") -> list[Agent]:
    request = BatchRegisterAgentsRequest(parent=PARENT, requests=requests, request_id=request_id)
    validation.check(request)
    return list((await here.agents.batch_register_agents(request, CALL)).agents)


async def test_a_batch_is_one_revision_for_every_reader() -> None:
    """Answers, reads and watchers agree, and an agent of a batch lives like any other."""
    async with replica() as here:
        lease = await here.grant()
        await here.register("old", ttl_s=1, agent=Agent(display_name="before"))
        await here.pass_time(1.3)
        await here.register("ruled")
        await here.rule("cordon", "ruled")
        before = here.registry.store.revision
        fence = (await here.get("ruled")).fence
        agents = await batch(
            here, one("z"), one("a", agent=Agent(lease=lease.name)), one("old"), one("ruled", fence=fence)
        )
        assert {agent.revision for agent in agents} == {before + 1} == {here.registry.store.revision}
        assert [agent.name.rsplit("/", 1)[1] for agent in agents] == ["z", "a", "old", "ruled"]
        assert [await here.get(name) for name in ("z", "a", "old", "ruled")] == agents
        assert [agent.admin_state for agent in agents[2:]] == [
            AdminState.ADMIN_STATE_ENABLED,
            AdminState.ADMIN_STATE_CORDONED,
        ]
        assert len({agent.uid for agent in agents}) == len({agent.lease for agent in agents}) == 4
        [message] = await here.watch(1, start_revision=before + 1)
        assert sorted(event.agent.name for event in message.events.events) == sorted(agent.name for agent in agents)
        await here.pass_time(20)
        await here.keep(agents[0].lease)
        await here.pass_time(20)
        assert (await here.get("z")).liveness == AgentLiveness.AGENT_LIVENESS_LIVE
        assert (await here.get("a")).liveness == AgentLiveness.AGENT_LIVENESS_EXPIRED


@pytest.mark.parametrize(
    ("wrong", "reason", "field"),
    [
        (one("ok"), Reason.INVALID_FIELD, "requests[2].agent_id"),
        (one("-"), Reason.INVALID_FIELD, "requests[2].agent_id"),
        (one("x", parent="namespaces/other"), Reason.INVALID_FIELD, "requests[2].parent"),
        (one("x", request_id="r"), Reason.INVALID_FIELD, "requests[2].request_id"),
        (
            one("x", agent=Agent(capabilities=[Capability(id="c")] * 2)),
            Reason.INVALID_FIELD,
            "requests[2].agent.capabilities[1].id",
        ),
        (one("live"), Reason.AGENT_ALREADY_EXISTS, None),
        (one("live", fence=7), Reason.FENCE_STALE, None),
        (one("banned"), Reason.AGENT_BANNED, None),
        (one("x", agent=Agent(lease=f"{PARENT}/leases/nowhere")), Reason.LEASE_NOT_FOUND, None),
    ],
)
async def test_one_that_is_refused_refuses_all_and_is_named(
    wrong: RegisterAgentRequest, reason: Reason, field: str | None
) -> None:
    async with replica() as here:
        await here.register("live")
        await here.register("banned")
        await here.rule("ban", "banned")
        await here.deregister("banned")
        revision = here.registry.store.revision
        with pytest.raises(HoldfastError) as error:
            await batch(here, one("ok"), one("fine"), wrong)
        assert error.value.reason is reason
        if field is not None:
            assert [violation.field for violation in error.value.field_violations] == [field]
        else:
            assert error.value.metadata["request"] == "requests[2]"
            assert error.value.message.startswith("requests[2]: ")
        assert here.registry.store.revision == revision
        assert await here.listed() == ["live"]


async def test_a_request_id_makes_a_batch_repeatable_in_a_few_bytes() -> None:
    """The first answer comes again, after a restart and whatever happened since; other content is refused."""
    store = MemoryStore()
    many = [one(f"a{number:03}", agent=Agent(display_name="x" * 100)) for number in range(300)]
    async with replica(store) as here:
        await here.register("a007", ttl_s=1)
        await here.rule("cordon", "a007")
        await here.pass_time(1.3)
        first = await batch(here, *many, request_id="r")
        assert first[7].admin_state == AdminState.ADMIN_STATE_CORDONED
        assert here.registry.view.answers.size_bytes < 300
        await here.rule("uncordon", "a007")
        await here.deregister("a008")
        here.clock.now_s += 5
        assert await batch(here, *many, request_id="r") == first
    async with replica(store) as here:
        assert await batch(here, *many, request_id="r") == first
        with pytest.raises(HoldfastError) as error:
            await batch(here, *many[1:], request_id="r")
        assert error.value.reason is Reason.REQUEST_ID_REUSED


async def test_an_answer_too_large_for_clients_is_refused_before_anything_is_written() -> None:
    async with replica() as here:
        large = Agent(labels={f"l{number}": "x" * 256 for number in range(64)})
        with pytest.raises(HoldfastError) as error:
            await batch(here, *(one(f"a{number}", agent=large) for number in range(200)))
        assert [violation.field for violation in error.value.field_violations] == ["requests"]
        assert "split" in error.value.message
        assert here.registry.store.revision == 0


async def test_ten_thousand_are_registered_at_once() -> None:
    async with replica() as here:
        lease = await here.grant()
        agent = Agent(lease=lease.name, capabilities=[Capability(id="review")], labels={"team": "core"})
        many = [one(f"agent-{number:05}", agent=agent) for number in range(9_000)]
        many += [one(f"own-{number:05}") for number in range(1_000)]
        agents = await batch(here, *many)
        assert len(agents) == here.registry.view.live_count == 10_000
        assert sum(agent.ByteSize() for agent in agents) < 4_000_000
