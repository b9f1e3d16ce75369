"""Simulations: no seed shows what a registry that keeps its promises could not show, and everything is reached."""

import asyncio
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from holdfast.leases import LeaseKeeper
from holdfast.replicas import Replicas
from holdfast.service.drainer import Drainer
from holdfast.service.janitor import Janitor
from holdfast.view import View
from simulation import loop
from simulation.coverage import Coverage
from simulation.node import Clocks, Node
from simulation.world import simulate
from support.checkers import report
from support.history import History, ServerMark
from support.planted import BUGS

SEEDS = 2000
"""Seeds simulated by every run of the suite."""

SEEDS_TOGETHER = 100
"""Seeds of one test; together they must reach everything."""

OPERATIONS_MIN = 200
"""Fewest calls of a seed."""

PLANTED_SEEDS_MAX = 60
"""Seeds within which a planted bug must be caught."""

TESTS = Path(__file__).parents[1]


def replay(seed: int) -> str:
    """The command that shows a seed again."""
    return f"scripts/simulate --seed {seed}"


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_TOGETHER))
def test_no_seed_breaks_a_promise_and_together_they_reach_everything(first: int) -> None:
    """Every hundred seeds pass every transition and every failpoint, and no checker objects."""
    coverage = Coverage()
    for seed in range(first, first + SEEDS_TOGETHER):
        outcome = simulate(seed, coverage)
        assert not outcome.violations, f"{replay(seed)}: {report(outcome.violations)}"
        assert not outcome.defects, f"{replay(seed)}: {outcome.defects}"
        assert outcome.operations >= OPERATIONS_MIN, replay(seed)
    assert not coverage.missing(), f"seeds {first}… never reached {coverage.missing()}"


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught_by_the_invariant_it_breaks(name: str) -> None:
    """Some seed of few shows it, by the checker of that invariant, and the same seed without the bug shows nothing."""
    plant, invariant = BUGS[name]
    seen: set[str] = set()
    for seed in range(PLANTED_SEEDS_MAX):
        with plant():
            outcome = simulate(seed)
        found = {violation.invariant for violation in outcome.violations}
        seen |= found
        if invariant in found:
            assert not simulate(seed).violations, f"{replay(seed)} without the bug"
            return
    pytest.fail(f"{name} was not caught by {invariant} in {PLANTED_SEEDS_MAX} seeds, only by {sorted(seen)}")


@pytest.mark.parametrize(
    ("name", "owner", "step"),
    [
        ("view", View, "apply"),
        ("replicas", Replicas, "make_round"),
        ("lease keeper", LeaseKeeper, "look"),
        ("janitor", Janitor, "make_round"),
        ("drainer", Drainer, "make_round"),
    ],
)
def test_a_part_of_a_node_that_fails_is_a_defect_and_ends_the_node(name: str, owner: type, step: str) -> None:
    """As a part that fails ends the server; nothing serves on with a view that stands still."""
    whole, calls = getattr(owner, step), itertools.count()

    def failing_once(*args: Any) -> Any:
        if next(calls) == 5:
            raise LookupError("planted")
        return whole(*args)

    with patch.object(owner, step, failing_once):
        outcome = simulate(1)
    assert [defect for defect in outcome.defects if f"the {name} of n" in defect], outcome.defects
    node = outcome.defects[0].rpartition(" of ")[2].split()[0]
    assert node in {
        event.process for event in outcome.events if isinstance(event, ServerMark) and event.what == "killed"
    }


def test_a_node_that_is_killed_takes_everything_with_it_that_its_code_began() -> None:
    """As a process does: what is left pending would be found by the garbage collector, at any time, in any seed."""

    async def scene() -> asyncio.Task[None]:
        node = Node("n1", random.Random(0), Clocks(0, 1, 0, 1), History(lambda: 0.0), retain_revisions=10)
        begun: list[asyncio.Task[None]] = []

        async def handle() -> None:
            begun.append(asyncio.create_task(asyncio.sleep(1000)))

        node.is_up = True
        await node.spawn(handle())
        node.kill()
        await asyncio.wait(begun)
        assert asyncio.get_running_loop().time() < 1
        return begun[0]

    assert loop.run(scene()).cancelled()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_same_seed_gives_the_same_history(seed: int, tmp_path: Path) -> None:
    """Byte for byte, also when it is replayed by another process, with another order of sets."""
    here, there = simulate(seed).text, tmp_path / "history.jsonl"
    command = [sys.executable, "-m", "simulation", "--seed", str(seed), "--history", str(there)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "PYTHONHASHSEED": str(seed + 1)}
    subprocess.run(command, env=env, check=True)
    assert here == simulate(seed).text
    assert here == there.read_text()
    assert here != simulate(seed + 2).text
