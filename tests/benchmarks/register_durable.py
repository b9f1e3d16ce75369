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
from benchmarks.processes import pin, start, start_ours
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
        pairs = await alternate(
            lambda: calls_per_s(ours.address, ids, round_s), lambda: calls_per_s(theirs.address, ids, round_s), rounds
        )
    metric = f"calls per second, {CALLERS} callers"
    return [Comparison("register_durable", "bare grpc.aio echo", metric, "1/s", pairs)]


async def calls_per_s(address: str, ids: Iterator[int], round_s: float) -> float:
    """Registers new agents from all callers for one round."""
    async with connected(address) as connection:
        await connection.call(METHOD, request(next(ids)))  # the connection is not part of it
        started_s = time.perf_counter()
        done = await asyncio.gather(*(caller(connection, ids, started_s + round_s) for _ in range(CALLERS)))
        return sum(done) / (time.perf_counter() - started_s)


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
