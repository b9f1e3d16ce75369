"""Undoing what a run left behind, from its journal: faults first, then processes, in any process, any number of times.

Used by the harness on its way out, by the watchdog when the harness died, and by `holdfast recover`.
"""

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from holdfast_chaos import faults
from holdfast_chaos import journal as journals
from holdfast_chaos.faults import FaultError
from holdfast_chaos.journal import Entry, Journal, JournalError, Outstanding
from holdfast_chaos.processes import ProcessIdentity, find_marked, stop_identity
from holdfast_chaos.runs import Run
from holdfast_chaos.toxiproxy import ToxiproxyError

STOP_TIMEOUT_S: Final = 3.0
"""How long the processes of a dead run may take to end by SIGTERM, all together."""

WRITER_WITHIN_S: Final = 30.0
"""How long to wait for another that is cleaning up the same run, such as its watchdog."""

HARNESS_WITHIN_S: Final = 30.0
"""How long a live harness may take to heal and stop everything by itself, once told to end."""

_POLL_S: Final = 0.05


@dataclass
class Report:
    """What recovering one run came to. All lists hold sentences."""

    run_id: str | None
    journal: Path
    alive: bool = False
    """Its harness still runs, and it was left alone."""
    undone: list[str] = field(default_factory=list)
    undone_before: list[str] = field(default_factory=list)
    """What the watchdog, or an earlier recovery, had already undone."""
    failures: list[str] = field(default_factory=list)
    """What may still be there, each with the command that removes it."""

    @property
    def clean(self) -> bool:
        """Whether nothing is left."""
        return not self.failures and not self.alive


def clean_up(journal: Journal, by: str) -> Report:
    """Undoes everything a journal leaves open, and journals what it did.

    Right only where the run's harness is this process or dead.

    Args:
        journal: open for writing, so that no other process does the same at once.
        by: who does it: `harness`, `watchdog` or `recover`.

    Raises:
        JournalError: the journal is damaged or cannot be written.
    """
    entries = journals.read(journal.path)
    left = journals.outstanding(entries)
    report = Report(left.run_id, journal.path, undone_before=_undone_before(entries))
    failed = _undo_faults(left.intents, journal, by, report)
    _stop_processes(left, journal, by, report)
    _stop_unjournalled(left, journal, by, report)
    # A Toxiproxy that hung is gone now if it was the run's own, and its toxics with it.
    failed = _undo_faults({fault: left.intents[fault] for fault in failed}, journal, by, report)
    for fault, error in failed.items():
        journal.write("undo_failed", by=by, fault=fault, error=error)
        report.failures.append(f"fault {fault!r}: {error}")
    if report.undone and report.clean:
        journal.write("recovered", by=by)
    return report


def recover_run(run: Run, end_alive: bool = False) -> Report:
    """Recovers an entered run, and strikes it off once nothing of it is left.

    Args:
        run: from the registry.
        end_alive: end its harness first if it still runs; otherwise such a run is left alone.
    """
    if _is_journal_of(run):
        report = recover_journal(run.journal, end_alive)
    else:
        report = _once_dead(run.harness, end_alive, Report(run.id, run.journal), lambda: _without_journal(run))
    if report.clean:
        run.forget()
    return report


def recover_journal(path: Path, end_alive: bool = False) -> Report:
    """Recovers the run of a journal; `end_alive` as in `recover_run`."""
    try:
        left = journals.outstanding(journals.read(path))
        return _once_dead(left.harness, end_alive, Report(left.run_id, path), lambda: _recover_dead(path))
    except JournalError as error:
        return Report(None, path, failures=[str(error)])


def _recover_dead(path: Path) -> Report:
    with Journal.open(path, WRITER_WITHIN_S) as journal:
        return clean_up(journal, by="recover")


def _once_dead(
    harness: ProcessIdentity | None, end_alive: bool, report: Report, recover: Callable[[], Report]
) -> Report:
    """Recovers if the harness is dead, or does not survive being told to end; otherwise says that it lives."""
    if harness is None or not harness.alive():
        return recover()
    report.alive = True
    if not end_alive:
        return report
    if not _end_harness(harness):
        report.failures.append(f"its harness (pid {harness.pid}) does not end: kill -9 {harness.pid}; holdfast recover")
        return report
    report = recover()
    report.undone.insert(0, f"ended its harness (pid {harness.pid}), which was still running")
    return report


def _undone_before(entries: Iterable[Entry]) -> list[str]:
    return [
        f"{entry.fields.get('what', 'something')} (by the {entry.fields.get('by', 'harness')})"
        for entry in entries
        if entry.event == "undone"
    ]


def _undo_faults(intents: Mapping[str, Mapping[str, Any]], journal: Journal, by: str, report: Report) -> dict[str, str]:
    """The last intent first; returns why some could not be undone, by fault."""
    failed = {}
    for fault, record in reversed(list(intents.items())):
        try:
            what = faults.undo(record)
        except (FaultError, ToxiproxyError) as error:
            failed[fault] = str(error)
            continue
        journal.write("undone", by=by, fault=fault, what=what or f"nothing was left of fault {fault!r}")
        if what:
            report.undone.append(f"fault {fault!r}: {what}")
    return failed


def _stop_processes(left: Outstanding, journal: Journal, by: str, report: Report) -> None:
    """The last started first; all are told to end before any is waited for, so that slow ones do not add up."""
    _stop(dict(reversed(list(left.processes.items()))), journal, by, report)


def _stop_unjournalled(left: Outstanding, journal: Journal, by: str, report: Report) -> None:
    """Ends what carries the run's mark but is not in its journal: started a moment before the harness died."""
    if left.run_id is not None:
        _stop(dict.fromkeys(find_marked(left.run_id), "a process it started"), journal, by, report)


def _stop(processes: Mapping[ProcessIdentity, str], journal: Journal, by: str, report: Report) -> None:
    running = {identity for identity in processes if identity.alive()}
    for identity in running:
        identity.send(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for identity, name in processes.items():
        if not stop_identity(identity, max(0.0, deadline - time.monotonic())):
            message = f"{name} (pid {identity.pid}) does not end: kill -9 {identity.pid}"
            journal.write("undo_failed", by=by, identity=identity, error=message)
            report.failures.append(message)
            continue
        ended = "stopped {}" if identity in running else "{} had already ended"
        what = ended.format(f"{name} (pid {identity.pid})")
        journal.write("undone", by=by, identity=identity, what=what)
        if identity in running:
            report.undone.append(what)


def _without_journal(run: Run) -> Report:
    """Its folder was removed or used again: its processes still carry its mark, and its toxics end with Toxiproxy."""
    report = Report(run.id, run.journal)
    for identity in find_marked(run.id):
        if stop_identity(identity, STOP_TIMEOUT_S):
            report.undone.append(f"stopped a process it started (pid {identity.pid}); its journal is gone")
        else:
            report.failures.append(f"pid {identity.pid} does not end: kill -9 {identity.pid}")
    return report


def _is_journal_of(run: Run) -> bool:
    """Whether the journal is this run's, and not one of a later run in the same folder."""
    if not run.journal.is_file():
        return False
    try:
        return journals.outstanding(journals.read(run.journal)).run_id in {run.id, None}
    except JournalError:
        return True  # reported as damaged by whoever reads it next


def _end_harness(identity: ProcessIdentity) -> bool:
    """Asks a harness to end, which heals and stops everything, then ends it by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        identity.send(number)
        if _wait(lambda: not identity.alive(), HARNESS_WITHIN_S):
            return True
    return False


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
