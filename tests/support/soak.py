"""The long form of the crash tests: kills over and over, in rounds on a store each, until the time is up.

    scripts/soak --minutes 30
    scripts/soak --judge out/soak/7-discarding/store/history.jsonl

Exits with 1 if anything was violated; what a violated round left is kept.
"""

import asyncio
import random
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click

from holdfast.failpoints import Failpoint
from support import history as histories
from support.checkers import check, report
from support.crash import LIMITS, CrashRun, build_shim, discarding

HITS_MAX = 300
"""The latest hit at which a server is killed."""

RARE_HITS_MAX = 5
"""The same for places that are passed a few times a second."""

RARE = ("checkpoint", "expiry")
"""What those have in their names."""

LIFE_S_MAX = 5.0
"""Longest life of a server that is killed at any moment."""

RANDOM_KILLS = 4
"""Kills at any moment in each round, beside one at each failpoint."""

RETAINED = 150
"""Revisions kept in compacting rounds: fewer than a life has, so that who resumes is sometimes too late."""

KINDS = ("plain", "discarding", "compacting", "bulk")
"""What is different from round to round; see `_new_run`."""


@dataclass
class Sums:
    """What all rounds came to."""

    rounds: int = 0
    cycles: int = 0
    acknowledged: int = 0
    events: int = 0
    undone: int = 0
    violations: int = 0
    broken: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.cycles} kills, {self.acknowledged} operations acknowledged, "
            f"{self.events} events judged, {self.undone} unsynced writes discarded, {self.violations} violations, "
            f"{self.broken} rounds broken off"
        )


async def soak(minutes: float, seed: int, out: Path) -> Sums:
    """Rounds in the folder `out` until the time is up, at least one."""
    shim, sums, ends_s = build_shim("discard_unsynced", out), Sums(), time.monotonic() + minutes * 60
    while not sums.rounds or time.monotonic() < ends_s:
        kind = KINDS[sums.rounds % len(KINDS)]
        folder = out / f"{seed + sums.rounds}-{kind}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        run = _new_run(kind, folder, seed + sums.rounds, shim)
        if await _round(run, sums):
            shutil.rmtree(folder)
        left_s = max(0.0, ends_s - time.monotonic())
        click.echo(f"{left_s / 60:5.1f} min left, seed {run.seed} {kind}: {sums}")
    return sums


def _new_run(kind: str, folder: Path, seed: int, shim: Path) -> CrashRun:
    match kind:
        case "discarding":
            return discarding(folder, seed, shim)
        case "compacting":
            limits = replace(LIMITS, retain_revisions=RETAINED)
            return CrashRun(folder, seed, args=("--retain-revisions", str(RETAINED)), limits=limits)
        case _:
            return CrashRun(folder, seed, bulk=kind == "bulk")


async def _round(run: CrashRun, sums: Sums) -> bool:
    """One store's kills and their verdict; whether all was well."""
    sums.rounds += 1
    try:
        for point in _kills(run.rng):
            sums.cycles += 1
            if point is None:
                await run.die_after(run.rng.uniform(0, LIFE_S_MAX))
            else:
                is_rare = any(each in point for each in RARE)
                await run.die_at(point, run.rng.randint(1, RARE_HITS_MAX if is_rare else HITS_MAX))
        violations = await run.finish()
    except (AssertionError, TimeoutError) as error:
        sums.broken += 1
        history = run.folder / "history.jsonl"
        histories.save(run.history.events, history)
        click.echo(f"BROKEN OFF after {run.how_last}: {error!r}; {history}")
        return False
    sums.acknowledged += run.acknowledged
    sums.events += len(run.history.events)
    sums.undone += run.undone
    sums.violations += len(violations)
    if violations:
        click.echo(f"VIOLATED {run.explain(violations)}")
    return not violations


def _kills(rng: random.Random) -> list[Failpoint | None]:
    """Every failpoint once and some moments at random, in any order."""
    kills: list[Failpoint | None] = [*Failpoint, *[None] * RANDOM_KILLS]
    rng.shuffle(kills)
    return kills


def _judge(path: Path, retained: int) -> int:
    """Judges a history that was kept; the exit code."""
    violations = check(histories.load(path), replace(LIMITS, retain_revisions=retained))
    click.echo(report(violations))
    return 1 if violations else 0


@click.command()
@click.option("--minutes", type=click.FloatRange(0, 10_000), default=30.0, show_default=True, help="How long.")
@click.option(
    "--seed", type=int, default=lambda: time.time_ns() % 1_000_000, help="Of the first round; any if not set."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/soak", show_default=True, help="For violated rounds."
)
@click.option("--judge", type=click.Path(path_type=Path), help="Judge this history again, and do nothing else.")
@click.option(
    "--retained",
    type=int,
    default=LIMITS.retain_revisions,
    show_default=True,
    help="Revisions that the server of this history kept.",
)
def main(minutes: float, seed: int, out: Path, judge: Path | None, retained: int) -> None:
    """Kill a real server over and over, and judge what its clients saw."""
    if judge is not None:
        sys.exit(_judge(judge, retained))
    out.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    sums = asyncio.run(soak(minutes, seed, out.resolve()))
    click.echo(f"soak: {(time.monotonic() - started_s) / 60:.1f} min from seed {seed}: {sums}")
    sys.exit(1 if sums.violations or sums.broken else 0)


if __name__ == "__main__":
    main()
