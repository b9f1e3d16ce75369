"""Replays seeds of tests/simulation, and can keep their histories.

scripts/simulate --seed 7                      judge seed 7 again
scripts/simulate --seed 7 --history h.jsonl    and write down everything that clients saw
scripts/simulate --seed 0 --count 5000         many seeds; stops at the first that is not clean
scripts/simulate --seed 7 --planted NAME       with one of the bugs of tests/support/planted.py
"""

import argparse
import contextlib
import logging
import sys
from pathlib import Path

import structlog

from simulation.coverage import Coverage
from simulation.world import simulate
from support.checkers import report
from support.planted import BUGS


def main() -> int:
    """0 if every seed is clean, 1 if one is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="the first seed")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many seeds (default 1)")
    parser.add_argument("--history", type=Path, metavar="FILE", help="write the last history to FILE, as lines of JSON")
    parser.add_argument("--planted", choices=sorted(BUGS), metavar="NAME", help="with a bug")
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    coverage = Coverage()
    with BUGS[args.planted][0]() if args.planted else contextlib.nullcontext():
        for seed in range(args.seed, args.seed + args.count):
            outcome = simulate(seed, coverage)
            if args.history:
                args.history.write_text(outcome.text)
            if outcome.violations or outcome.defects:
                _say(f"seed {seed}: {report(outcome.violations)}", *outcome.defects)
                return 1
    _say(f"{args.count} seeds from {args.seed}: no violations; never reached: {coverage.missing() or 'nothing'}")
    return 0


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
