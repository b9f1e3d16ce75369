"""kill -9 of a real server at every failpoint and at any moment, judged by what its clients saw."""

import random
from pathlib import Path

import pytest

from holdfast.failpoints import Failpoint
from support.crash import CrashRun

HITS_MAX = {
    Failpoint.BEFORE_CHECKPOINT: 2,  # every 4 MiB
    Failpoint.AFTER_CHECKPOINT: 2,
    Failpoint.BEFORE_EXPIRY: 3,  # leases of 1 s, looked at four times a second
    Failpoint.AFTER_EXPIRY: 3,
}
"""The latest hit at which a server is killed in these tests, where that is not `HITS_MAX_OTHERWISE`."""

HITS_MAX_OTHERWISE = 80
"""As many are passed in a fraction of a second."""

CYCLES = 5
"""Kills at each failpoint."""

RANDOM_RUNS = 2
RANDOM_CYCLES = 6
"""Kills at any moment in each of these runs."""

LIFE_S_MAX = 1.5
"""Longest life of a server that is killed at any moment: some leases have run out by then."""


@pytest.mark.parametrize("point", Failpoint)
async def test_nothing_is_broken_by_dying_at(point: Failpoint, tmp_path: Path) -> None:
    """S1-S3, W1-W7 and L1-L5 hold for clients of a server that is killed over and over at one failpoint."""
    seed = 4_000 + list(Failpoint).index(point)
    rng = random.Random(seed)
    run = CrashRun(tmp_path, seed, bulk="checkpoint" in point)
    for _ in range(CYCLES):
        await run.die_at(point, rng.randint(1, HITS_MAX.get(point, HITS_MAX_OTHERWISE)))
    violations = await run.finish()
    assert not violations, run.explain(violations)
    assert run.acknowledged >= CYCLES


@pytest.mark.parametrize("seed", range(5_000, 5_000 + RANDOM_RUNS))
async def test_nothing_is_broken_by_dying_at_any_moment(seed: int, tmp_path: Path) -> None:
    """S1-S3, W1-W7 and L1-L5 hold for clients of a server that is killed whenever it may be."""
    run = CrashRun(tmp_path, seed)
    for _ in range(RANDOM_CYCLES):
        await run.die_after(run.rng.uniform(0, LIFE_S_MAX))
    violations = await run.finish()
    assert not violations, run.explain(violations)
    assert run.acknowledged >= 100


async def test_a_failpoint_that_is_not_reached_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill counts only where the server made it: not this often do leases run out in this time."""
    monkeypatch.setattr("support.crash.REACHED_TIMEOUT_S", 2.0)
    run = CrashRun(tmp_path, seed=6_000)
    with pytest.raises(AssertionError, match="before-expiry@1000 was not reached"):
        await run.die_at(Failpoint.BEFORE_EXPIRY, 1000)
