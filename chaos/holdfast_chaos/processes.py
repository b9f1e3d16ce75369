"""Processes a run starts, and how they are stopped for sure: whole trees, by identity, never by a reused number.

A process is known by its pid **and** when it was created: a pid alone may belong to somebody else by the time it is
signalled. Every process leads a session of its own, so that Ctrl-C at the terminal reaches the harness only, which then
stops the rest in order.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Self

import psutil

RUN_VARIABLE: Final = "HOLDFAST_RUN_ID"
"""Environment variable that every process of a run inherits: finds those that were started but not yet journalled."""

_SAME_START_S: Final = 2.0
"""Creation times closer than this are the same: they are derived from the wall clock, which NTP may shift between two
readers. A pid cannot come round again within it, since all the others would have to be used up first."""

_POLL_S: Final = 0.02
_LOG_TAIL_BYTES: Final = 2000
_LIVES_MAX: Final = 1000


class ProcessError(Exception):
    """A process did not start, become ready or stop; the message holds its command and the tail of its log."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, told from a later one of the same number. `create_time` in unix seconds."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """The identity of a running process (or one not yet reaped).

        Raises:
            psutil.NoSuchProcess: there is none.
        """
        return cls(pid, psutil.Process(pid).create_time())

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Self:
        """Reads what a journal holds.

        Raises:
            ValueError: it is no identity.
        """
        pid, created = value.get("pid"), value.get("create_time")
        if not isinstance(pid, int) or not isinstance(created, int | float) or pid <= 1:
            raise ValueError(f"no process identity: {value!r}; expected pid (above 1) and create_time")
        return cls(pid, float(created))

    def process(self) -> psutil.Process | None:
        """The process, if it still runs (a zombie does not)."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.create_time) < _SAME_START_S
            return found if same and not _is_zombie(found) else None
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.process() is not None

    def send(self, number: int) -> bool:
        """Signals this very process; False if it is gone. By pidfd where there is one, so that no race is left."""
        try:
            handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            if handle is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            if handle is not None:
                os.close(handle)
        return True


@dataclass(frozen=True, slots=True)
class ProcessLife:
    """What the operating system said of one life of a process.

    Times in unix seconds; `returncode` is −9 after SIGKILL.
    """

    identity: ProcessIdentity
    started_s: float
    ready_s: float | None = None
    ended_s: float | None = None
    returncode: int | None = None


class ManagedProcess:
    """A process the run started. Not to be shared between threads that stop or restart it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        timeout_s: float = 30.0,
        on_start: Callable[["ManagedProcess"], None] | None = None,
    ) -> None:
        """Not started yet: use `start`, or `start_together`."""
        self.name = name
        self.command = list(command)
        self.log = log
        self._env = dict(env or {})
        self._ready = ready
        self._timeout_s = timeout_s
        self._on_start = on_start
        self._popen: subprocess.Popen[bytes] | None = None
        self._lives: list[ProcessLife] = []

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        timeout_s: float = 30.0,
        on_start: Callable[["ManagedProcess"], None] | None = None,
    ) -> "ManagedProcess":
        """Starts a process and waits until it is ready.

        Args:
            name: what messages call it.
            command: program and arguments; no shell.
            log: file that standard output and error are appended to.
            env: variables added to the harness's own.
            ready: asked again and again until it says True; None: ready at once.
            timeout_s: how long it may take to become ready, at each start.
            on_start: called at each start, before readiness is awaited: the place to journal the identity.

        Raises:
            ProcessError: it could not be started, ended, or was not ready in time; nothing of it is left running.
        """
        process = cls(name, command, log, env, ready, timeout_s, on_start)
        cls.start_together([process])
        return process

    @staticmethod
    def start_together(processes: Sequence["ManagedProcess"]) -> None:
        """Starts processes made by the constructor, or starts them again, and waits until all are ready.

        All come up at once: the wait is the slowest one's, not the sum.

        Raises:
            ProcessError: as `start`; nothing of any of them is left running.
        """
        begun: list[ManagedProcess] = []
        try:
            for process in processes:
                if process.lives:
                    process.stop()
                begun.append(process)
                process.begin()
            for process in processes:
                process.settle()
        except BaseException:
            for process in begun:
                if process.lives:
                    process.stop(1.0)
            raise

    @property
    def identity(self) -> ProcessIdentity:
        """Identity of the latest life."""
        return self._lives[-1].identity

    @property
    def lives(self) -> tuple[ProcessLife, ...]:
        """Every life so far, in order; none before it is started."""
        if self._lives:
            self.alive()
        return tuple(self._lives)

    @property
    def returncode(self) -> int | None:
        """How the latest life ended (−N: by signal N); None while it runs."""
        self.alive()
        return self._lives[-1].returncode

    def alive(self) -> bool:
        """Whether it runs."""
        assert self._popen is not None, "started on construction"
        code = self._popen.poll()
        if code is not None and self._lives[-1].ended_s is None:
            self._lives[-1] = replace(self._lives[-1], ended_s=time.time(), returncode=code)
        return code is None

    def is_stopped(self) -> bool:
        """Whether the operating system holds it still, as SIGSTOP does."""
        process = self.identity.process() if self.alive() else None
        with contextlib.suppress(psutil.NoSuchProcess):
            return process is not None and bool(process.status() == psutil.STATUS_STOPPED)
        return False

    def is_connected_to(self, address: str) -> bool:
        """Whether it, or anything it started, has a TCP connection to a port of this machine, as its system says.

        The host of `address` is not compared: `127.0.0.1` may show as `::ffff:127.0.0.1`.
        """
        port = int(address.rpartition(":")[2])
        for member in _members(self.identity) if self.alive() else ():
            with contextlib.suppress(psutil.Error):
                process = member.process()
                for found in process.net_connections("tcp") if process is not None else ():
                    if found.status == psutil.CONN_ESTABLISHED and found.raddr and found.raddr.port == port:
                        return True
        return False

    def wait(self, timeout_s: float) -> bool:
        """Waits for its end; False if it still runs after `timeout_s`."""
        return poll(lambda: not self.alive(), timeout_s)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signals it and everything it started, at once; nothing happens to what has ended already."""
        members = _members(self.identity)
        if self.alive():  # not reaped, so the group's number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.identity.pid, number)
        for member in members:
            if member != self.identity:
                member.send(number)

    def restart(self) -> None:
        """Starts it again with the same command, stopping what is left of it first, and waits until it is ready.

        Raises:
            ProcessError: as `start`.
        """
        self.start_together([self])

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends it and everything it started: SIGTERM, and SIGKILL after `timeout_s`. Repeatable.

        Raises:
            ProcessError: something of it survived SIGKILL.
        """
        survivors = _end(self.identity, timeout_s, reap=self.alive)
        if survivors:
            raise ProcessError(
                f"{self.name}: {_pids(survivors)} survived SIGKILL (stuck in the kernel, or another user's): "
                f"end them by hand: kill -9 {' '.join(str(member.pid) for member in survivors)}"
            )

    def log_tail(self) -> str:
        """The end of its log."""
        try:
            return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""

    def begin(self) -> None:
        """Starts it and does not wait; see `start_together`, which waits.

        Raises:
            ProcessError: it could not be started.
        """
        self._spawn()
        if self._on_start is not None:
            self._on_start(self)

    def settle(self) -> None:
        """Waits until it is ready.

        Raises:
            ProcessError: it ended, or was not ready in time.
        """
        self._await_ready()
        self._lives[-1] = replace(self._lives[-1], ready_s=time.time())

    def _spawn(self) -> None:
        if len(self._lives) >= _LIVES_MAX:
            raise ProcessError(f"{self.name} was started {_LIVES_MAX} times in one run: a restart loop?")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                self._popen = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self._env},
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(
                f"{self.name}: cannot start {self.command[0]!r}: {error.strerror}. "
                "Check that the program is installed and that its path is right."
            ) from error
        self._lives.append(ProcessLife(ProcessIdentity.of(self._popen.pid), time.time()))

    def _await_ready(self) -> None:
        def settled() -> bool:
            return not self.alive() or self._ready is None or self._ready()

        if poll(settled, self._timeout_s) and self.alive():
            return
        state = "is not ready" if self.alive() else f"ended with code {self.returncode}"
        raise ProcessError(
            f"{self.name}: {state} within {self._timeout_s:g} s of its start: {' '.join(self.command)}\n"
            f"The end of its log ({self.log}):\n{self.log_tail() or '(empty)'}"
        )


