"""`fleet_bringup`: 10 000 agents, each under a lease of its own, until 20 watchers have seen all of them.

Against etcd's API at its best: grants pipelined, transactions of 128 puts, a watch of the prefix. Ours registers in
batches; pipelined calls of one agent each are a line of their own. Both sides are durable when acknowledged.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import count
from pathlib import Path

from benchmarks import etcd
from benchmarks.frames import CallFailedError, Connection, connected
from benchmarks.processes import pin, start_ours
from benchmarks.rounds import Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages
from holdfast.registry.v1.agent_pb2 import Agent, Capability

AGENTS = 10_000
WATCHERS = 20
BATCH = 2_500
PIPELINED = 256
"""Calls under way at a time."""

ROUNDS = 8
"""Each brings up another fleet beside those before, so thirty would measure 300 000 agents at the end."""

SERVICE = "/holdfast.registry.v1.AgentRegistryService"

Register = Callable[[Connection, Sequence[messages.RegisterAgentRequest]], Awaitable[None]]


async def run(rounds: int = ROUNDS, agents: int = AGENTS, watchers: int = WATCHERS) -> list[Comparison]:
    """Both servers up at once, on one core, brought up in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        ours, theirs = start_ours(stack, folder), etcd.start(stack, folder)
        fleets, leases = count(1), count(1)

        def with_calls(register: Register) -> Callable[[], Awaitable[float]]:
            return lambda: bring_up_ours(ours.address, f"namespaces/fleet-{next(fleets)}", agents, watchers, register)

        async def peer() -> float:
            return await bring_up_theirs(theirs.address, b"fleet-%d/" % next(fleets), agents, watchers, leases)

        return [
            Comparison(
                "fleet_bringup", "etcd", f"agents per second until {watchers} watchers saw all, {how}", "1/s", pairs
            )
            for how, pairs in [
                ("in batches", await alternate(with_calls(in_batches), peer, rounds)),
                ("one per call", await alternate(with_calls(singly), peer, rounds)),
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


def requests_for(parent: str, numbers: Iterable[int]) -> list[messages.RegisterAgentRequest]:
    """Registrations under leases that outlast the benchmark."""
    made = [
        messages.RegisterAgentRequest(parent=parent, agent_id=f"agent-{number:06}", agent=fields_of(number))
        for number in numbers
    ]
    for request in made:
        request.ttl.FromSeconds(3600)
    return made


async def bring_up_ours(address: str, parent: str, agents: int, watchers: int, register: Register) -> float:
    """Agents per second, from the first call to the last watcher's last event."""
    async with connected(address) as connection:
        asked = messages.WatchAgentsRequest(parent=parent).SerializeToString()
        seeing = [Seeing(connection, f"{SERVICE}/WatchAgents", asked, agents, events_of_ours) for _ in range(watchers)]
        await asyncio.gather(*(each.begun for each in seeing))
        requests = requests_for(parent, range(agents))
        started_s = time.perf_counter()
        await register(connection, requests)
        await asyncio.gather(*(each.seen_all for each in seeing))
        return agents / (time.perf_counter() - started_s)


async def in_batches(connection: Connection, requests: Sequence[messages.RegisterAgentRequest]) -> None:
    """`BATCH` agents in each call."""
    batches = [
        messages.BatchRegisterAgentsRequest(parent=requests[0].parent, requests=requests[first : first + BATCH])
        for first in range(0, len(requests), BATCH)
    ]
    call = f"{SERVICE}/BatchRegisterAgents"
    await pipelined(connection.call(call, batch.SerializeToString()) for batch in batches)


async def singly(connection: Connection, requests: Sequence[messages.RegisterAgentRequest]) -> None:
    """A call for each, `PIPELINED` under way."""
    await pipelined(connection.call(f"{SERVICE}/RegisterAgent", request.SerializeToString()) for request in requests)


async def pipelined(calls: Iterable[Awaitable[object]]) -> None:
    """Makes calls, `PIPELINED` at a time; a call is begun when it is taken from the iterable."""
    remaining = iter(calls)

    async def caller() -> None:
        for call in remaining:
            await call

    await asyncio.gather(*(caller() for _ in range(PIPELINED)))


async def bring_up_theirs(address: str, prefix: bytes, agents: int, watchers: int, leases: "count[int]") -> float:
    """The same with etcd: a lease and a key for each agent, with what the agent tells of itself as the value."""
    async with connected(address) as connection:
        watch = "/etcdserverpb.Watch/Watch"
        seeing = [Seeing(connection, watch, etcd.watch_of(prefix), agents, events_of_etcd) for _ in range(watchers)]
        await asyncio.gather(*(each.begun for each in seeing))
        values = [fields_of(number).SerializeToString() for number in range(agents)]
        started_s = time.perf_counter()
        await put_theirs(connection, prefix, values, leases)
        await asyncio.gather(*(each.seen_all for each in seeing))
        return agents / (time.perf_counter() - started_s)


async def put_theirs(connection: Connection, prefix: bytes, values: Sequence[bytes], leases: "count[int]") -> None:
    """A lease for each value, then all values in as few transactions as etcd takes."""
    ids = [next(leases) for _ in values]
    await pipelined(connection.call("/etcdserverpb.Lease/LeaseGrant", etcd.grant(lease, 3600)) for lease in ids)
    puts = [
        (b"%sagent-%06d" % (prefix, number), value, lease)
        for number, (value, lease) in enumerate(zip(values, ids, strict=True))
    ]
    chunks = [puts[first : first + etcd.TXN_PUTS_MAX] for first in range(0, len(puts), etcd.TXN_PUTS_MAX)]
    await pipelined(connection.call("/etcdserverpb.KV/Txn", etcd.put_all(chunk)) for chunk in chunks)


class Seeing:
    """A watch until it has shown `count` events; `begun` once its first message came, which counts only if told so."""

    def __init__(
        self,
        connection: Connection,
        method: str,
        asked: bytes,
        count: int,
        events_of: Callable[[bytes], int],
        *,
        first_counts: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.seen_all: asyncio.Future[None] = loop.create_future()
        self._missing = count
        self._events_of = events_of
        self._first_counts = first_counts
        self._stream = connection.open(method, self._message, self._over)
        self._stream.send(asked)

    def _message(self, message: bytes) -> None:
        if not self.begun.done():
            self.begun.set_result(None)
            if not self._first_counts:
                return
        self._missing -= self._events_of(message)
        if self._missing <= 0 and not self.seen_all.done():
            self._stream.cancel()
            self.seen_all.set_result(None)

    def _over(self, trailers: bytes) -> None:
        for waiting in (self.begun, self.seen_all):
            if not waiting.done():
                waiting.set_exception(CallFailedError(f"the server ended the watch: {trailers!r}"))


@lru_cache(maxsize=1024)
def events_of_ours(message: bytes) -> int:
    """Events in a message; all watchers get the same bytes, so each is read once."""
    return len(messages.WatchAgentsResponse.FromString(message).events.events)


@lru_cache(maxsize=1024)
def events_of_etcd(message: bytes) -> int:
    """Events (11) in a WatchResponse."""
    return sum(number == 11 for number, _ in etcd.fields(message))
