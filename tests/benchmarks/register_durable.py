"""`register_durable`: RegisterAgent, acknowledged when on disk, against a bare grpc.aio echo of the same messages.

The client works at the level of frames: one of grpc.aio costs as much as the servers, and would even them out.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks.frames import Connection, connected
from benchmarks.processes import Running, cpu_s, cpu_since_s, pin, start, start_ours
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages

CALLERS = 32
ROUND_S = 1.0
METHOD = "/holdfast.registry.v1.AgentRegistryService/RegisterAgent"


async def run(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[Comparison]:
    """Both servers up at once, on one core, loaded in turn from the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        ours = start_ours(stack, folder)
        theirs = start(stack, folder, "echo", ["-m", "benchmarks.echo_server"])
        ids = count()
        our_load, their_load = Load(ours, ids, round_s), Load(theirs, ids, round_s)
        pairs = await alternate(our_load.calls_per_s, their_load.calls_per_s, rounds)
        per_cpu = list(zip(our_load.calls_per_cpu_s[1:], their_load.calls_per_cpu_s[1:], strict=True))
    peer = "bare grpc.aio echo"
    return [
        Comparison("register_durable", peer, f"calls per second, {CALLERS} callers", "1/s", pairs),
        Comparison("register_durable", peer, f"calls per server CPU second, {CALLERS} callers", "1/s", per_cpu),
    ]


class Load:
    """Rounds of registrations at one server; `calls_per_cpu_s` has a figure for each, the warm-up included."""

    def __init__(self, server: Running, ids: Iterator[int], round_s: float) -> None:
        self.calls_per_cpu_s: list[float] = []
        self._server, self._ids, self._round_s = server, ids, round_s

    async def calls_per_s(self) -> float:
        """Registers new agents from all callers for one round."""
        async with connected(self._server.address) as connection:
            await connection.call(METHOD, request(next(self._ids)))  # the connection is not part of it
            before_s, started_s = cpu_s(self._server.pid), time.perf_counter()
            until_s = started_s + self._round_s
            done = sum(await asyncio.gather(*(caller(connection, self._ids, until_s) for _ in range(CALLERS))))
            seconds = time.perf_counter() - started_s
            self.calls_per_cpu_s.append(done / cpu_since_s(self._server.pid, before_s))
            return done / seconds


async def caller(connection: Connection, ids: Iterator[int], until_s: float) -> int:
    """One caller; returns how many it registered."""
    done = 0
    while time.perf_counter() < until_s:
        await connection.call(METHOD, request(next(ids)))
        done += 1
    return done


def request(number: int) -> bytes:
    """A registration nobody made before, under a lease that outlasts the benchmark."""
    made = messages.RegisterAgentRequest(parent="namespaces/bench", agent_id=f"a{number}")
    made.ttl.FromSeconds(3600)
    return made.SerializeToString()
