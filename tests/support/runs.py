"""Running `holdfast run` as a user would: the command, in a process of its own, with a bundle to look into."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHORT = ROOT / "tests" / "e2e" / "experiments" / "short.yaml"
TIMEOUT_S = 240


@dataclass(frozen=True)
class Run:
    """A finished run."""

    exit_code: int
    output: str
    out: Path

    @cached_property
    def verdict(self) -> dict[str, Any]:
        return json.loads((self.out / "verdict.json").read_text())

    @property
    def codes(self) -> set[str]:
        return {reason["code"] for reason in self.verdict["reasons"]}

    def subjects(self, code: str) -> set[str]:
        return {reason["subject"] for reason in self.verdict["reasons"] if reason["code"] == code}


def environment(state: Path) -> dict[str, str]:
    """The tests' environment with a register of runs of its own."""
    return {**os.environ, "XDG_STATE_HOME": str(state)}


def command(experiment: Path | str, out: Path, *sets: str) -> list[str]:
    flags = [part for value in sets for part in ("--set", value)]
    return [sys.executable, "-m", "holdfast", "run", str(experiment), "--out", str(out), *flags]


def run(experiment: Path | str, tmp_path: Path, *sets: str) -> Run:
    out = tmp_path / "bundle"
    done = subprocess.run(
        command(experiment, out, *sets),
        capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(tmp_path / "state"), cwd=tmp_path,
    )  # fmt: skip
    return Run(done.returncode, done.stdout + done.stderr, out)
