"""The checkers' teeth, in real processes: each bug planted in the server is caught by the invariant that it breaks."""

from pathlib import Path

import pytest

from holdfast.failpoints import Failpoint
from support.crash import CrashRun, discarding
from support.planted import PLANTED

SEED = 7_000
CYCLES = 3
"""Kills in each run; most bugs show only after one."""

LIFE_S = 0.8
"""Life of each server. The shortest leases run out in the last one, which lasts longer."""


async def crashed(folder: Path, shim: Path, *program: str) -> CrashRun:
    """A run with kills, each of which discards what was not synced."""
    run = discarding(folder, SEED, shim, program=program)
    for _ in range(CYCLES):
        await run.die_after(LIFE_S)
    return run


@pytest.mark.parametrize("bug", PLANTED)
async def test_a_planted_bug_is_caught_by_the_invariant_it_breaks(bug: str, tmp_path: Path, shim: Path) -> None:
    """By its name, from what clients saw alone."""
    run = await crashed(tmp_path, shim, "-m", "support.planted", bug)
    violations = await run.finish()
    caught = {violation.invariant for violation in violations}
    assert PLANTED[bug][1] in caught, f"{bug} is not caught: {run.explain(violations)}"


async def test_without_a_bug_nothing_is_caught(tmp_path: Path, shim: Path) -> None:
    """The twin: the same run of the server as it is. All that was not synced is discarded, as in a power cut."""
    run = await crashed(tmp_path, shim, "-m", "holdfast")
    await run.die_at(Failpoint.AFTER_COMMIT, 40)
    await run.die_at(Failpoint.AFTER_CHECKPOINT, 1)
    assert run.undone > 0, "nothing was discarded; that the log was cut is never synced, so the shim is not in the way"
    violations = await run.finish()
    assert not violations, run.explain(violations)


async def test_syncs_that_are_a_lie_are_seen(tmp_path: Path, shim: Path) -> None:
    """Where the disk only claims to have synced, a sound server loses what it acknowledged, and that is noticed."""
    run = discarding(tmp_path, SEED, shim, env={"UNSYNCED_LIE": "1"})
    for _ in range(2):
        await run.die_after(LIFE_S)
    assert "S2" in {violation.invariant for violation in await run.finish()}
