"""`load_cpu`: CPU time of the load generator for each unary empty call of grpc-go's interop server, on one connection.

At a rate that all but Locust can make, and as fast as calls are answered. The peers are two ghz, between which its cost
doubled, and Locust with its usual gRPC recipe. Starting up counts for nobody.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.loaders import GHZ, USERS, Took, load_ghz, load_locust, load_ours, start_server
from benchmarks.processes import pin
from benchmarks.rounds import ROUNDS, Comparison

NAME = "load_cpu"
RATE = 8_000
ROUND_S = 2.0
LOCUST = "Locust, its usual gRPC recipe"

Loader = Callable[[], Took]


async def run(rounds: int = ROUNDS, round_s: float = ROUND_S, rate: int = RATE) -> list[Comparison]:
    """The server on one core, the generators in turn on the other."""
    return await asyncio.to_thread(_run, rounds, round_s, rate)


def _run(rounds: int, round_s: float, rate: int) -> list[Comparison]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = start_server(stack, folder).address
        pin(os.getpid(), -1)
        start_s = {tool: min(load_ghz(tool, address, 1, calls=1).cpu_s for _ in range(5)) for tool in GHZ}

        def ghz(tool: str, rate: int) -> Loader:
            def load() -> Took:
                took = load_ghz(tool, address, round_s, rate, calls=round(rate * round_s))
                return Took(took.calls, took.cpu_s - start_s[tool], took.p99_s)

            return load

        lines = []
        for what, at in ((f"at {rate}/s", rate), (f"saturated, {USERS} at a time", 0)):
            peers: dict[str, Loader] = {peer: ghz(tool, at) for tool, peer in GHZ.items()}
            if not at:
                peers[LOCUST] = lambda: load_locust(address, round_s)
            ours, theirs = _in_turn(lambda at=at: load_ours(address, round_s, at), peers, rounds)  # type: ignore[misc]
            metric = f"CPU per call, {what}"
            lines += [
                Comparison(NAME, peer, metric, "µs", _pairs(ours, took), is_cost=True) for peer, took in theirs.items()
            ]
        return lines


def _in_turn(ours: Loader, peers: dict[str, Loader], rounds: int) -> tuple[list[Took], dict[str, list[Took]]]:
    """All of them once a round, one further on going first each time."""
    loaders = {"": ours, **peers}
    found: dict[str, list[Took]] = {name: [] for name in loaders}
    order = list(loaders)
    for number in range(rounds):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            found[name].append(loaders[name]())
        costs = ", ".join(f"{name or 'ours'} {took[-1].us_per_call:.1f}" for name, took in found.items())
        sys.stderr.write(f"\rround {number + 1}/{rounds}: {costs} µs   ")
    sys.stderr.write("\n")
    return found.pop(""), found


def _pairs(ours: list[Took], theirs: list[Took]) -> list[tuple[float, float]]:
    return [(one.us_per_call, other.us_per_call) for one, other in zip(ours, theirs, strict=True)]
