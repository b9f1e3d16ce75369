"""What one caller may take leaves room for others."""

import contextlib

import pytest

from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_registry_service_pb2 import WatchAgentsRequest
from holdfast.service.agents import AgentRegistry
from holdfast.service.context import CallContext
from support.replica import PARENT, replica


def call_from(client: str) -> CallContext:
    return CallContext("service", "method", "correlation", client)


async def refused_watch(agents: AgentRegistry, client: str) -> HoldfastError:
    with pytest.raises(HoldfastError) as refused:
        await anext(agents.watch_agents(WatchAgentsRequest(parent=PARENT), call_from(client)))
    return refused.value


async def test_one_host_cannot_take_every_watch() -> None:
    """Half of them are left for others, until all are taken; what ends gives its place back."""
    async with replica() as here, contextlib.AsyncExitStack() as running:
        agents = AgentRegistry(here.registry, watchers_max=4)

        async def begin(client: str) -> None:
            watch = agents.watch_agents(WatchAgentsRequest(parent=PARENT), call_from(client))
            await running.enter_async_context(contextlib.aclosing(watch))
            await anext(watch)

        for _ in range(2):
            await begin("ipv4:192.0.2.1")
        refused = await refused_watch(agents, "ipv4:192.0.2.1")
        assert (refused.reason, refused.subject) == (Reason.QUOTA_EXCEEDED, "ipv4:192.0.2.1")
        for _ in range(2):
            await begin("ipv4:192.0.2.2")
        assert (await refused_watch(agents, "ipv4:192.0.2.3")).subject == "this replica"
        await running.aclose()
        assert here.registry.watchers == 0
        for _ in range(2):
            await begin("ipv4:192.0.2.1")
