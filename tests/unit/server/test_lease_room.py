"""The agents of one lease stay within what can end at one revision, whoever joins at the same moment."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from holdfast.core.leases import AGENTS_BYTES_MAX
from holdfast.core.telling import MESSAGE_BYTES_MAX
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import BatchRegisterAgentsRequest, RegisterAgentRequest
from holdfast.store.memory import MemoryStore
from support.replica import CALL, PARENT, Replica, replica

TEXTS = {f"t{number:02}": "x" * 256 for number in range(60)}
"""Labels of some 16 KB."""


class SharedStore(MemoryStore):
    """One that several replicas write to."""

    is_shared = True


def large(agent_id: str, lease: str, fence: int = 0) -> RegisterAgentRequest:
    """An agent of 500 KB to join a lease."""
    agent = Agent(lease=lease, labels=TEXTS)
    for number in range(224):
        agent.capabilities.add(id=f"c{number}", tags=[f"{each:02}{'t' * 62}" for each in range(32)])
    return RegisterAgentRequest(parent=PARENT, agent_id=agent_id, agent=agent, fence=fence)


async def join_in_batches(here: Replica, lease: str, number: int) -> object:
    requests = [large(f"a{number}-{each}", lease) for each in range(2)]
    request = BatchRegisterAgentsRequest(parent=PARENT, requests=requests)
    return await here.agents.batch_register_agents(request, CALL)


async def join_alone(here: Replica, lease: str, number: int) -> object:
    return await here.agents.register_agent(large(f"a{number}", lease), CALL)


async def join_repeatably(here: Replica, lease: str, number: int) -> object:
    request = large(f"a{number}", lease)
    request.request_id = f"r{number}"
    return await here.agents.register_agent(request, CALL)


async def grow(here: Replica, lease: str, number: int) -> object:
    capabilities = large("", lease).agent.capabilities
    return await here.update(f"small{number}", {"capabilities": capabilities}, "capabilities")


JOINING = [join_in_batches, join_alone, join_repeatably, grow]
Join = Callable[[Replica, str, int], Awaitable[object]]


async def settled(calls: Sequence[Awaitable[object]]) -> list[HoldfastError]:
    """Waits for calls; returns those that were refused."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(error, HoldfastError) for error in refused), refused
    assert len(refused) < len(outcomes)
    return refused  # type: ignore[return-value]


async def check_end(here: Replica, lease: str) -> None:
    """The lease is within its bound, and its end can be told."""
    view = here.registry.view
    assert view.agents_bytes(lease) <= AGENTS_BYTES_MAX
    assert not view.growing
    revision = await here.revoke(lease)
    [told] = await here.watch(1, start_revision=revision)
    assert told.ByteSize() <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize("join", JOINING)
async def test_those_who_join_at_once_count_each_other(join: Join) -> None:
    """Some are in, the others are refused, and there is one revision and one message for the end of all."""
    async with replica() as here:
        lease = (await here.grant()).name
        for number in range(6):
            await here.register(f"small{number}", agent={"lease": lease})
        refused = await settled([join(here, lease, number) for number in range(6)])
        assert {error.reason for error in refused} == {Reason.QUOTA_EXCEEDED}
        await check_end(here, lease)


@pytest.mark.parametrize("join", JOINING)
async def test_those_who_join_through_different_replicas_count_each_other(join: Join) -> None:
    """One replica at a time lets agents join a lease; that costs no other its keeping, nor the lease its deadline."""
    store = SharedStore()
    async with replica(store) as one, replica(store) as other:
        lease = (await one.grant()).name
        for number in range(6):
            await one.register(f"small{number}", agent={"lease": lease})
        await other.registry.view.reached(store.revision)
        refused = await settled([join((one, other)[number % 2], lease, number) for number in range(6)])
        assert {error.reason for error in refused} <= {Reason.QUOTA_EXCEEDED, Reason.TXN_CONFLICT}
        await one.registry.view.reached(store.revision)
        entry = one.registry.view.lease(lease)
        assert entry is not None
        assert entry.record.owner == one.registry.replica
        await check_end(one, lease)


async def test_callers_who_give_up_are_counted_all_the_same() -> None:
    """What they asked for may be written: it is on its way until its outcome is known."""
    async with replica() as here:
        lease = (await here.grant()).name
        for number in range(12):
            call = asyncio.create_task(join_alone(here, lease, number))
            await asyncio.sleep(0)
            call.cancel()
        await asyncio.gather(*here.registry._writer._growing, return_exceptions=True)
        await check_end(here, lease)


async def test_those_for_whom_there_is_room_are_not_in_each_others_way() -> None:
    """Ten agents of a process join its lease at once, in one write each and nothing beside."""
    async with replica() as here:
        lease = (await here.grant()).name
        before = here.registry.store.revision
        await asyncio.gather(*(here.register(f"a{number}", agent={"lease": lease}) for number in range(10)))
        assert here.registry.store.revision == before + 10


async def test_an_agent_that_comes_back_under_its_lease_counts_once() -> None:
    """It takes its own place: alone or in a batch, where more than half of the lease's room is its own."""
    async with replica() as here:
        lease = (await here.grant()).name
        agents = [(await here.agents.register_agent(large(f"a{n}", lease), CALL)).agent for n in range(3)]
        again = (await here.agents.register_agent(large("a0", lease, agents[0].fence), CALL)).agent
        fences = [again.fence, agents[1].fence, agents[2].fence]
        requests = [large(f"a{number}", lease, fence) for number, fence in enumerate(fences)]
        await here.agents.batch_register_agents(BatchRegisterAgentsRequest(parent=PARENT, requests=requests), CALL)
        with pytest.raises(HoldfastError) as refused:
            await join_alone(here, lease, 3)
        assert refused.value.reason is Reason.QUOTA_EXCEEDED
        await check_end(here, lease)
