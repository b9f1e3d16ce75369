"""`fleet_100k`: what it takes to register, list, filter, match and watch 100 000 agents.

There is no peer: these are figures, not ratios.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import quantiles

from google.protobuf.message import Message

from benchmarks.fleet_bringup import BATCH, SERVICE, Seeing, events_of_ours, requests_for
from benchmarks.frames import Connection, connected
from benchmarks.processes import pin, resident_bytes, start_ours
from benchmarks.rounds import Figure
from holdfast.registry.v1 import agent_registry_service_pb2 as messages

AGENTS = 100_000
CALLS = 50
WATCHERS = 20
PARENT = "namespaces/fleet"
PAGE = 1000

FILTER = 'labels.team = "team-7" AND tier = AGENT_TIER_4_DOMAIN'
"""One agent in twenty."""


async def run(agents: int = AGENTS, calls: int = CALLS, watchers: int = WATCHERS) -> list[Figure]:
    """One server with all agents, asked one call after the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        server = start_ours(stack, folder)
        empty_bytes = resident_bytes(server.pid)
        async with connected(server.address) as connection:
            seconds, latencies = await register(connection, agents)
            figures = [_figure("registered, all", "s", seconds, 1)]
            figures += _quantiles(f"registered, each batch of {BATCH}", latencies)
            taken_bytes = resident_bytes(server.pid) - empty_bytes
            figures.append(_figure("memory per agent", "B", taken_bytes / agents, 1))
            for what, requests in _reads(agents):
                figures += _quantiles(what, [await _timed(ask(connection, *next(requests))) for _ in range(calls)])
            for what, only, there in (("listed", "", agents), ("filtered, one in twenty", FILTER, agents // 20)):
                seconds = await _timed(list_all(connection, only, there))
                figures.append(_figure(f"{what}, all pages of {PAGE}", "s", seconds, 1))
            figures.append(_figure("watched, the snapshot", "s", await snapshot_s(connection, agents), 1))
            figures += _quantiles(f"watched, a change seen by {watchers}", await changes_s(connection, calls, watchers))
    return figures


async def register(connection: Connection, agents: int) -> tuple[float, list[float]]:
    """Seconds for all, and for each batch."""
    latencies: list[float] = []
    started_s = time.perf_counter()
    for first in range(0, agents, BATCH):
        requests = requests_for(PARENT, range(first, min(first + BATCH, agents)))
        batch = messages.BatchRegisterAgentsRequest(parent=PARENT, requests=requests)
        latencies.append(await _timed(ask(connection, "BatchRegisterAgents", batch)))
    return time.perf_counter() - started_s, latencies


def _reads(agents: int) -> Iterator[tuple[str, Iterator[tuple[str, Message]]]]:
    numbers = count()

    def each(method: str, make: Callable[[int], Message]) -> Iterator[tuple[str, Message]]:
        return ((method, make(number)) for number in numbers)

    name = f"{PARENT}/agents/agent-%06d"
    yield "got, one", each("GetAgent", lambda number: messages.GetAgentRequest(name=name % (number * 7919 % agents)))
    yield (
        f"filtered, the first page of {PAGE}",
        each("ListAgents", lambda _: messages.ListAgentsRequest(parent=PARENT, filter=FILTER, page_size=PAGE)),
    )
    yield (
        "matched, one capability of fifty, the best ten",
        each(
            "MatchAgents",
            lambda number: messages.MatchAgentsRequest(
                parent=PARENT, all_of=[f"capability-{number % 50}"], page_size=10
            ),
        ),
    )
    yield (
        "matched, anybody, the best ten",
        each("MatchAgents", lambda _: messages.MatchAgentsRequest(parent=PARENT, page_size=10)),
    )


async def ask(connection: Connection, method: str, request: Message) -> bytes:
    """One unary call."""
    return await connection.call(f"{SERVICE}/{method}", request.SerializeToString())


async def list_all(connection: Connection, only: str, there: int) -> None:
    """Reads all pages, which have as many agents as there are."""
    found, request = 0, messages.ListAgentsRequest(parent=PARENT, filter=only, page_size=PAGE)
    while True:
        answer = messages.ListAgentsResponse.FromString(await ask(connection, "ListAgents", request))
        found += len(answer.agents)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert found == there, f"{found} agents were listed, and {there} are there"


async def snapshot_s(connection: Connection, agents: int) -> float:
    """Seconds until a new watch has told of all agents."""
    asked = messages.WatchAgentsRequest(parent=PARENT).SerializeToString()
    started_s = time.perf_counter()
    watch = Seeing(connection, f"{SERVICE}/WatchAgents", asked, agents, events_of_ours, first_counts=True)
    await watch.seen_all
    return time.perf_counter() - started_s


async def changes_s(connection: Connection, changes: int, watchers: int) -> list[float]:
    """Seconds from a registration's call until the last of the watchers has its event, for each."""
    asked = messages.WatchAgentsRequest(parent=PARENT, filter='display_name = "new"').SerializeToString()
    seconds: list[float] = []
    for number in range(changes):
        seeing = [Seeing(connection, f"{SERVICE}/WatchAgents", asked, 1, events_of_ours) for _ in range(watchers)]
        await asyncio.gather(*(each.begun for each in seeing))
        request = messages.RegisterAgentRequest(parent=PARENT, agent_id=f"new-{number}")
        request.agent.display_name = "new"
        started_s = time.perf_counter()
        await ask(connection, "RegisterAgent", request)
        await asyncio.gather(*(each.seen_all for each in seeing))
        seconds.append(time.perf_counter() - started_s)
    return seconds


async def _timed(work: Awaitable[object]) -> float:
    started_s = time.perf_counter()
    await work
    return time.perf_counter() - started_s


def _figure(metric: str, unit: str, value: float, rounds: int) -> Figure:
    return Figure("fleet_100k", metric, unit, value, rounds)


def _quantiles(what: str, seconds: list[float]) -> list[Figure]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return [
        _figure(f"{what}, {label}", "ms", 1000 * value, len(seconds))
        for label, value in (("p50", cuts[49]), ("p99", cuts[98]))
    ]
