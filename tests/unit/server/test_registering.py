"""Who may register, under which lease, and what stays of them."""

import asyncio
from collections.abc import Awaitable

import pytest

from holdfast.core.requests import KEPT_S, digest
from holdfast.core.retention import EXPIRED_KEPT_S
from holdfast.core.state import copy_of, fence_of
from holdfast.errors import HoldfastError, Reason
from holdfast.names import request_key
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness, AgentStatus, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import RegisterAgentRequest, RegisterAgentResponse
from holdfast.service.janitor import Janitor
from holdfast.storage.v1.records_pb2 import RequestRecord
from holdfast.store.interface import Txn
from holdfast.store.memory import MemoryStore
from support.replica import PARENT, replica

LIVE, EXPIRED = AgentLiveness.AGENT_LIVENESS_LIVE, AgentLiveness.AGENT_LIVENESS_EXPIRED


async def refused(call: Awaitable[object]) -> Reason:
    with pytest.raises(HoldfastError) as error:
        await call
    return error.value.reason


async def test_parent_and_id_are_enough() -> None:
    async with replica() as here:
        agent = await here.register("a")
        assert agent == await here.get("a")
        assert (agent.coordination_priority, agent.max_concurrency) == (50, 1)
        assert (agent.liveness, agent.admin_state) == (LIVE, AdminState.ADMIN_STATE_ENABLED)
        assert agent.status == AgentStatus.AGENT_STATUS_IDLE
        [kept] = await here.keep(agent.lease)
        assert kept.ttl.seconds == 30


async def test_a_live_name_is_taken_and_an_expired_one_is_not() -> None:
    """L5: the next incarnation has a new uid and a greater fence."""
    async with replica() as here:
        first = await here.register("a", ttl_s=1)
        assert await refused(here.register("a")) is Reason.AGENT_ALREADY_EXISTS
        await here.pass_time(1.3)
        assert (await here.get("a")).liveness == EXPIRED
        second = await here.register("a")
        assert second.uid != first.uid
        assert second.fence > first.fence
        assert (await here.get("a")) == second


async def test_fences_grow_across_deregistration() -> None:
    """K2: a deleted name does not start its fences again."""
    async with replica() as here:
        first = await here.register("a")
        await here.deregister("a")
        assert (await here.register("a")).fence > first.fence


async def test_the_current_fence_takes_over_and_a_stale_one_does_not() -> None:
    async with replica() as here:
        first = await here.register("a")
        second = await here.register("a", fence=first.fence)
        assert second.fence > first.fence
        assert await refused(here.register("a", fence=first.fence)) is Reason.FENCE_STALE
        assert await refused(here.deregister("a", fence=first.fence)) is Reason.FENCE_STALE
        assert await refused(here.register("nobody", fence=first.fence)) is Reason.FENCE_STALE
        [old, new] = await here.keep(first.lease, second.lease)
        assert old.status.code
        assert not new.status.code
        await here.deregister("a", fence=second.fence)


async def test_of_many_who_register_one_name_exactly_one_succeeds() -> None:
    async with replica() as here:
        outcomes = await asyncio.gather(*(here.register("a") for _ in range(40)), return_exceptions=True)
        winners = [outcome for outcome in outcomes if isinstance(outcome, Agent)]
        assert len(winners) == 1
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, HoldfastError)} == {
            Reason.AGENT_ALREADY_EXISTS
        }
        assert await here.get("a") == winners[0]


async def test_a_refusal_is_as_fresh_as_the_call() -> None:
    """Register, deregister, register without a pause: no call is refused for what a call before it undid."""
    async with replica() as here:
        for _ in range(50):
            await here.register("a")
            await here.deregister("a")
        assert await refused(here.deregister("a")) is Reason.AGENT_NOT_FOUND


async def test_a_request_id_makes_registration_repeatable() -> None:
    """A replay has the first answer, whatever happened since; the same id with other content is refused."""
    async with replica() as here:
        first = await here.register("a", request_id="r1")
        await here.register("b")
        assert await here.register("a", request_id="r1") == first
        await here.deregister("a")
        assert await here.register("a", request_id="r1") == first
        with pytest.raises(HoldfastError) as error:
            await here.register("c", request_id="r1")
        assert error.value.reason is Reason.REQUEST_ID_REUSED
        assert [violation.field for violation in error.value.field_violations] == ["request_id"]
        both = await asyncio.gather(*(here.register("d", request_id="r2") for _ in range(8)))
        assert all(answer == both[0] for answer in both)


