"""The watchdog: a process of its own that undoes everything if the harness dies, kill -9 included.

It leads a session of its own, so neither Ctrl-C nor a signal to the harness's process group reaches it, and holds one
end of a pipe whose other end only the harness has: when the harness dies, for whatever reason, the kernel closes it. It
ends by itself once the run has ended. What kills every process of a container or a cgroup at once kills it too:
`holdfast recover` remains.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from holdfast_chaos import journal as journals
from holdfast_chaos import recovery, runs
from holdfast_chaos.journal import Journal, JournalError
from holdfast_chaos.processes import RUN_VARIABLE, ProcessIdentity

LIFETIME_S_MAX: Final = 24 * 3600.0
"""A run that takes longer goes on without its watchdog."""

_READY_WITHIN_S: Final = 15.0
_END_WITHIN_S: Final = 30.0
_HARNESS_GONE_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.5


class WatchdogError(Exception):
    """The watchdog did not come up; nothing may be injected without it."""


@dataclass
class Watchdog:
    """The harness's hold on its watchdog."""

    identity: ProcessIdentity
    _popen: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls, journal: Path, lifetime_s: float = LIFETIME_S_MAX) -> Self:
        """Starts a watchdog for this process's run and returns once it watches.

        Args:
            journal: the run's journal, with `run_started` in it.
            lifetime_s: it ends after this in any case.

        Raises:
            WatchdogError: it did not come up.
        """
        # Without the run's mark, or it would stop itself when it stops what carries the mark.
        environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
        with journal.with_name("watchdog.log").open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "holdfast_chaos.watchdog", str(journal), str(lifetime_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        watchdog = cls(ProcessIdentity.of(popen.pid), popen)
        assert popen.stdout is not None, "asked for above"
        readable, _, _ = select.select([popen.stdout], [], [], _READY_WITHIN_S)
        if not readable or popen.stdout.readline() != b"watching\n":
            popen.kill()
            watchdog.stop()
            raise WatchdogError(
                "the watchdog did not come up, so nothing was injected. The end of its log:\n"
                f"{_tail(journal.with_name('watchdog.log'))}"
            )
        return watchdog

    def stop(self) -> None:
        """Lets it see that the run ended (write `run_ended` first, or it undoes everything) and waits for its end.

        Raises:
            WatchdogError: it goes on.
        """
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        try:
            self._popen.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            self._popen.kill()
            self._popen.wait()
            raise WatchdogError(
                f"the watchdog (pid {self.identity.pid}) did not end within {_END_WITHIN_S:g} s"
            ) from error


@dataclass(frozen=True)
class Guard:
    """A run that is entered, journalled and watched."""

    run: runs.Run
    journal: Journal


@contextlib.contextmanager
def guarded(out: Path) -> Iterator[Guard]:
    """Around a whole run: enters it, opens its journal, starts its watchdog; at the end cleans up and lets them go.

    Whatever the body left open is undone on the way out; if that fails the run stays entered, for `holdfast recover`.

    Raises:
        WatchdogError, RunsError, JournalError: it cannot be guarded; nothing was started.
        CleanupError: something could not be undone on the way out.
    """
    with runs.registered(out) as run, Journal.open(run.journal) as journal:
        journal.write("run_started", run_id=run.id, harness=run.harness)
        watchdog = Watchdog.start(run.journal)
        try:
            yield Guard(run, journal)
        finally:
            finish(journal, watchdog)


class CleanupError(Exception):
    """Something a run did could not be undone. `failures` says what, each with the command that removes it."""

    def __init__(self, failures: list[str]) -> None:
        super().__init__("; ".join(failures))
        self.failures = failures


def finish(journal: Journal, watchdog: Watchdog) -> None:
    """Undoes what a run left open, journals its end, and lets its watchdog go.

    Raises:
        CleanupError: something could not be undone, or its end not be journalled; the watchdog then stays, to take over
        once this process has ended.
    """
    try:
        report = recovery.clean_up(journal, by="harness")
        journal.write("run_ended", clean=report.clean)
    except JournalError as error:
        raise CleanupError([f"{error} Then run: holdfast recover {journal.path.parent}"]) from error
    failures = list(report.failures)
    try:
        watchdog.stop()
    except WatchdogError as error:
        failures.append(str(error))
    if failures:
        raise CleanupError(failures)


def main(arguments: list[str]) -> int:
    """Watches until standard input ends, then cleans up if the run did not; returns the exit code."""
    path, lifetime_s = Path(arguments[0]), float(arguments[1])
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever ends everything at once means the harness; it ends this
    harness = journals.outstanding(journals.read(path)).harness
    if harness is None:
        sys.stderr.write(f"{path}: no run_started: nobody to watch\n")
        return 1
    os.write(sys.stdout.fileno(), b"watching\n")
    if not _wait_for_end(harness, lifetime_s):
        sys.stderr.write(f"still running after {lifetime_s:g} s: giving up the watch\n")
        return 1
    try:
        return _clean_up(path)
    except JournalError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _wait_for_end(harness: ProcessIdentity, lifetime_s: float) -> bool:
    """Until the pipe closes or the harness is gone (a forked child may hold the pipe open); False if neither came."""
    deadline = time.monotonic() + lifetime_s
    while time.monotonic() < deadline:
        readable, _, _ = select.select([sys.stdin], [], [], _POLL_S)
        if (readable and not os.read(sys.stdin.fileno(), 1)) or not harness.alive():
            return True
    return False


def _clean_up(path: Path) -> int:
    """Nothing if the run ended by itself; the journal's lock says when the harness can no longer act."""
    if journals.outstanding(journals.read(path)).ended:
        return 0
    with Journal.open(path, _HARNESS_GONE_WITHIN_S) as journal:
        if journals.outstanding(journals.read(path)).ended:
            return 0
        report = recovery.clean_up(journal, by="watchdog")
    for line in (*report.undone, *report.failures):
        sys.stderr.write(f"{line}\n")
    return 0 if report.clean else 1


def _tail(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-2000:].strip() or "(empty)"
    except OSError as error:
        return f"({error})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
