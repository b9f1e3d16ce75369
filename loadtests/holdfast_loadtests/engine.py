"""Starts the load in a process of its own, tells it the phases, and collects what it found.

run = LoadRun.start(LoadPlan(target, spec, tables, seed), out_dir)
run.set_phase("fault:slow-net")
summary = run.finish()
run.close()
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.plans import RECORD_NAME, LoadPlan, wire_plan
from holdfast_loadtests.records import read_calls
from holdfast_loadtests.reflection import fetch
from holdfast_loadtests.snapshots import Snapshot
from holdfast_loadtests.summary import LoadSummary, summarize
from holdfast_loadtests.targets import target_of

ENGINE: Final = "holdfast http2"
"""What makes the load: gRPC at the level of HTTP/2 frames, on uvloop."""

LOG_NAME: Final = "load-worker.log"
READY_WITHIN_S: Final = 30.0
ORDER_WITHIN_S: Final = 10.0
CLOSE_WITHIN_S: Final = 5.0
_LOG_TAIL_CHARS: Final = 2_000


class LoadError(Exception):
    """The load's process died, did not start or does not answer; the text holds the tail of its log."""


class LoadRun:
    """A load under way. Its methods may be called from one thread at a time."""

    def __init__(self, process: subprocess.Popen[bytes], out_dir: Path) -> None:
        self._process = process
        self._out_dir = out_dir
        self._changed = threading.Condition()
        self._ready_monotonic_s = 0.0
        self._latest: dict[str, dict[str, Any]] = {}
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="load-events", daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, plan: LoadPlan, out_dir: Path) -> Self:
        """Starts the load; returns once its users are connected and the first call is due, or may become it by `begin`.

        Args:
            plan: the load.
            out_dir: an existing folder; gets `calls.csv.gz` and the process's log.

        Raises:
            InputError: the target has no usable reflection (where the plan has no descriptors), or the load does not
                fit its methods and messages; nothing was started.
            ValueError: the plan's metadata is none that gRPC has.
            LoadError: the process did not become ready.
        """
        target = target_of(plan.target, plan.security, plan.authority, plan.metadata)
        descriptors = plan.descriptors or fetch(target).file_set
        compile_calls(plan.spec, Descriptors(descriptors), plan.tables)
        run = cls(_spawn(out_dir), out_dir)
        try:
            run._send(wire_plan(plan, descriptors, out_dir / RECORD_NAME))
            run._wait("connected" if plan.held else "ready", READY_WITHIN_S)
        except BaseException:
            run.close()
            raise
        return run

    @property
    def metrics_address(self) -> str:
        """`host:port` of the load's own metrics, for Prometheus; there until `close`."""
        return str(self._latest["ready"]["metrics"])

    @property
    def started_s(self) -> float:
        """When the schedule began, unix seconds."""
        return float(self._latest["ready"]["started_s"])

    @property
    def elapsed_s(self) -> float:
        """Seconds since the schedule began, by the monotonic clock: setting the time does not bend it."""
        return time.monotonic() - self._ready_monotonic_s

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def record(self) -> Path:
        """The file with every call; complete after `finish`."""
        return self._out_dir / RECORD_NAME

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def drain_limit_s(self) -> float:
        """The longest that `drain` may take."""
        told = self._latest.get("ready") or self._latest["connected"]
        return float(told["drain_limit_s"])

    def begin(self) -> None:
        """Begins a load that was held: calls fall due from now on.

        Raises:
            LoadError: the process is gone or does not answer.
        """
        self._send({"begin": True})
        self._wait("ready", ORDER_WITHIN_S)

    def set_users(self, users: int) -> None:
        """The closed model's users become so many; new ones begin once connected, others end with their scenario.

        Raises:
            LoadError: the process is gone.
        """
        self._send({"users": users})

    def news(self) -> Ledger:
        """What was found since the last call of this, where that was not interrupted; `total` knows the rest.

        Raises:
            LoadError: the process is gone or does not answer.
        """
        with self._changed:
            self._latest.pop("report", None)
        self._send({"report": True})
        return Ledger.of_json(self._wait("report", ORDER_WITHIN_S)["news"])

    def total(self) -> Ledger:
        """All that was found.

        Raises:
            LoadError: the process is gone or does not answer.
        """
        with self._changed:
            self._latest.pop("total", None)
        self._send({"total": True})
        return Ledger.of_json(self._wait("total", ORDER_WITHIN_S)["found"])

    def set_phase(self, name: str) -> float:
        """Begins a phase; calls due from the time returned (unix seconds) on carry it, those due before do not.

        Raises:
            LoadError: the process is gone or does not answer.
        """
        with self._changed:
            self._latest.pop("phase", None)
        self._send({"phase": name})
        return float(self._wait("phase", ORDER_WITHIN_S)["since_s"])

    def snapshot(self) -> Snapshot:
        """The latest state, at most about half a second old; all zeros before the first."""
        with self._changed:
            status = dict(self._latest.get("status", {}))
        status.pop("event", None)
        counts = {(phase, method, code): count for phase, method, code, count in status.pop("counts", [])}
        return Snapshot(**status, counts=counts)

    def finish(self) -> LoadSummary:
        """Ends the load: nothing more falls due, what is under way is waited for. Metrics stay up until `close`.

        Raises:
            LoadError: the process died, now or before.
        """
        drained = self.drain()
        return summarize(
            read_calls(self.record),
            started_s=self.started_s,
            stopped_s=float(drained["stopped_s"]),
            cpu_share=float(drained["cpu_share"]),
            unended=int(drained["unended"]),
            out_of_room=int(drained["out_of_room"]),
        )

    def drain(self) -> Mapping[str, Any]:
        """As `finish`, for a load without records: gives what the process found, as `results` reads it.

        Raises:
            LoadError: the process died, now or before.
        """
        self._send({"stop": True})
        return self._wait("drained", self.drain_limit_s + ORDER_WITHIN_S)

    def close(self) -> None:
        """Ends the process; idempotent."""
        if not self._stdin.closed:
            self._dismiss()
        try:
            self._process.wait(timeout=CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None, "started with a pipe"
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _dismiss(self) -> None:
        with suppress(BrokenPipeError):  # it may be gone already
            self._stdin.write(b'{"exit":true}\n')
            self._stdin.flush()
        with suppress(BrokenPipeError):
            self._stdin.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None, "started with a pipe"
        return self._process.stdin

    def _send(self, order: Mapping[str, Any]) -> None:
        try:
            self._stdin.write(json.dumps(order, separators=(",", ":")).encode() + b"\n")
            self._stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._died() from error

    def _wait(self, event: str, timeout_s: float) -> Mapping[str, Any]:
        with self._changed:
            told = self._changed.wait_for(lambda: event in self._latest or self._ended, timeout_s)
            found = self._latest.get(event)
        if found is not None:
            return found
        if told:
            raise self._died()
        raise LoadError(
            f"the load's process (pid {self.pid}) said no {event!r} within {timeout_s:g} s.{self._log_tail()}"
        )

    def _read(self) -> None:
        assert self._process.stdout is not None, "started with a pipe"
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            told = json.loads(line)
            with self._changed:
                if told["event"] == "ready":
                    self._ready_monotonic_s = time.monotonic()
                self._latest[told["event"]] = told
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _died(self) -> LoadError:
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return LoadError(f"the load's process (pid {self.pid}) closed its pipes but runs on.{self._log_tail()}")
        with self._changed:
            why = self._latest.get("error", {}).get("message", "")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return LoadError(f"the load's process (pid {self.pid}) {how}. {why}{self._log_tail()}".rstrip())

    def _log_tail(self) -> str:
        log = self._out_dir / LOG_NAME
        text = log.read_text(errors="replace")[-_LOG_TAIL_CHARS:].strip() if log.exists() else ""
        return f"\nThe end of {log}:\n{text}" if text else ""


def _spawn(out_dir: Path) -> subprocess.Popen[bytes]:
    with (out_dir / LOG_NAME).open("wb") as log:
        return subprocess.Popen(
            # -P: modules come from where they are installed, never from the folder the user happens to stand in.
            [sys.executable, "-P", "-m", "holdfast_loadtests.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the harness, which then ends the load in order
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