async def test_a_repeated_registration_is_answered_from_a_few_bytes() -> None:
    """The first answer in each field, of a large agent too, after a restart and whatever happened since."""
    store = MemoryStore()
    large = Agent(capabilities=[Capability(id=f"c{number}", tags=["t" * 60] * 8) for number in range(100)], domain="d")
    async with replica(store) as here:
        await here.register("a", ttl_s=1)
        await here.rule("cordon", "a")
        await here.pass_time(1.3)
        own = await here.register("a", agent=large, request_id="own")
        joins = copy_of(large)
        joins.lease = (await here.grant()).name
        shared = await here.register("b", agent=joins, request_id="shared")
        assert own.admin_state == AdminState.ADMIN_STATE_CORDONED
        assert here.registry.view.answers.size_bytes < 600
        await here.rule("uncordon", "a")
        await here.deregister("b")
        here.clock.now_s += 5
        assert await here.register("a", agent=large, request_id="own") == own
    async with replica(store) as here:
        assert await here.register("a", agent=large, request_id="own") == own
        assert await here.register("b", agent=joins, request_id="shared") == shared


async def test_an_answer_that_an_earlier_version_kept_whole_is_given_again() -> None:
    store = MemoryStore()
    async with replica(store) as here:
        first = await here.register("a", request_id="r")
        key, request = request_key(PARENT, "RegisterAgent", "r"), RegisterAgentRequest(parent=PARENT, agent_id="a")
        record = RequestRecord(request_sha256=digest(request), time=here.registry.now())
        kept = copy_of(first)
        kept.fence, kept.revision, kept.etag = fence_of(store.epoch, 0), 0, ""
        record.response.Pack(RegisterAgentResponse(agent=kept))
        await store.commit(Txn(puts=((key, record.SerializeToString()),)))
        await here.settle()
        second = await here.register("a", request_id="r")
        assert (second.uid, second.lease, second.create_time) == (first.uid, first.lease, first.create_time)
        assert second.revision == store.revision, "that of the record"
        assert await refused(here.register("b", request_id="r")) is Reason.REQUEST_ID_REUSED


async def test_a_lease_is_shared_only_while_it_stands_and_by_its_own() -> None:
    async with replica() as here:
        shared = await here.grant()
        one = await here.register("one", agent=Agent(lease=shared.name))
        assert one.lease == shared.name
        private = await here.register("private")
        assert await refused(here.register("x", agent=Agent(lease=private.lease))) is Reason.NOT_OWNER
        await here.revoke(shared.name)
        assert await refused(here.register("y", agent=Agent(lease=shared.name))) is Reason.LEASE_NOT_FOUND
        nowhere = f"{PARENT}/leases/nowhere"
        assert await refused(here.register("z", agent=Agent(lease=nowhere))) is Reason.LEASE_NOT_FOUND
        assert await refused(here.revoke(nowhere)) is Reason.LEASE_NOT_FOUND


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("ttl", {"agent": Agent(lease=f"{PARENT}/leases/l"), "ttl_s": 5}),
        ("agent.lease", {"agent": Agent(lease="namespaces/other/leases/l")}),
        ("agent.name", {"agent": Agent(name=f"{PARENT}/agents/another")}),
        ("agent.capabilities[1].id", {"agent": Agent(capabilities=[Capability(id="c"), Capability(id="c")])}),
    ],
)
async def test_fields_that_contradict_each_other_are_named(field: str, wrong: dict[str, object]) -> None:
    async with replica() as here:
        with pytest.raises(HoldfastError) as error:
            await here.register("a", **wrong)
        assert [violation.field for violation in error.value.field_violations] == [field]
        assert here.registry.store.revision == 0


async def test_an_etag_covers_liveness() -> None:
    """What expired since it was read has another etag, though only its lease was written."""
    async with replica() as here:
        agent = await here.register("a", ttl_s=1)
        await here.pass_time(1.3)
        assert (await here.get("a")).etag != agent.etag
        assert await refused(here.deregister("a", etag=agent.etag)) is Reason.ETAG_MISMATCH
        await here.deregister("a", etag=(await here.get("a")).etag)


async def test_what_expired_is_hidden_from_lists_then_forgotten() -> None:
    """An expired agent can be read for an hour; after it nothing is left of it, its lease, or old answers."""
    async with replica() as here:
        lease = await here.grant(ttl_s=1)
        for number in range(150):
            await here.register(f"a{number}", agent=Agent(lease=lease.name), request_id=f"r{number}")
        await here.register("stays", ttl_s=86_400)
        await here.pass_time(1.3)
        assert await here.listed() == ["stays"]
        janitor = Janitor(here.registry)
        here.clock.now_s += max(EXPIRED_KEPT_S, KEPT_S) - 60
        await janitor.make_round()
        assert (await here.get("a0")).liveness == EXPIRED
        here.clock.now_s += 120
        await janitor.make_round()
        await here.settle()
        assert await refused(here.get("a0")) is Reason.AGENT_NOT_FOUND
        assert {found.key.split(":")[0] for found in (await here.registry.store.range(""))[1]} == {"agent", "lease"}
        assert len((await here.registry.store.range(""))[1]) == 2
        assert (here.registry.view.live_count, here.registry.view.expired_count) == (1, 0)
