"""A guarded run leaves nothing behind on any way out, and says so when it could not."""

import os
import signal
import sys
from pathlib import Path

import pytest

from holdfast_chaos import ports, runs
from holdfast_chaos.faults import KINDS, Fault, FaultContext
from holdfast_chaos.journal import FILE_NAME, JournalError, read
from holdfast_chaos.processes import RUN_VARIABLE, ManagedProcess
from holdfast_chaos.recovery import recover_run
from holdfast_chaos.runs import RunsError
from holdfast_chaos.toxiproxy import _CheckedRequests
from holdfast_chaos.watchdog import CleanupError, Guard, guarded
from support.stage import PROXY, Stage, start_toxiproxy

pytestmark = pytest.mark.usefixtures("state")


def slow() -> Fault:
    return KINDS["latency"]("slow", KINDS["latency"].model.model_validate({"delay": "200ms"}))


def leave_open(guard: Guard, scene: Stage, folder: Path) -> ManagedProcess:
    """Injects a fault and starts a process, and forgets both."""
    fault = slow()
    guard.journal.write("intent", fault=fault.id, undo=fault.undo_record(scene.context))
    fault.inject(scene.context)
    return ManagedProcess.start("forgotten", [sys.executable, "-c", "import signal; signal.pause()"], folder / "log")


def test_what_the_body_left_open_is_undone_at_its_end(scene: Stage, tmp_path: Path) -> None:
    with guarded(tmp_path) as guard:
        process = leave_open(guard, scene, tmp_path)
        assert [run.id for run in runs.known()] == [guard.run.id] == [os.environ[RUN_VARIABLE]]
    assert scene.toxiproxy.toxics(PROXY) == {}
    assert not process.alive()
    assert runs.known() == []
    assert RUN_VARIABLE not in os.environ


def test_what_the_body_left_open_is_undone_when_it_fails(scene: Stage, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), guarded(tmp_path) as guard:  # noqa: PT012  # the body is the subject
        process = leave_open(guard, scene, tmp_path)
        raise ZeroDivisionError
    assert scene.toxiproxy.toxics(PROXY) == {}
    assert not process.alive()
    assert read(tmp_path / FILE_NAME)[-1].event == "run_ended"


def test_what_cannot_be_undone_is_said_and_the_run_stays_entered(tmp_path: Path) -> None:
    with pytest.raises(CleanupError, match="'meteor'") as caught, guarded(tmp_path) as guard:
        guard.journal.write("intent", fault="f", undo={"kind": "meteor"})
    assert len(caught.value.failures) == 1
    (run,) = runs.known()
    assert run.id == guard.run.id
    assert recover_run(run).alive, "this harness, though done with the run, is still there"


def test_a_toxic_of_a_toxiproxy_that_hangs_ends_with_it(
    scene: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toxiproxy.api.requests", _CheckedRequests(timeout_s=0.3))
    reserved = ports.reserve(1)
    with guarded(tmp_path) as guard:
        process, client = start_toxiproxy(tmp_path, reserved.ports[0])
        guard.journal.write("process_started", name=process.name, identity=process.identity)
        client.create_proxy(PROXY, scene.address, "127.0.0.1:0")
        fault, context = slow(), FaultContext(client, [PROXY])
        guard.journal.write("intent", fault=fault.id, undo=fault.undo_record(context))
        fault.inject(context)
        process.kill(signal.SIGSTOP)
    assert process.wait(20.0)
    assert [
        entry.fields["what"]
        for entry in read(tmp_path / FILE_NAME)
        if entry.event == "undone" and "fault" in entry.fields
    ][-1] == ("nothing was left of fault 'slow'")
    reserved.release()


def test_one_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    with guarded(tmp_path) as first:
        with pytest.raises(JournalError, match="another process writes"), guarded(tmp_path):
            pass
        assert [run.id for run in runs.known()] == [first.run.id]


def test_the_registry_of_runs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "RUNS_MAX", 1)
    runs.register(tmp_path / FILE_NAME)
    with pytest.raises(RunsError, match="holdfast recover"):
        runs.register(tmp_path / FILE_NAME)
    runs.known()[0].forget()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": "other"}', '{"id": "x", "harness": 5}'])
def test_a_damaged_entry_does_not_hide_the_others(tmp_path: Path, content: str) -> None:
    run = runs.register(tmp_path / FILE_NAME)
    (runs.folder() / "x.json").write_text(content)
    assert runs.known() == [run]
    run.forget()
