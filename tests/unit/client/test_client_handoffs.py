"""Handoffs by the client: work changes hands while it runs."""

import asyncio

import pytest

from holdfast.client import HoldLostError, Session, Work
from holdfast.client.errors import HandoffClosedError
from holdfast.coordination.v1.activation_service_pb2 import ACTIVATION_STATE_SUCCEEDED, Activation
from holdfast.coordination.v1.handoff_service_pb2 import HANDOFF_STATE_REJECTED, Handoff
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.testing import serve

SPEC = Agent(capabilities=[Capability(id="build")])


async def test_work_that_is_handed_over_stops_here_and_is_finished_there() -> None:
    begun: asyncio.Queue[Work] = asyncio.Queue()

    async def start(session: Session) -> None:
        async with session.activations() as assignments, await anext(assignments) as work:
            begun.put_nowait(work)
            await asyncio.wait_for(asyncio.Event().wait(), 20)

    async with serve() as server, server.client() as client, client.session("a", spec=SPEC) as giver:
        created = await client.activations.create(Activation(selector=AgentSelector(agent=giver.agent.name)))
        giving = asyncio.create_task(start(giver))
        work = await asyncio.wait_for(begun.get(), 10)
        async with client.session("b", spec=SPEC) as taker, taker.activations() as assignments:
            offer = Handoff(activation=work.name, from_agent=giver.agent.name, to_agent=taker.agent.name)
            first = await client.handoffs.offer(offer, work.fence)
            refused = await client.handoffs.reject(first.name, "b", taker.fence, "busy")
            assert refused.state == HANDOFF_STATE_REJECTED
            with pytest.raises(HandoffClosedError):
                await client.handoffs.accept(first.name, "b", taker.fence)
            work.check()
            second = await client.handoffs.offer(offer, work.fence)
            accepted = await client.handoffs.accept(second.name, "b", taker.fence)
            with pytest.raises(HoldLostError):
                await giving
            async with asyncio.timeout(10), await anext(assignments) as mine:
                assert mine.fence == accepted.fence
                mine.result = b"by b"
        ended = await client.activations.get(created.name)
        assert (ended.state, ended.result, ended.agent) == (ACTIVATION_STATE_SUCCEEDED, b"by b", taker.agent.name)
