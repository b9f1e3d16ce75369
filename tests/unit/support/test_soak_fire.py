"""The soak of a fleet sums up what each run's verdict says, keeps what failed, and ends accordingly."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from support import soak_fire
from support.soak_fire import Sums

SEED = 11


def verdict(*, good: int = 990, violations: tuple[str, ...] = (), proof: str = "EFFECTIVE") -> dict[str, Any]:
    return {
        "faults": [{"verdict": proof}, {"verdict": "EFFECTIVE"}],
        "checks": [{"violations": list(violations), "detail": "100 activations completed"}],
        "objectives": [{"name": "activation-success", "good": good, "total": 1000}],
    }


def test_sums_are_over_events_and_not_over_ratios() -> None:
    """Runs count by what was seen in them, and each violation counts."""
    sums = Sums(runs=2)
    sums.add(verdict())
    sums.add(verdict(good=1000, violations=("one", "two"), proof="UNPROVEN"))
    assert str(sums) == "2 runs, 0 not passed; 3 of 4 faults proven; 2 violations"
    assert sums.figures() == ["judged: 200 activations completed", "objectives: activation-success 99.500% of 2000"]


@pytest.mark.parametrize(("failed", "code"), [({}, 0), ({1: 2}, 2), ({1: 2, 2: 1}, 1), ({1: 4}, 1)])
def test_a_run_that_failed_is_never_taken_for_a_pass(failed: dict[int, int], code: int) -> None:
    """1 once any failed, 2 if some could only not be judged."""
    assert Sums(failed=failed).exit_code == code


def test_what_does_not_pass_is_named_with_its_seed(tmp_path: Path) -> None:
    """A real command that ends otherwise than with 0 ends the soak with 1, and says where to look."""
    flags = ["--minutes", "0", "--seed", str(SEED), "--out", str(tmp_path), "--set", "no_such_key=1"]
    ended = CliRunner().invoke(soak_fire.main, flags)
    assert ended.exit_code == 1, ended.output
    assert "no_such_key" in ended.output
    assert f"seed {SEED} ended 3: {tmp_path / f'seed-{SEED}'}" in ended.output
    assert "1 runs, 1 not passed" in ended.output
