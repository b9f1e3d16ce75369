"""The processes that benchmarks measure: how they start, where they run, what they take."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READY_WITHIN_S = 120.0
"""Most time for a server to serve; with 100 000 agents on a busy machine it takes its time."""

TOOLS = Path(os.environ.get("HOLDFAST_TOOLS") or Path(__file__).parents[2] / ".tools")
"""Where peers are installed."""

SERVE = ("-m", "holdfast", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")


@dataclass(frozen=True)
class Running:
    """A server that serves."""

    address: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid


def start(stack: ExitStack, folder: Path, name: str, arguments: Sequence[str]) -> Running:
    """Starts a Python server on the first core, and waits until it serves. It ends with the stack.

    Raises:
        RuntimeError: It did not come up; its log is quoted.
    """
    ready, log_file = folder / f"{name}.json", folder / f"{name}.log"
    ready.unlink(missing_ok=True)
    with log_file.open("ab") as log:
        process = subprocess.Popen([sys.executable, *arguments, "--ready-file", str(ready)], stdout=log, stderr=log)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    pin(process.pid, 0)
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not ready.exists():
        if time.monotonic() > deadline_s or process.poll() is not None:
            raise RuntimeError(f"{name} did not come up: {log_file.read_text()[-2000:]}")
        time.sleep(0.005)
    return Running(str(json.loads(ready.read_text())["grpc"]), process)


def start_program(stack: ExitStack, command: Sequence[str], address: str, log_file: Path) -> Running:
    """Starts a Go program on the first core, and waits until it listens at an address. It ends with the stack.

    Raises:
        RuntimeError: It did not come up; its log is quoted.
    """
    with log_file.open("wb") as log:
        # One core, and told so: a Go program that believes in two would run its collector on the second.
        environment = {**os.environ, "GOMAXPROCS": "1"}
        with _on(0):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not _listens(address):
        if time.monotonic() > deadline_s or process.poll() is not None:
            raise RuntimeError(f"{command[0]} did not come up: {log_file.read_text()[-2000:]}")
        time.sleep(0.02)
    return Running(address, process)


def free_ports(count: int) -> list[int]:
    """Ports for programs that cannot say which they took; a taken one ends them, which is reported."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def start_ours(stack: ExitStack, folder: Path, store: str = "", *more: str) -> Running:
    """Starts `holdfast serve`, on a file of its own unless told otherwise."""
    return start(stack, folder, "ours", [*SERVE, "--store", store or f"sqlite:{folder / 'h.db'}", *more])


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    process.kill()
    process.wait(30)


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def cpu_since_s(pid: int, before_s: float) -> float:
    """CPU seconds taken since `cpu_s` gave `before_s`; at least the one tick that the system counts in."""
    return max(cpu_s(pid) - before_s, 1 / TICKS_PER_S)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM and its own; pages of files that are mapped are not."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _on(core: int) -> Iterator[None]:
    """What this thread starts meanwhile is tied to one core from its first instruction."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    pin(0, core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, core: int) -> None:
    """Ties a process to one core, where the system can: 0 is the first, −1 the last."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {range(os.cpu_count() or 1)[core]})
