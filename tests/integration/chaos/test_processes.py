"""What a run starts is stopped for sure, with all it started, and nobody else is ever signalled."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from holdfast_chaos.processes import (
    RUN_VARIABLE,
    ManagedProcess,
    ProcessError,
    ProcessIdentity,
    find_marked,
    stop_identity,
)
from support.stage import wait_for

SLEEP = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEP}"
FAMILY = (
    "import subprocess, sys;"
    f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}]);"
    f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True);"
    "print('ready', flush=True);"
    f"{SLEEP}"
)
ORPHANS = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "p.log"


def start(code: str, log: Path, **options: object) -> ManagedProcess:
    ready = (lambda: b"ready" in log.read_bytes()) if "print('ready'" in code else None
    return ManagedProcess.start("p", [sys.executable, "-c", code], log, ready=ready, **options)


@pytest.fixture
def bystander() -> Iterator[ProcessIdentity]:
    process = subprocess.Popen([sys.executable, "-c", SLEEP])
    yield ProcessIdentity.of(process.pid)
    process.kill()
    process.wait()


def test_a_process_that_ignores_sigterm_is_killed(log: Path) -> None:
    process = start(DEAF, log)
    process.stop(timeout_s=0.3)
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_obeys_is_not_killed(log: Path) -> None:
    process = start(SLEEP, log)
    process.stop()
    assert process.returncode == -signal.SIGTERM
    process.stop()


def test_a_paused_process_is_stopped(log: Path) -> None:
    process = start(SLEEP, log)
    process.kill(signal.SIGSTOP)
    process.stop(timeout_s=5.0)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("how", ["stop", "kill", "stop_identity"])
def test_all_that_a_process_started_ends_with_it(log: Path, how: str) -> None:
    process = start(FAMILY, log)
    family = [ProcessIdentity.of(child.pid) for child in psutil.Process(process.identity.pid).children(recursive=True)]
    assert len(family) == 2
    if how == "stop":
        process.stop()
    elif how == "kill":
        process.kill()
    else:
        # Its parent, this very process, has yet to reap it: a zombie counts as ended.
        assert stop_identity(process.identity, 5.0)
    assert process.wait(20.0)
    wait_for(lambda: not any(member.alive() for member in family), "the family ends")


def test_what_outlives_its_parent_in_its_session_is_stopped(log: Path) -> None:
    process = start(ORPHANS, log)
    assert process.wait(10.0)
    (orphan,) = [ProcessIdentity.of(p.pid) for p in psutil.process_iter() if _session(p) == process.identity.pid]
    process.stop()
    assert not orphan.alive()


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1


def test_a_reused_pid_is_never_signalled(bystander: ProcessIdentity) -> None:
    stale = replace(bystander, create_time=bystander.create_time - 100)
    assert not stale.alive()
    assert stale.send(signal.SIGKILL) is False
    assert stop_identity(stale, 1.0) is True
    assert bystander.alive()


def test_a_pid_that_is_gone_needs_no_stopping(log: Path) -> None:
    process = start(SLEEP, log)
    process.stop()
    assert process.identity.send(signal.SIGKILL) is False
    assert stop_identity(process.identity, 1.0) is True


@pytest.mark.parametrize("value", [{}, {"pid": 1, "create_time": 5}, {"pid": "7", "create_time": 5}, {"pid": 7}])
def test_a_journal_cannot_name_init_or_nonsense(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no process identity"):
        ProcessIdentity.from_json(value)


def test_a_restart_gives_a_new_life_with_the_old_one_on_record(log: Path) -> None:
    seen: list[ProcessIdentity] = []
    process = start(SLEEP, log, on_start=lambda process: seen.append(process.identity))
    process.kill()
    assert process.wait(20.0)
    process.restart()
    first, second = process.lives
    process.stop()
    assert first.returncode == -signal.SIGKILL
    assert first.ended_s is not None
    assert first.started_s <= first.ended_s <= second.started_s
    assert second.returncode is None
    assert second.ready_s is not None
    assert seen == [first.identity, second.identity]


def test_one_that_ends_before_it_is_ready_is_an_error_with_its_log(log: Path) -> None:
    with pytest.raises(ProcessError, match=r"(?s)ended with code 3.*the reason is this"):
        ManagedProcess.start(
            "p", [sys.executable, "-c", "print('the reason is this'); exit(3)"], log, ready=lambda: False, timeout_s=20
        )


def test_one_that_never_becomes_ready_is_an_error_and_is_stopped(log: Path) -> None:
    seen: list[ProcessIdentity] = []
    with pytest.raises(ProcessError, match=r"p: is not ready within 0\.2 s"):
        ManagedProcess.start(
            "p",
            [sys.executable, "-c", SLEEP],
            log,
            ready=lambda: False,
            timeout_s=0.2,
            on_start=lambda process: seen.append(process.identity),
        )
    assert not seen[0].alive()


def test_a_program_that_is_not_there_is_named(log: Path) -> None:
    with pytest.raises(ProcessError, match="no-such-program"):
        ManagedProcess.start("p", ["no-such-program"], log)


def test_what_a_run_started_is_found_by_its_mark(log: Path, bystander: ProcessIdentity) -> None:
    process = start(SLEEP, log, env={RUN_VARIABLE: f"test-{os.getpid()}"})
    assert find_marked(f"test-{os.getpid()}") == [process.identity]
    process.stop()
    assert find_marked(f"test-{os.getpid()}") == []


def test_a_connection_counts_whichever_of_its_processes_has_it(log: Path) -> None:
    """What a process's child dials is the process's; a port that nobody dials is not."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        dial = f"import socket, time; s = socket.create_connection(('127.0.0.1', {server.getsockname()[1]})); "
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {dial + 'time.sleep(600)'!r}])"
        process = ManagedProcess.start("parent", [sys.executable, "-c", child], log)
        try:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            wait_for(lambda: process.is_connected_to(address), "the child to dial")
            assert not process.is_connected_to(f"127.0.0.1:{other.getsockname()[1]}")
        finally:
            process.stop(1.0)
        assert not process.is_connected_to(address), "it has ended"
