"""Simulations of work: X1 to X5, H1, H2 and the breaker hold, whatever goes wrong, and bugs are noticed by them."""

import logging

import pytest
import structlog

from holdfast.core.activations.entry import state_name
from simulation.working import TRANSITIONS, simulate
from support.checkers import report
from support.planted_work import PLANTED_WORK

SEEDS = 300
"""Seeds simulated by every run of the suite."""

SEEDS_TOGETHER = 50
"""Seeds of one test; together they must show every transition."""

OPERATIONS_MIN = 200
"""Fewest calls of a seed."""

PLANTED_SEEDS_MAX = 40
"""Seeds within which a planted bug must be caught."""


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Troubles by the thousand are told to nobody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def replay(seed: int) -> str:
    """How a seed is seen again."""
    return f"simulation.working.simulate({seed})"


@pytest.mark.timeout(900)  # some 45 s on a machine that has nothing else to do
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_TOGETHER))
def test_no_seed_breaks_a_promise_about_work(first: int) -> None:
    """And together they show every transition there is."""
    reached: set[tuple[int, int]] = set()
    for seed in range(first, first + SEEDS_TOGETHER):
        outcome = simulate(seed)
        reached |= outcome.reached
        assert not outcome.violations, f"{replay(seed)}: {report(outcome.violations)}"
        assert not outcome.defects, f"{replay(seed)}: {outcome.defects}"
        assert outcome.operations >= OPERATIONS_MIN, replay(seed)
    missing = [f"{state_name(before)} → {state_name(after)}" for before, after in TRANSITIONS - reached]  # type: ignore[arg-type]
    assert not missing, f"seeds {first}… never showed {missing}"


@pytest.mark.parametrize("name", PLANTED_WORK)
def test_a_planted_bug_is_caught_by_the_invariant_it_breaks(name: str) -> None:
    """Some seed of few shows it, and the same seed without the bug shows nothing."""
    plant, invariant = PLANTED_WORK[name]
    seen: set[str] = set()
    for seed in range(PLANTED_SEEDS_MAX):
        with plant():
            found = {violation.invariant for violation in simulate(seed).violations}
        seen |= found
        if invariant in found:
            assert not simulate(seed).violations, f"{replay(seed)} without the bug"
            return
    pytest.fail(f"{name} was not caught by {invariant} in {PLANTED_SEEDS_MAX} seeds, only by {sorted(seen)}")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    first = simulate(seed).text
    assert first == simulate(seed).text
    assert first != simulate(seed + 2).text
