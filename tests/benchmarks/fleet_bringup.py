"""`fleet_bringup`: 10 000 agents, each under a lease of its own, until 20 watchers have seen all of them.

Against etcd's API at its best: grants pipelined, transactions of 128 puts, a watch of the prefix. Ours registers in
batches; pipelined calls of one agent each are a line of their own. Both sides are durable when acknowledged.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from functools import lru_cache
from itertools import count
from pathlib import Path

import grpc
import grpc.aio

from benchmarks import etcd
from benchmarks.processes import pin
from benchmarks.register_durable import start
from benchmarks.rounds import Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages
from holdfast.registry.v1.agent_pb2 import Agent, Capability

AGENTS = 10_000
WATCHERS = 20
BATCH = 2_500
PIPELINED = 256
"""Calls under way at a time."""

ROUNDS = 10
"""Each brings up another fleet beside those before, so thirty would measure 300 000 agents at the end."""

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
SERVICE = "/holdfast.registry.v1.AgentRegistryService"


async def run(rounds: int = ROUNDS, agents: int = AGENTS, watchers: int = WATCHERS) -> list[Comparison]:
    """Both servers up at once, on one core, brought up in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        serve = ["-m", "holdfast", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        ours = start(stack, folder, "ours", [*serve, "--store", f"sqlite:{folder / 'h.db'}"])
        theirs, _ = etcd.start(stack, folder)
        numbers, leases = count(1), count(1)

        async def batched() -> float:
            return await bring_up_ours(ours, f"namespaces/b{next(numbers)}", agents, watchers, in_batches)

        async def one_by_one() -> float:
            return await bring_up_ours(ours, f"namespaces/b{next(numbers)}", agents, watchers, singly)

        async def peer() -> float:
            return await bring_up_theirs(theirs, next(numbers), agents, watchers, leases)

        return [
            Comparison(
                "fleet_bringup", "etcd", f"agents per second until {watchers} watchers saw all, {how}", "1/s", pairs
            )
            for how, pairs in [
                ("batches", await alternate(batched, peer, rounds)),
                ("one per call", await alternate(one_by_one, peer, rounds)),
            ]
        ]


def fields_of(number: int) -> Agent:
    """What an agent tells of itself."""
    return Agent(
        display_name=f"agent {number}",
        tier=1 + number % 4,  # type: ignore[arg-type]
        capabilities=[Capability(id=f"capability-{number % 50}")],
        labels={"team": f"team-{number % 20}"},
    )


async def bring_up_ours(
    address: str,
    parent: str,
    agents: int,
    watchers: int,
    register: Callable[[grpc.aio.Channel, list[messages.RegisterAgentRequest]], Awaitable[None]],
) -> float:
    """Agents per second, from the first call to the last watcher's last event."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        watch = channel.unary_stream(f"{SERVICE}/WatchAgents")
        asked = messages.WatchAgentsRequest(parent=parent).SerializeToString()
        calls = [watch(asked) for _ in range(watchers)]
        for call in calls:
            await call.read()  # the snapshot of nobody
        requests = [
            messages.RegisterAgentRequest(parent=parent, agent_id=f"agent-{number:05}", agent=fields_of(number))
            for number in range(agents)
        ]
        for request in requests:
            request.ttl.FromSeconds(3600)
        started_s = time.perf_counter()
        seen = [asyncio.create_task(see_all(call, agents, events_of_ours)) for call in calls]
        await register(channel, requests)
        await asyncio.gather(*seen)
        return agents / (time.perf_counter() - started_s)


async def in_batches(channel: grpc.aio.Channel, requests: list[messages.RegisterAgentRequest]) -> None:
    """All at a time, `BATCH` in each call."""
    call = channel.unary_unary(f"{SERVICE}/BatchRegisterAgents")
    batches = [
        messages.BatchRegisterAgentsRequest(parent=requests[0].parent, requests=requests[first : first + BATCH])
        for first in range(0, len(requests), BATCH)
    ]
    await asyncio.gather(*(call(batch.SerializeToString()) for batch in batches))


async def singly(channel: grpc.aio.Channel, requests: list[messages.RegisterAgentRequest]) -> None:
    """A call for each, `PIPELINED` under way."""
    call = channel.unary_unary(f"{SERVICE}/RegisterAgent")
    await pipelined(call(request.SerializeToString()) for request in requests)


async def pipelined(calls: Iterable[Awaitable[object]]) -> None:
    """Makes calls, `PIPELINED` at a time; a call is begun when it is taken from the iterable."""
    remaining = iter(calls)

    async def caller() -> None:
        for call in remaining:
            await call

    await asyncio.gather(*(caller() for _ in range(PIPELINED)))


async def bring_up_theirs(address: str, number: int, agents: int, watchers: int, leases: "count[int]") -> float:
    """The same with etcd: a lease and a key for each agent, with what ours stores of it as the value."""
    prefix = b"fleet%d/" % number
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        watch = channel.stream_stream("/etcdserverpb.Watch/Watch")
        calls = [watch() for _ in range(watchers)]
        for call in calls:
            await call.write(etcd.watch_of(prefix))
            await call.read()  # created
        values = [fields_of(each).SerializeToString() for each in range(agents)]
        ids = [next(leases) for _ in range(agents)]
        grant, txn = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant"), channel.unary_unary("/etcdserverpb.KV/Txn")
        started_s = time.perf_counter()
        seen = [asyncio.create_task(see_all(call, agents, events_of_etcd)) for call in calls]
        await pipelined(grant(etcd.grant(lease, 3600)) for lease in ids)
        puts = [
            (b"%sagent-%05d" % (prefix, each), value, lease)
            for each, (value, lease) in enumerate(zip(values, ids, strict=True))
        ]
        chunks = [puts[first : first + etcd.TXN_PUTS_MAX] for first in range(0, agents, etcd.TXN_PUTS_MAX)]
        await pipelined(txn(etcd.put_all(chunk)) for chunk in chunks)
        await asyncio.gather(*seen)
        return agents / (time.perf_counter() - started_s)


async def see_all(call: grpc.aio.UnaryStreamCall, count: int, events_of: Callable[[bytes], int]) -> None:
    """Reads a watch until it has shown `count` events."""
    seen = 0
    while seen < count:
        message = await call.read()
        assert isinstance(message, bytes), "the server ended the watch"
        seen += events_of(message)
    call.cancel()


@lru_cache(maxsize=64)
def events_of_ours(message: bytes) -> int:
    """Events in a message; all watchers get the same bytes, so each is read once."""
    return len(messages.WatchAgentsResponse.FromString(message).events.events)


@lru_cache(maxsize=64)
def events_of_etcd(message: bytes) -> int:
    """Events (11) in a WatchResponse."""
    return sum(number == 11 for number, _ in etcd.fields(message))
