"""`watch_fanout`: events delivered per CPU second of the server to 1 000 watchers.

Against a bare grpc.aio server that sends the same bytes to as many streams.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

from benchmarks.frames import CallFailedError, Connection, connected
from benchmarks.processes import Running, cpu_s, cpu_since_s, pin, start, start_ours
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages

WATCHERS = 1_000
CONNECTIONS = 10
"""Connections the watchers share."""

EVENTS = 20
"""Changes in a round, one after the other: each is a revision, and a message to every watcher."""

SERVICE = "/holdfast.registry.v1.AgentRegistryService"
PARENT = "namespaces/fanout"

Change = Callable[[Connection], Awaitable[object]]


async def run(rounds: int = ROUNDS, watchers: int = WATCHERS, events: int = EVENTS) -> list[Comparison]:
    """Both servers up at once, each with its watchers, made busy in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        ours = start_ours(stack, folder, "memory")
        theirs = start(stack, folder, "stream", ["-m", "benchmarks.stream_server"])
        numbers = count()

        def register(connection: Connection) -> Awaitable[object]:
            request = messages.RegisterAgentRequest(parent=PARENT, agent_id=f"agent-{next(numbers)}")
            request.ttl.FromSeconds(3600)
            return connection.call(f"{SERVICE}/RegisterAgent", request.SerializeToString())

        event = await one_event(ours, register)

        def publish(connection: Connection) -> Awaitable[object]:
            return connection.call(f"{SERVICE}/RegisterAgent", event)

        async with audience(ours, watchers) as hearing_us, audience(theirs, watchers) as hearing_them:
            pairs = await alternate(
                lambda: hearing_us.delivered_per_cpu_s(register, events),
                lambda: hearing_them.delivered_per_cpu_s(publish, events),
                rounds,
            )
        metric = f"events delivered per server CPU second, {watchers} watchers"
        return [Comparison("watch_fanout", "bare grpc.aio stream", metric, "1/s", pairs)]


async def one_event(server: Running, change: Change) -> bytes:
    """What a change looks like on the wire."""
    async with audience(server, 1) as one:
        await one.hears(change)
        return one.last


class Audience:
    """Watchers of a server; counts what comes to them all together."""

    def __init__(self, server: Running, connections: list[Connection], watchers: int) -> None:
        self.last = b""
        self._pid = server.pid
        self._connections = connections
        self._watchers = watchers
        self._missing = watchers
        self._heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked = messages.WatchAgentsRequest(parent=PARENT).SerializeToString()
        for index in range(watchers):
            connection = connections[index % len(connections)]
            connection.open(f"{SERVICE}/WatchAgents", self._message, self._over).send(asked, ends=True)

    async def snapshots(self) -> None:
        """Returns once every watcher has got its first message."""
        await self._heard

    async def hears(self, change: Change) -> None:
        """Makes a change, and waits until every watcher has got it."""
        self._missing = self._watchers
        self._heard = asyncio.get_running_loop().create_future()
        await change(self._connections[0])
        await self._heard

    async def delivered_per_cpu_s(self, change: Change, events: int) -> float:
        """One round."""
        before_s = cpu_s(self._pid)
        for _ in range(events):
            await self.hears(change)
        return events * self._watchers / cpu_since_s(self._pid, before_s)

    def _message(self, message: bytes) -> None:
        self.last = message
        self._missing -= 1
        if not self._missing:
            self._heard.set_result(None)

    def _over(self, trailers: bytes) -> None:
        if not self._heard.done():
            self._heard.set_exception(CallFailedError(f"the server ended a watch: {trailers!r}"))


@asynccontextmanager
async def audience(server: Running, watchers: int) -> AsyncIterator[Audience]:
    """Watchers over `CONNECTIONS` connections, their snapshots read."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(server.address)) for _ in range(CONNECTIONS)]
        gathered = Audience(server, connections, watchers)
        await gathered.snapshots()
        yield gathered
