"""What breaks the harness half-way never looks like wrong input, nor like a verdict on the target."""

import resource
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from support.runs import SHORT, command, environment
from support.stage import wait_for

pytestmark = pytest.mark.experiment


def started(tmp_path: Path, until: str = '"injected"') -> tuple[subprocess.Popen[str], Path]:
    """A run whose journal has just got that far, by default to its fault."""
    out = tmp_path / "bundle"
    harness = subprocess.Popen(
        command(SHORT, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(tmp_path / "state"), cwd=tmp_path,
    )  # fmt: skip
    journal = out / "journal.jsonl"
    wait_for(lambda: journal.exists() and until in journal.read_text(), until, 60)
    return harness, out


def children(harness: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    return {" ".join(child.cmdline()): child for child in psutil.Process(harness.pid).children()}


def test_a_load_generator_that_hangs_is_inconclusive(tmp_path: Path) -> None:
    harness, out = started(tmp_path)
    (load,) = [child for line, child in children(harness).items() if "holdfast_loadtests.worker" in line]
    load.send_signal(signal.SIGSTOP)
    output, _ = harness.communicate(timeout=120)
    assert harness.returncode == 2, output
    assert "LOAD_FAILED" in (out / "verdict.json").read_text()
    assert not load.is_running()


def test_a_journal_that_cannot_be_written_leaves_no_fault_and_is_a_failed_clean_up(tmp_path: Path) -> None:
    harness, out = started(tmp_path)
    before = children(harness)
    size = (out / "journal.jsonl").stat().st_size
    psutil.Process(harness.pid).rlimit(resource.RLIMIT_FSIZE, (size, size))  # no file may grow beyond: a full disk
    output, _ = harness.communicate(timeout=120)
    assert harness.returncode == 4, output
    assert "journal.jsonl" in output
    assert "holdfast recover" in output
    wait_for(lambda: not any(child.is_running() for child in before.values()), "the end of what was started")
    recover = [command(SHORT, out)[0], "-m", "holdfast", "recover", str(out)]
    done = subprocess.run(recover, capture_output=True, text=True, env=environment(tmp_path / "state"), timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((tmp_path / "state" / "holdfast" / "runs").iterdir())


def test_a_signal_while_the_watchdog_comes_up_ends_the_run_in_order(tmp_path: Path) -> None:
    harness, out = started(tmp_path, until='"run_started"')
    harness.send_signal(signal.SIGTERM)
    output, _ = harness.communicate(timeout=60)
    assert harness.returncode == 2, output
    assert "INTERRUPTED" in (out / "verdict.json").read_text()
    assert '"run_ended"' in (out / "journal.jsonl").read_text()


def test_a_signal_while_everything_is_stopped_does_not_lose_the_verdict(tmp_path: Path) -> None:
    harness, out = started(tmp_path, until='"process_stopped"')
    harness.send_signal(signal.SIGINT)
    output, _ = harness.communicate(timeout=60)
    assert harness.returncode == 0, output
    assert "PASS" in (out / "verdict.json").read_text()
