"""`omission`: what load generators say of a server that stood still, against what arithmetic says its callers saw.

A server at a constant rate is stopped for F of T seconds. A call due s seconds before it goes on waits s seconds, and
the backlog is answered at the pace that the server has left: so the 99th percentile of all calls is
F − 0.01·T·(1 − ρ), ρ being the share of its time that the server takes to answer that rate. All generators load one
server at once, so that it is the same freeze for all. The peers' own figures stand beside ours: who waits for an answer
before the next call leaves out the calls that would have waited.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loaders import GHZ, load_ghz, load_ours, locust, start_server
from benchmarks.processes import cpu_s, pin
from benchmarks.rounds import Comparison

NAME = "omission"
ROUNDS = 3
RUN_S = 60.0
FROZEN_S = 6.0
RATE = 50
"""Of each generator, so that the server has little to do."""

PEER_USERS = 10
"""Calls that the peers make at a time: many more than that rate takes, and fewer than fall due in the freeze. With as
many as 1 % of all calls, those that were under way when it began would be the 99th percentile by themselves.
"""

LEAD_IN_S = 6.0
"""Before the freeze: all generators have started by then."""

BUSY_MAX = 0.05
"""Most that the server may have to do: with more, the figure is told but says little."""


@dataclass(frozen=True)
class Told:
    """One freeze: the p99 that arithmetic gives, and the one that each generator reports, in seconds."""

    analytic_s: float
    reported_s: dict[str, float]


async def run(rounds: int = ROUNDS, run_s: float = RUN_S, frozen_s: float = FROZEN_S) -> list[Comparison]:
    """The server on one core, the generators on the other, all at once."""
    told = [await asyncio.to_thread(_freeze, run_s, frozen_s) for _ in range(rounds)]
    metric = f"p99 reported, {frozen_s:g} s of {run_s:g} s frozen"
    return [
        Comparison(
            NAME, f"arithmetic, beside {name}", metric, "s", [(one.reported_s[name], one.analytic_s) for one in told]
        )
        for name in told[0].reported_s
    ]


def _freeze(run_s: float, frozen_s: float) -> Told:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = start_server(stack, folder)
        pin(os.getpid(), -1)
        pool = stack.enter_context(ThreadPoolExecutor())
        ours = pool.submit(load_ours, server.address, run_s, RATE)
        ghz = pool.submit(load_ghz, "ghz", server.address, run_s, RATE, round(RATE * run_s), PEER_USERS)
        command, environment = locust(server.address, run_s, folder / "found.json", RATE / PEER_USERS, PEER_USERS)
        other = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(LEAD_IN_S)
        os.kill(server.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            time.sleep(frozen_s)
        finally:
            before_s = cpu_s(server.pid)
            os.kill(server.pid, signal.SIGCONT)
            frozen_s = time.monotonic() - stopped_s
        reported_s = {"holdfast": ours.result().p99_s, GHZ["ghz"]: ghz.result().p99_s}
        other.wait(run_s + 60)
        reported_s["Locust, its usual gRPC recipe"] = float(json.loads((folder / "found.json").read_text())["p99_s"])
        busy = (cpu_s(server.pid) - before_s) / (time.monotonic() - stopped_s - frozen_s)
        if busy > BUSY_MAX:
            sys.stderr.write(f"the server was busy for {busy:.1%} of its time; the arithmetic is for {BUSY_MAX:.0%}\n")
        return Told(frozen_s - 0.01 * run_s * (1 - busy), reported_s)
