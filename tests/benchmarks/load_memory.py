"""`load_memory`: what the load generator holds while it makes 5 000 calls a second for ten minutes, each one recorded.

There is no peer: these are figures. All that a load keeps is bounded by methods, codes, phases and buckets of latency,
so that after its first minute it should take no more.
"""

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.loaders import plan, start_server
from benchmarks.processes import resident_bytes
from benchmarks.rounds import Figure
from holdfast_loadtests.engine import LoadRun
from holdfast_loadtests.results import results_of

NAME = "load_memory"
RATE = 5_000
RUN_S = 600.0
SETTLED_AFTER = 0.1
"""Share of the time after which it should take no more: the first of ten minutes."""

LOOKS = 100
"""How often it is looked at, evenly over the time."""


async def run(run_s: float = RUN_S, rate: int = RATE) -> list[Figure]:
    """One load against grpc-go's interop server; without a rate, as fast as calls are answered."""
    return await asyncio.to_thread(_run, run_s, rate)


def _run(run_s: float, rate: int) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        load = stack.enter_context(LoadRun.start(plan(start_server(stack, folder).address, rate), folder))
        held_kb = [_resident_kb(load, run_s * look / LOOKS) for look in range(1, LOOKS + 1)]
        sys.stderr.write("\n")
        results = results_of(load.drain(), load.started_s)
    first = round(LOOKS * SETTLED_AFTER)
    since = f"{run_s * SETTLED_AFTER:g} s"
    return [
        Figure(NAME, f"calls in {run_s:g} s", "1", results.ended, 1),
        Figure(NAME, "calls without an answer, or never made", "1", results.errors, 1),
        Figure(NAME, f"memory after {since}", "kB", held_kb[first - 1], 1),
        Figure(NAME, f"memory after {since}, most", "kB", max(held_kb[first:]), LOOKS - first),
        Figure(NAME, "memory at the end", "kB", held_kb[-1], 1),
    ]


def _resident_kb(load: LoadRun, at_s: float) -> float:
    """What the generator holds at a time, in seconds since its load began."""
    time.sleep(max(at_s - load.elapsed_s, 0.0))
    held_kb = resident_bytes(load.pid) / 1000
    sys.stderr.write(f"\r{load.elapsed_s:.0f} s: {held_kb:.0f} kB   ")
    return held_kb
