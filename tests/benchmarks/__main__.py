"""`make bench`: every benchmark, one JSON line each on stdout; progress on stderr. `--short` tries them out."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import (
    coordination,
    fleet_100k,
    fleet_bringup,
    http2_codec,
    keepalive,
    load_cpu,
    load_memory,
    omission,
    register_durable,
    restart,
    watch_fanout,
)
from benchmarks.rounds import Comparison, Figure

Run = Callable[[], Awaitable[Sequence[Comparison | Figure]]]

KNOWN: dict[str, tuple[Run, Run]] = {
    "register_durable": (register_durable.run, lambda: register_durable.run(rounds=2, round_s=0.2)),
    "fleet_bringup": (fleet_bringup.run, lambda: fleet_bringup.run(rounds=2, agents=200, watchers=3)),
    "keepalive": (keepalive.run, lambda: keepalive.run(rounds=2, round_s=0.2, leases=50)),
    "watch_fanout": (watch_fanout.run, lambda: watch_fanout.run(rounds=2, watchers=20, events=5)),
    "restart": (restart.run, lambda: restart.run(rounds=2, agents=500)),
    "coordination": (coordination.run, lambda: coordination.run(rounds=2, round_s=0.2)),
    "http2_codec": (http2_codec.run, lambda: http2_codec.run(rounds=2, calls=200)),
    "load_cpu": (load_cpu.run, lambda: load_cpu.run(rounds=2, round_s=1, rate=200)),
    "load_memory": (load_memory.run, lambda: load_memory.run(run_s=6, rate=0)),
    "omission": (omission.run, lambda: omission.run(rounds=1, run_s=12, frozen_s=2)),
    "fleet_100k": (fleet_100k.run, lambda: fleet_100k.run(agents=5000, calls=5, watchers=3)),
}
"""Each as it is meant, and as short as it can be: figures of the short form say nothing."""

SHORT = "--short"


async def main(arguments: list[str]) -> None:
    """Runs the benchmarks named, all unless told."""
    names = [each for each in arguments if each != SHORT]
    unknown = sorted(set(names) - set(KNOWN))
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(KNOWN)}.")
    for name in names or KNOWN:
        for line in await KNOWN[name][SHORT in arguments]():
            sys.stdout.write(line.as_json() + "\n")
            sys.stdout.flush()


asyncio.run(main(sys.argv[1:]))
