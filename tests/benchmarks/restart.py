"""`restart`: kill -9 to SERVING with 100 000 agents, each under a lease of its own, and memory per agent.

Against etcd with as many leases and keys, whose values are the agents as clients see them; it is back once it answers
a linearizable read. Both begin with what a killed process left on disk.
"""

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks import etcd
from benchmarks.fleet_bringup import BATCH, SERVICE, put_theirs, requests_for
from benchmarks.frames import connected
from benchmarks.processes import Running, kill, pin, resident_bytes, start_ours
from benchmarks.rounds import Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages

AGENTS = 100_000
ROUNDS = 6
"""Restarts take seconds, and scatter little."""

PARENT = "namespaces/restart"


async def run(rounds: int = ROUNDS, agents: int = AGENTS) -> list[Comparison]:
    """Fills both, then kills and starts them in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        ours = Killed(stack, folder / "ours", lambda own, where: start_ours(own, where), serving_already)
        theirs = Killed(stack, folder / "etcd", etcd.start, first_read)
        values = await register_all(ours.running.address, agents)
        async with connected(theirs.running.address) as connection:
            await put_theirs(connection, f"{PARENT}/agents/".encode(), values, count(1))
        loaded = [(ours.taken_bytes / agents, theirs.taken_bytes / agents)]
        restarts = await alternate(ours.seconds_to_serve, theirs.seconds_to_serve, rounds)
        restarted = [
            (our / agents, their / agents)
            for our, their in zip(ours.taken_after[1:], theirs.taken_after[1:], strict=True)
        ]
    return [
        Comparison("restart", "etcd", f"kill -9 to SERVING with {agents} agents", "s", restarts, is_cost=True),
        Comparison("restart", "etcd", "memory per agent, after the restart", "B", restarted, is_cost=True),
        Comparison("restart", "etcd", "memory per agent, after registering", "B", loaded, is_cost=True),
    ]


async def register_all(address: str, agents: int) -> list[bytes]:
    """Registers agents in batches; returns what clients see of them, serialised."""
    values: list[bytes] = []
    async with connected(address) as connection:
        for first in range(0, agents, BATCH):
            requests = requests_for(PARENT, range(first, min(first + BATCH, agents)))
            batch = messages.BatchRegisterAgentsRequest(parent=PARENT, requests=requests)
            answer = await connection.call(f"{SERVICE}/BatchRegisterAgents", batch.SerializeToString())
            answered = messages.BatchRegisterAgentsResponse.FromString(answer).agents
            values += [agent.SerializeToString() for agent in answered]
    return values


class Killed:
    """A server that is killed and started again on the same data."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        start: Callable[[ExitStack, Path], Running],
        is_back: Callable[[str], Awaitable[None]],
    ) -> None:
        folder.mkdir()
        self.taken_after: list[int] = []
        self._folder, self._start, self._is_back = folder, start, is_back
        self._stack = stack
        self.running = start(stack, folder)
        self._empty_bytes = resident_bytes(self.running.pid)

    @property
    def taken_bytes(self) -> int:
        """Memory beside what it took when it was empty."""
        return resident_bytes(self.running.pid) - self._empty_bytes

    async def seconds_to_serve(self) -> float:
        """One round."""
        started_s = time.perf_counter()
        kill(self.running.process)
        self.running = self._start(self._stack, self._folder)
        await self._is_back(self.running.address)
        seconds = time.perf_counter() - started_s
        self.taken_after.append(self.taken_bytes)
        return seconds


async def serving_already(_address: str) -> None:
    """Ours has started once it serves."""


async def first_read(address: str) -> None:
    """etcd listens before it serves; a linearizable read waits until it does."""
    async with connected(address) as connection:
        await connection.call("/etcdserverpb.KV/Range", etcd.range_of(b"a", b"z", count_only=True))
