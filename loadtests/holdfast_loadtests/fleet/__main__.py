"""`python -m holdfast_loadtests.fleet agents|callers`: the processes of a fleet. Both end by SIGTERM."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import click
from prometheus_client import CollectorRegistry, start_http_server

from holdfast.client import Client
from holdfast_loadtests.fleet.agents import CAPABILITY, Agents, Habits
from holdfast_loadtests.fleet.callers import Callers, Wishes
from holdfast_loadtests.fleet.guarded import GuardedResource
from holdfast_loadtests.fleet.history import Recorder

_COME_UP_WITHIN_S = 30.0
"""For agents to be there before callers ask for them."""


@click.group()
def fleet() -> None:
    """Agents that work and vote, and callers who have them do so."""


@fleet.command()
@click.option("--target", required=True, metavar="HOST:PORT", help="The service.")
@click.option("--http", required=True, metavar="HOST:PORT", help="Where to serve metrics, once all are registered.")
@click.option("--history", type=click.Path(path_type=Path), help="Folder for the history; none is kept without.")
@click.option(
    "--resource", type=click.Path(path_type=Path), help="Folder of what their work writes to under its fence."
)
@click.option("--name", default="agent", help="Their ids are NAME-0 and so on.")
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--seed", default="0", help="Of every choice they make.")
@click.option(
    "--ttl", default=6.0, show_default=True, type=click.FloatRange(1), help="TTL of their leases, in seconds."
)
@click.option("--slots", default=2, show_default=True, type=click.IntRange(1), help="Pieces of work at a time, each.")
@click.option(
    "--failing", default=0.02, show_default=True, type=click.FloatRange(0, 1), help="Share of work that fails."
)
def agents(
    target: str,
    http: str,
    history: Path | None,
    resource: Path | None,
    name: str,
    count: int,
    seed: str,
    ttl: float,
    slots: int,
    failing: float,
) -> None:
    """Agents that register, take work, vote, and begin anew whenever their session is lost."""

    async def run(stop: asyncio.Event) -> None:
        async with Client(target) as client:
            with Recorder(history, name) as recorder:
                living = Agents(
                    client,
                    [f"{name}-{index}" for index in range(count)],
                    Habits(ttl_s=ttl, slots=slots, failed=failing),
                    Random(seed),
                    recorder,
                    GuardedResource(resource) if resource else None,
                )
                life = asyncio.create_task(living.live())
                await _first(life, living.all_registered.wait())
                _serve(http, CollectorRegistry())
                await _first(life, stop.wait())
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)

    asyncio.run(_until_told(run))


@fleet.command()
@click.option("--target", required=True, metavar="HOST:PORT", help="The service.")
@click.option("--http", required=True, metavar="HOST:PORT", help="Where to serve metrics.")
@click.option("--history", type=click.Path(path_type=Path), help="Folder for the history; none is kept without.")
@click.option("--name", default="callers", help="Of the process.")
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many callers.")
@click.option("--seed", default="0", help="Of every choice they make.")
@click.option("--agents", "wanted", default=1, type=click.IntRange(1), help="Agents to wait for before asking.")
@click.option("--attempts", default=3, show_default=True, type=click.IntRange(1, 100), help="Of each activation.")
@click.option("--activations", default=2.0, show_default=True, type=click.FloatRange(0), help="A second, each.")
@click.option("--decisions", default=0.25, show_default=True, type=click.FloatRange(0), help="A second, each.")
def callers(
    target: str,
    http: str,
    history: Path | None,
    name: str,
    count: int,
    seed: str,
    wanted: int,
    attempts: int,
    activations: float,
    decisions: float,
) -> None:
    """Callers that ask for work and for decisions, and wait until each has ended; so they do when told to stop."""

    async def run(stop: asyncio.Event) -> None:
        async with Client(target) as client:
            async with asyncio.timeout(_COME_UP_WITHIN_S):
                # The service is asked again and again: nothing tells this process.
                while len([each async for each in client.agents.list(f"capabilities:{CAPABILITY}")]) < wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            wishes = Wishes(attempts=attempts, activations_rate=activations, decisions_rate=decisions)
            with Recorder(history, name) as recorder:
                asking = Callers(client, count, wishes, Random(seed), recorder)
                _serve(http, asking.metrics.registry)
                await asking.ask(stop)

    asyncio.run(_until_told(run))


async def _until_told(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(stop)


async def _first(life: asyncio.Task[None], waited: Coroutine[Any, Any, Any]) -> None:
    """Waits, unless the life ends before: then raises why."""
    waiting = asyncio.create_task(waited)
    await asyncio.wait([life, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if life.done():
        life.result()


def _serve(address: str, registry: CollectorRegistry) -> None:
    host, _, port = address.rpartition(":")
    start_http_server(int(port), host, registry)


if __name__ == "__main__":
    fleet()
