"""`watch_fanout`: events delivered per CPU second of the server to 1 000 watchers.

Against a bare grpc.aio server that sends the same bytes to as many streams.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import grpc
import grpc.aio

from benchmarks.processes import cpu_s, pin
from benchmarks.register_durable import start
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages

WATCHERS = 1_000
CHANNELS = 10
"""Connections the watchers share."""

EVENTS = 20
"""Changes in a round; each is a revision, and a message to every watcher."""

OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
SERVICE = "/holdfast.registry.v1.AgentRegistryService"
PARENT = "namespaces/fanout"


async def run(rounds: int = ROUNDS, watchers: int = WATCHERS) -> list[Comparison]:
    """Both servers up at once, each with its watchers, made busy in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        serve = ["-m", "holdfast", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", "memory"]
        ours = start(stack, folder, "ours", serve)
        theirs = start(stack, folder, "stream", ["-m", "benchmarks.stream_server"])
        numbers = count()

        async def change(channel: grpc.aio.Channel) -> None:
            call = channel.unary_unary(f"{SERVICE}/RegisterAgent")
            request = messages.RegisterAgentRequest(parent=PARENT, agent_id=f"agent-{next(numbers)}")
            request.ttl.FromSeconds(3600)
            await call(request.SerializeToString())

        event = await one_event(ours, change)

        async def publish(channel: grpc.aio.Channel) -> None:
            await channel.unary_unary(f"{SERVICE}/RegisterAgent")(event)

        async with Audience(ours, watchers) as hearing_us, Audience(theirs, watchers) as hearing_them:
            our_pid, their_pid = (
                int(json.loads((folder / f).read_text())["pid"]) for f in ("ours.json", "stream.json")
            )
            pairs = await alternate(
                lambda: hearing_us.delivered_per_cpu_s(change, our_pid),
                lambda: hearing_them.delivered_per_cpu_s(publish, their_pid),
                rounds,
            )
        metric = f"events delivered per server CPU second, {watchers} watchers"
        return [Comparison("watch_fanout", "bare grpc.aio stream", metric, "1/s", pairs)]


async def one_event(address: str, change: Callable[[grpc.aio.Channel], Awaitable[None]]) -> bytes:
    """What a change looks like on the wire."""
    async with Audience(address, 1) as one:
        await change(one.channels[0])
        message = await one.calls[0].read()
        assert isinstance(message, bytes), "the server ended the watch"
        return message


class Audience:
    """Watchers of a server, spread over `CHANNELS` connections."""

    def __init__(self, address: str, watchers: int) -> None:
        self.channels = [grpc.aio.insecure_channel(address, options=OPTIONS) for _ in range(CHANNELS)]
        self._watchers = watchers
        self.calls: list[grpc.aio.UnaryStreamCall] = []

    async def __aenter__(self) -> "Audience":
        asked = messages.WatchAgentsRequest(parent=PARENT).SerializeToString()
        for index in range(self._watchers):
            call = self.channels[index % CHANNELS].unary_stream(f"{SERVICE}/WatchAgents")(asked)
            await call.read()  # the snapshot
            self.calls.append(call)
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self.calls:
            call.cancel()
        for channel in self.channels:
            await channel.close()

    async def delivered_per_cpu_s(self, change: Callable[[grpc.aio.Channel], Awaitable[None]], pid: int) -> float:
        """Makes changes until every watcher has got each."""
        before_s = cpu_s(pid)
        reading = [asyncio.create_task(_read(call)) for call in self.calls]
        for _ in range(EVENTS):
            await change(self.channels[0])
        await asyncio.gather(*reading)
        return EVENTS * len(self.calls) / (cpu_s(pid) - before_s)


async def _read(call: grpc.aio.UnaryStreamCall) -> None:
    for _ in range(EVENTS):
        assert isinstance(await call.read(), bytes), "the server ended the watch"
