"""coordination-under-fire again and again, each time under another seed, until the time is up.

    scripts/soak-fire --minutes 20
    scripts/soak-fire --minutes 5 --seed 11 --set faults.agents-die.kill.share=0.5

Seeds choose whom faults hit, and everything that agents and callers choose. Ends with 1 if any run broke a promise or
missed an objective, else with 2 if any could not be judged; bundles of those runs are kept, and named.
"""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

EXPERIMENT = "coordination-under-fire"

RUN_S_MAX = 600.0
"""Longest time of one run; one that hangs is a failure, too."""


@dataclass
class Sums:
    """What all runs came to. `events` are objectives' good ones and all of them, by objective."""

    runs: int = 0
    faults: int = 0
    proven: int = 0
    violations: int = 0
    events: dict[str, list[int]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter[str])
    failed: dict[int, int] = field(default_factory=dict)
    """Exit codes of the runs that did not pass, by seed."""

    def add(self, verdict: Mapping[str, Any]) -> None:
        """Counts a run's verdict in."""
        self.faults += len(verdict["faults"])
        self.proven += sum(found["verdict"] == "EFFECTIVE" for found in verdict["faults"])
        self.violations += sum(len(check["violations"]) for check in verdict["checks"])
        for check in verdict["checks"]:
            count, _, what = check["detail"].partition(" ")
            self.seen[what] += int(count) if count.isdecimal() else 0
        for objective in verdict["objectives"]:
            sums = self.events.setdefault(objective["name"], [0, 0])
            sums[0] += objective["good"]
            sums[1] += objective["total"]

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {len(self.failed)} not passed; {self.proven} of {self.faults} faults proven; "
            f"{self.violations} violations"
        )

    def figures(self) -> list[str]:
        """What was judged, and each objective over all runs, for people."""
        shares = [f"{name} {good / total:.3%} of {total}" for name, (good, total) in self.events.items() if total]
        seen = [f"{count} {what}" for what, count in self.seen.items()]
        return [f"judged: {', '.join(seen) or 'nothing'}", f"objectives: {', '.join(shares) or 'none'}"]

    @property
    def exit_code(self) -> int:
        """0 if all passed; 1 if any failed; else 2."""
        if not self.failed:
            return 0
        return 2 if set(self.failed.values()) == {2} else 1


def soak(minutes: float, seed: int, out: Path, overrides: Sequence[str]) -> Sums:
    """Runs under one seed after the other until the time is up, at least one."""
    sums, ends_s = Sums(), time.monotonic() + minutes * 60
    while not sums.runs or time.monotonic() < ends_s:
        bundle = out / f"seed-{seed}"
        began_s = time.monotonic()
        code, said = _run(seed, bundle, overrides)
        sums.runs += 1
        found = bundle / "verdict.json"
        if found.is_file():
            sums.add(json.loads(found.read_text(encoding="utf-8")))
        took_s, left_s = time.monotonic() - began_s, max(0.0, ends_s - time.monotonic())
        if code:
            sums.failed[seed] = code
            click.echo(f"{said.strip()}\nseed {seed} ended {code}; its bundle: {bundle}")
        else:
            shutil.rmtree(bundle)
        click.echo(f"{left_s / 60:5.1f} min left, seed {seed}: exit {code} in {took_s:.0f} s; {sums}")
        seed += 1
    return sums


def _run(seed: int, bundle: Path, overrides: Sequence[str]) -> tuple[int, str]:
    """One run; its exit code, and what it said."""
    flags = [part for each in overrides for part in ("--set", each)]
    command = [sys.executable, "-m", "holdfast", "run", EXPERIMENT, "--seed", str(seed), "--out", str(bundle), *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"it was still going on after {RUN_S_MAX:g} s"
    return done.returncode, done.stdout + done.stderr


@click.command()
@click.option("--minutes", type=click.FloatRange(0, 10_000), default=20.0, show_default=True, help="How long.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=lambda: time.time_ns() % 1_000_000,
    help="Of the first run; any if not set.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/soak-fire", show_default=True, help="For runs that fail."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As in `holdfast run`.")
def main(minutes: float, seed: int, out: Path, overrides: tuple[str, ...]) -> None:
    """Put a fleet under fire over and over, under one seed after the other, and sum up what came of it."""
    out.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    sums = soak(minutes, seed, out.resolve(), overrides)
    click.echo(f"soak-fire: {(time.monotonic() - began_s) / 60:.1f} min from seed {seed}: {sums}")
    for line in sums.figures():
        click.echo(f"  {line}")
    for failed, code in sums.failed.items():
        click.echo(f"  seed {failed} ended {code}: {out / f'seed-{failed}'}")
    sys.exit(sums.exit_code)


if __name__ == "__main__":
    main()
