"""What one caller may take leaves room for others."""

import asyncio
import contextlib

import pytest

from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import WatchAgentsRequest
from holdfast.service.context import CallContext
from holdfast.service.room import HOST_MESSAGES_MAX, SMALL_BYTES, Room
from holdfast.service.watching import AgentWatching
from support.replica import PARENT, replica


def call_from(client: str) -> CallContext:
    return CallContext("service", "method", "correlation", client)


async def refused_watch(agents: AgentWatching, client: str) -> HoldfastError:
    with pytest.raises(HoldfastError) as refused:
        await anext(agents.watch_agents(WatchAgentsRequest(parent=PARENT), call_from(client)))
    return refused.value


async def test_one_host_cannot_take_every_watch() -> None:
    """Half of them are left for others, until all are taken; what ends gives its place back."""
    async with replica() as here, contextlib.AsyncExitStack() as running:
        agents = AgentWatching(here.registry)
        here.registry.audience.watchers_max = 4

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
        assert here.registry.audience.count == 0
        for _ in range(2):
            await begin("ipv4:192.0.2.1")


async def test_large_messages_wait_for_those_that_nobody_reads() -> None:
    """Only those of the same host; small ones never do; a place given back is the next one's."""
    room, large = Room(messages_max=3, host_messages_max=2, wait_s=0.05), SMALL_BYTES + 1
    async with contextlib.AsyncExitStack() as unread:
        first = await unread.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(room.taken("one", large))
        await unread.enter_async_context(room.taken("one", large))
        with pytest.raises(HoldfastError) as refused:
            async with room.taken("one", large):
                pass
        assert refused.value.reason is Reason.OVERLOADED
        async with room.taken("one", SMALL_BYTES), room.taken("other", large):
            with pytest.raises(HoldfastError):
                async with room.taken("third", large):
                    pass
        await first.aclose()
        async with room.taken("one", large), room.taken("other", large):
            pass
    assert not room._asking
    assert not room._host_places


async def test_a_snapshot_is_not_made_before_there_is_room_for_it() -> None:
    """Watches of large agents that nobody reads take no memory but for the few whose turn it is."""
    async with replica() as here, contextlib.AsyncExitStack() as running:
        labels = {f"k{number}": "v" * 256 for number in range(64)}
        await here.register("large", agent=Agent(labels=labels, display_name="d" * 256))
        agents = AgentWatching(here.registry)
        here.registry.audience.watchers_max = 100
        watches = [
            agents.watch_agents(WatchAgentsRequest(parent=PARENT), call_from("ipv4:192.0.2.1"))
            for _ in range(HOST_MESSAGES_MAX + 1)
        ]
        for watch in watches:
            await running.enter_async_context(contextlib.aclosing(watch))
        for watch in watches[:-1]:
            await anext(watch)
        waiting = asyncio.ensure_future(anext(watches[-1]))
        elsewhere = agents.watch_agents(WatchAgentsRequest(parent=PARENT), call_from("ipv4:192.0.2.2"))
        await anext(elsewhere)
        await elsewhere.aclose()
        assert not waiting.done()
        await watches[0].aclose()
        assert await waiting
