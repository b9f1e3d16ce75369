"""Which runs there are on this machine: one small file each, so that `holdfast recover` finds the dead ones.

A run's file is removed once nothing of it is left; it names the journal, where everything else is.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from holdfast_chaos.journal import FILE_NAME, JournalError, outstanding, read
from holdfast_chaos.processes import RUN_VARIABLE, ProcessIdentity

RUNS_MAX: Final = 500
"""More dead runs than this are not kept apart: they are to be recovered first."""

_FILE_BYTES_MAX: Final = 64 * 1024


class RunsError(Exception):
    """The registry of runs cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its id, the harness that carries it out, and its journal. `started_s` in unix seconds."""

    id: str
    harness: ProcessIdentity
    journal: Path
    started_s: float

    def alive(self) -> bool:
        """Whether its harness still runs."""
        return self.harness.alive()

    def forget(self) -> None:
        """Strikes it off. Repeatable."""
        _file(self.id).unlink(missing_ok=True)
        if os.environ.get(RUN_VARIABLE) == self.id:
            del os.environ[RUN_VARIABLE]


def folder() -> Path:
    """Where the files are: `$XDG_STATE_HOME/holdfast/runs`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "holdfast" / "runs"


def register(journal: Path) -> Run:
    """Enters a run of this process, before it starts anything, and marks what it starts from now on as its own.

    Raises:
        RunsError: the registry is full of runs nobody recovered, or cannot be written.
    """
    if len(known()) >= RUNS_MAX:
        raise RunsError(f"{RUNS_MAX} runs in {folder()} were never recovered: run `holdfast recover` first")
    run = Run(
        id=f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}",
        harness=ProcessIdentity.of(os.getpid()),
        journal=journal.resolve(),
        started_s=time.time(),
    )
    try:
        _write(run)
    except OSError as error:
        raise RunsError(
            f"cannot enter the run in {folder()}: {error.strerror}; set XDG_STATE_HOME elsewhere"
        ) from error
    os.environ[RUN_VARIABLE] = run.id
    return run


@contextlib.contextmanager
def registered(out: Path) -> Iterator[Run]:
    """Around a whole run whose folder is `out`: enters it, and strikes it off at the end if nothing of it is left.

    Raises:
        RunsError: it cannot be entered.
    """
    run = register(out / FILE_NAME)
    try:
        yield run
    finally:
        if nothing_left(run.journal):
            run.forget()


def nothing_left(journal: Path) -> bool:
    """Whether a journal says that no fault may be in force and no process may run."""
    try:
        left = outstanding(read(journal))
    except JournalError:
        return not journal.exists()  # the run never got as far as starting anything
    return not left.intents and not any(identity.alive() for identity in left.processes)


def known() -> list[Run]:
    """Every run entered and not yet struck off, the oldest first; files that make no sense are left out."""
    found = []
    for path in sorted(folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found.append(_read(path))
    return sorted(found, key=lambda run: run.started_s)


def _file(run_id: str) -> Path:
    return folder() / f"{run_id}.json"


def _write(run: Run) -> None:
    path = _file(run.id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fields = {**asdict(run), "journal": str(run.journal)}
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _read(path: Path) -> Run:
    with path.open(encoding="utf-8") as file:
        fields = json.loads(file.read(_FILE_BYTES_MAX))
    if fields["id"] != path.stem:
        raise ValueError(f"{path} is the file of another run: {fields['id']!r}")
    return Run(
        id=fields["id"],
        harness=ProcessIdentity.from_json(fields["harness"]),
        journal=Path(fields["journal"]),
        started_s=float(fields["started_s"]),
    )
