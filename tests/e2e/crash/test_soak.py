"""`make soak`: violations end it with 1 and leave what is needed to judge again."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.failpoints import Failpoint
from support import soak
from support.crash import CrashRun

SEED = 8_000


def soaked(out: Path, monkeypatch: pytest.MonkeyPatch, *program: str) -> Result:
    """One short round of a server."""

    def two_kills(_rng: random.Random) -> list[Failpoint | None]:
        return [Failpoint.AFTER_COMMIT, None]

    def run_of_program(_kind: str, folder: Path, seed: int, _shim: Path) -> CrashRun:
        return CrashRun(folder, seed, program=program)

    monkeypatch.setattr(soak, "_kills", two_kills)
    monkeypatch.setattr(soak, "_new_run", run_of_program)
    monkeypatch.setattr(soak, "LIFE_S_MAX", 1.0)
    monkeypatch.setattr(soak, "HITS_MAX", 50)
    return CliRunner().invoke(soak.main, ["--minutes", "0", "--seed", str(SEED), "--out", str(out)])


def test_violations_end_it_with_1_and_their_history_can_be_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = soaked(tmp_path, monkeypatch, "-m", "support.planted", "reuse-fence-after-restart")
    assert ended.exit_code == 1, ended.output
    assert "L5" in ended.output
    history = tmp_path / f"{SEED}-plain" / "history.jsonl"
    assert f"--judge {history}" in ended.output
    again = CliRunner().invoke(soak.main, ["--judge", str(history)])
    assert again.exit_code == 1
    assert "L5" in again.output


def test_without_violations_it_ends_with_0_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin; the last line sums up."""
    ended = soaked(tmp_path, monkeypatch, "-m", "holdfast")
    assert ended.exit_code == 0, ended.output
    assert "2 kills" in ended.output.splitlines()[-1]
    assert "0 violations, 0 rounds broken off" in ended.output.splitlines()[-1]
    assert not (tmp_path / f"{SEED}-plain").exists()


def test_a_server_that_ends_by_itself_breaks_a_round_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with 1: there is nothing to judge, which is no success."""
    ended = soaked(tmp_path, monkeypatch, "-m", "this_is_no_module")
    assert ended.exit_code == 1
    assert "1 rounds broken off" in ended.output.splitlines()[-1]