def stop_identity(identity: ProcessIdentity, timeout_s: float) -> bool:
    """Ends a process that another harness started, and everything it started in turn; True once nothing of it runs.

    A process that merely has the same number is left alone.
    """
    return not _end(identity, timeout_s)


def find_marked(run_id: str) -> list[ProcessIdentity]:
    """Processes that carry a run's mark in their environment, this one and its ancestors excepted."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(RUN_VARIABLE) == run_id:
                found.append(ProcessIdentity(process.pid, process.create_time()))
    return [identity for identity in found if identity.alive()]


def _members(leader: ProcessIdentity) -> list[ProcessIdentity]:
    """What runs of a process, its descendants and its session, the leader first."""
    found: dict[int, ProcessIdentity] = {}
    root = leader.process()
    if root is not None:
        found[leader.pid] = leader
        with contextlib.suppress(psutil.Error):
            found.update(_identities(root.children(recursive=True)))
    elif _is_somebody_else(leader):
        return []  # and with the number, the session
    found.update(_identities(process for process in psutil.process_iter() if _in_session(process, leader)))
    return [identity for identity in found.values() if identity.alive()]


def _is_somebody_else(identity: ProcessIdentity) -> bool:
    """Whether the number belongs to another process now."""
    try:
        return abs(psutil.Process(identity.pid).create_time() - identity.create_time) >= _SAME_START_S
    except psutil.NoSuchProcess:
        return False


def _identities(processes: Iterable[psutil.Process]) -> dict[int, ProcessIdentity]:
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found[process.pid] = ProcessIdentity(process.pid, process.create_time())
    return found


def _in_session(process: psutil.Process, leader: ProcessIdentity) -> bool:
    try:
        return os.getsid(process.pid) == leader.pid and process.create_time() > leader.create_time - _SAME_START_S
    except (OSError, psutil.Error):
        return False


def _is_zombie(process: psutil.Process) -> bool:
    """Whether only its entry is left.

    A main thread that ended before its siblings looks the same, but the process holds its ports and files yet.
    """
    return bool(process.status() == psutil.STATUS_ZOMBIE) and process.num_threads() <= 1


def _end(leader: ProcessIdentity, timeout_s: float, reap: Callable[[], bool] = lambda: False) -> list[ProcessIdentity]:
    """TERM, wait, KILL, wait; returns what survived.

    Args:
        leader: the process that leads the session.
        timeout_s: from TERM to KILL.
        reap: for a parent: collects the leader; True while it runs.
    """
    members = _members(leader)
    for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
        for member in members:
            member.send(number)
            member.send(signal.SIGCONT)  # a paused process cannot act on SIGTERM
        poll(partial(_all_gone, members, reap), wait_s)
        members = list({member.pid: member for member in [*_alive(members), *_members(leader)]}.values())
        if not members:
            break
    return members


def _all_gone(members: Sequence[ProcessIdentity], reap: Callable[[], bool]) -> bool:
    return not reap() and not _alive(members)


def _alive(members: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
    return [member for member in members if member.alive()]


def poll(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Asks until it is so; False if it is not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _pids(members: Iterable[ProcessIdentity]) -> str:
    return ", ".join(f"pid {member.pid}" for member in members)
