"""`register_durable`: RegisterAgent, acknowledged when on disk, against a bare grpc.aio echo of the same messages.

Server and client are pinned to separate cores: unpinned, a saturated ratio scatters by 18 %.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import grpc
import grpc.aio

from benchmarks.rounds import Comparison, alternate
from holdfast.registry.v1 import agent_registry_service_pb2 as messages

CALLERS = 32
ROUND_S = 1.0
READY_WITHIN_S = 20.0
METHOD = "/holdfast.registry.v1.AgentRegistryService/RegisterAgent"


async def run() -> Comparison:
    """Both servers up at once, loaded in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        serve = ["-m", "holdfast", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        ours = start(stack, folder, "ours", [*serve, "--store", f"sqlite:{folder / 'h.db'}"])
        theirs = start(stack, folder, "echo", ["-m", "benchmarks.echo_server"])
        ids = count()
        pairs = await alternate(lambda: calls_per_s(ours, ids), lambda: calls_per_s(theirs, ids))
    return Comparison("register_durable", "bare grpc.aio echo", "calls per second, 32 callers", "1/s", pairs)


def start(stack: ExitStack, folder: Path, name: str, arguments: list[str]) -> str:
    """Starts a server on the first core; returns its address."""
    ready = folder / f"{name}.json"
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *arguments, "--ready-file", str(ready)], stdout=log, stderr=log)
    stack.callback(process.wait, 15)
    stack.callback(process.terminate)
    pin(process.pid, 0)
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not ready.exists():
        if time.monotonic() > deadline_s or process.poll() is not None:
            raise RuntimeError(f"{name} did not come up: {(folder / f'{name}.log').read_text()[-2000:]}")
        time.sleep(0.02)
    return str(json.loads(ready.read_text())["grpc"])


def pin(pid: int, core: int) -> None:
    """Ties a process to one core, where the system can: 0 is the first, −1 the last."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {range(os.cpu_count() or 1)[core]})


async def calls_per_s(address: str, ids: Iterator[int]) -> float:
    """Registers new agents from all callers for one round."""
    async with grpc.aio.insecure_channel(address) as channel:
        register = channel.unary_unary(
            METHOD,
            request_serializer=messages.RegisterAgentRequest.SerializeToString,
            response_deserializer=messages.RegisterAgentResponse.FromString,
        )
        await register(request(next(ids)))  # the connection is not part of it
        started_s = time.perf_counter()
        done = await asyncio.gather(*(caller(register, ids, started_s + ROUND_S) for _ in range(CALLERS)))
        return sum(done) / (time.perf_counter() - started_s)


async def caller(
    register: Callable[[messages.RegisterAgentRequest], Awaitable[object]], ids: Iterator[int], until_s: float
) -> int:
    """One caller; returns how many it registered."""
    done = 0
    while time.perf_counter() < until_s:
        await register(request(next(ids)))
        done += 1
    return done


def request(number: int) -> messages.RegisterAgentRequest:
    """A registration nobody made before, under a lease that outlasts the benchmark."""
    made = messages.RegisterAgentRequest(parent="namespaces/bench", agent_id=f"a{number}")
    made.ttl.FromSeconds(3600)
    return made
