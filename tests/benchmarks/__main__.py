"""`make bench`: every benchmark, one JSON line each on stdout; progress on stderr."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from benchmarks import fleet_bringup, keepalive, register_durable, restart, watch_fanout
from benchmarks.rounds import Comparison

KNOWN: dict[str, Callable[[], Awaitable[list[Comparison]]]] = {
    "register_durable": register_durable.run,
    "fleet_bringup": fleet_bringup.run,
    "keepalive": keepalive.run,
    "watch_fanout": watch_fanout.run,
    "restart": restart.run,
}


async def main(names: list[str]) -> None:
    """Runs the benchmarks named, all unless told."""
    unknown = sorted(set(names) - set(KNOWN))
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(KNOWN)}.")
    for name in names or KNOWN:
        for comparison in await KNOWN[name]():
            sys.stdout.write(comparison.as_json() + "\n")
            sys.stdout.flush()


asyncio.run(main(sys.argv[1:]))
