"""However a harness dies, what it left is undone: by its watchdog at once, and by `holdfast recover` at any time."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from holdfast_chaos import runs
from holdfast_chaos.journal import FILE_NAME, Journal, read
from holdfast_chaos.processes import ProcessIdentity
from support.stage import HARNESS, PROXY, Stage, wait_for

pytestmark = pytest.mark.usefixtures("state")


@dataclass
class Harness:
    """A harness in the middle of a fault."""

    process: "subprocess.Popen[str]"
    out: Path
    started: list[ProcessIdentity]

    def die(self, whole_group: bool = False) -> None:
        if whole_group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait(10)

    def watchdogs(self) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"]
            and {"holdfast_chaos.watchdog", str(self.out / FILE_NAME)} <= set(process.info["cmdline"])
        ]

    def events(self) -> list[tuple[str, str]]:
        return [(entry.event, str(entry.fields.get("by", ""))) for entry in read(self.out / FILE_NAME)]


@contextmanager
def harness(scene: Stage, out: Path, mode: str) -> Iterator[Harness]:
    process = subprocess.Popen(
        [sys.executable, str(HARNESS), str(out), scene.toxiproxy.address, PROXY, mode],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        assert said[:1] == ["doing"], f"the harness said {said!r}"
        yield Harness(process, out, [ProcessIdentity.of(int(pid)) for pid in said[1:]] if mode != "ends" else [])
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        scene.toxiproxy.reset()


def recover(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "recover", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def assert_nothing_left(scene: Stage, harness: Harness) -> None:
    assert scene.toxiproxy.toxics(PROXY) == {}
    assert not [identity for identity in harness.started if identity.alive()]


@pytest.mark.parametrize("whole_group", [False, True], ids=["harness", "process-group"])
def test_the_watchdog_undoes_everything_when_the_harness_is_killed(
    scene: Stage, tmp_path: Path, whole_group: bool
) -> None:
    with harness(scene, tmp_path / "out", "watched") as doomed:
        assert "holdfast-slow" in scene.toxiproxy.toxics(PROXY)
        doomed.die(whole_group)
        wait_for(lambda: ("recovered", "watchdog") in doomed.events(), "the watchdog cleans up", 30)
        wait_for(lambda: not doomed.watchdogs(), "the watchdog ends by itself")
        assert_nothing_left(scene, doomed)
        assert doomed.events().count(("undone", "watchdog")) == 3, "a fault, a journalled and an unjournalled process"

        code, said = recover()
        assert code == 0
        assert "undone before: removed toxic 'holdfast-slow'" in said
        assert "(by the watchdog)" in said
        assert "nothing was left to undo" in said
        assert recover() == (0, "Nothing to recover: no run of this user is left.\n")


def test_faults_are_undone_before_processes_are_stopped(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "watched") as doomed:
        doomed.die()
        wait_for(lambda: ("recovered", "watchdog") in doomed.events(), "the watchdog cleans up", 30)
        undone = [entry.fields for entry in read(doomed.out / FILE_NAME) if entry.event == "undone"]
        assert ["fault" in fields for fields in undone] == [True, False, False]


def test_death_between_intent_and_injection_leaves_nothing(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "intent") as doomed:
        doomed.die()
        wait_for(lambda: ("recovered", "watchdog") in doomed.events(), "the watchdog cleans up", 30)
        assert_nothing_left(scene, doomed)
        (fault,) = [e.fields for e in read(doomed.out / FILE_NAME) if e.event == "undone" and "fault" in e.fields]
        assert fault["what"] == "nothing was left of fault 'slow'"


def test_a_run_that_ends_as_it_should_leaves_no_fault_no_process_and_no_watchdog(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "ends") as healthy:
        assert healthy.process.wait(30) == 0
        assert ("run_ended", "") in healthy.events()
        assert not [event for event in healthy.events() if event[1] == "watchdog"]
        assert not healthy.watchdogs()
        assert_nothing_left(scene, healthy)
        assert runs.known() == []


def test_ctrl_c_does_not_reach_the_watchdog(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "watched") as doomed:
        (watchdog,) = doomed.watchdogs()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            watchdog.send_signal(number)
        assert os.getsid(watchdog.pid) != os.getsid(doomed.process.pid)
        doomed.die()
        wait_for(lambda: ("recovered", "watchdog") in doomed.events(), "the watchdog cleans up", 30)


def test_recover_undoes_an_unwatched_run_once_and_says_what(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "unwatched") as doomed:
        doomed.die()
        assert "holdfast-slow" in scene.toxiproxy.toxics(PROXY)
        code, said = recover(str(doomed.out))
        assert code == 0, said
        assert "undone: fault 'slow': removed toxic 'holdfast-slow'" in said
        assert all(f"(pid {identity.pid})" in said for identity in doomed.started)
        assert_nothing_left(scene, doomed)
        assert runs.known() == []
        code, again = recover(str(doomed.out))
        assert code == 0
        assert "nothing was left to undo" in again
        assert "undone before: removed toxic" in again


def test_a_run_that_is_going_on_is_left_alone_unless_all_is_given(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "unwatched") as going:
        code, said = recover()
        assert code == 0
        assert "still going, left alone" in said
        assert "holdfast-slow" in scene.toxiproxy.toxics(PROXY)
        reaper = threading.Thread(target=going.process.wait)  # as a shell would; a zombie's pid is not free
        reaper.start()
        code, said = recover("--all", "--json")
        reaper.join()
        assert code == 0, said
        report = json.loads(said)
        assert report["clean"] is True
        assert "ended its harness" in report["undone"][0]
        assert_nothing_left(scene, going)


def test_a_run_whose_folder_is_gone_still_has_its_processes_stopped(scene: Stage, tmp_path: Path) -> None:
    with harness(scene, tmp_path / "out", "unwatched") as doomed:
        doomed.die()
        (doomed.out / FILE_NAME).unlink()
        code, said = recover()
        assert code == 0, said
        assert "its journal is gone" in said
        assert not [identity for identity in doomed.started if identity.alive()]


class _Broken(BaseHTTPRequestHandler):
    """A Toxiproxy that answers everything with an error."""

    def do_DELETE(self) -> None:  # the base class's naming
        self.send_error(500)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base class's naming
        pass


def test_what_cannot_be_undone_exits_4_is_named_and_is_tried_again(tmp_path: Path) -> None:
    broken = HTTPServer(("127.0.0.1", 0), _Broken)
    threading.Thread(target=broken.serve_forever).start()
    address = f"127.0.0.1:{broken.server_address[1]}"
    try:
        write_dead_run(
            tmp_path, {"kind": "latency", "address": address, "toxics": [{"proxy": "p", "name": "holdfast-slow"}]}
        )
        code, said = recover(str(tmp_path))
        assert code == 4, said
        assert "STILL THERE: fault 'slow'" in said
        assert f"curl -X DELETE http://{address}/proxies/p/toxics/holdfast-slow" in said
    finally:
        broken.shutdown()
        broken.server_close()
    code, said = recover(str(tmp_path))
    assert code == 0, "a Toxiproxy that is gone has taken its toxics along"


def test_a_fault_of_a_newer_version_is_left_and_said(tmp_path: Path) -> None:
    write_dead_run(tmp_path, {"kind": "meteor"})
    code, said = recover(str(tmp_path))
    assert code == 4
    assert "'meteor'" in said


def test_a_folder_without_a_run_is_wrong_input(tmp_path: Path) -> None:
    code, said = recover(str(tmp_path))
    assert code == 3
    assert str(tmp_path) in said


def test_a_damaged_journal_exits_4_with_its_line(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"garbage\n{}\n")
    code, said = recover(str(tmp_path))
    assert code == 4
    assert f"{FILE_NAME}:1" in said


def write_dead_run(out: Path, undo: dict[str, str]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    identity = ProcessIdentity.of(dead.pid)
    dead.wait()
    with Journal.open(out / FILE_NAME) as journal:
        journal.write("run_started", run_id="dead", harness=identity)
        journal.write("intent", fault="slow", undo=undo)
