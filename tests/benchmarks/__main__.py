"""`make bench`: every benchmark, one JSON line each on stdout; progress on stderr."""

import asyncio
import sys

from benchmarks import register_durable


def main(names: list[str]) -> None:
    """Runs the benchmarks named, all unless told."""
    known = {"register_durable": register_durable.run}
    for name in names or known:
        sys.stdout.write(asyncio.run(known[name]()).as_json() + "\n")
        sys.stdout.flush()


main(sys.argv[1:])
