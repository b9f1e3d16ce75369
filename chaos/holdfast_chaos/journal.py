"""The run's write-ahead journal: what was about to be done, on disk before it is done.

One JSON object a line, `{"seq", "t", "event", …}`, each fsynced before the call returns, so that another process can
tell after any crash what may be left behind. One writer at a time, by a lock the kernel drops when the writer dies.

| event | fields | when |
|---|---|---|
| run_started | run_id, harness | first |
| process_started, process_stopped | name, identity (command) | after |
| phase | name | at its start |
| intent | fault, kind, undo | **before** a fault is injected; `undo` is enough for another process to remove it |
| injected, heal_started, healed | fault | after, before, after |
| heal_failed | fault, error | it stays outstanding |
| undone, undo_failed | by, what (fault or identity) | by the watchdog or `holdfast recover` |
| run_ended | clean | after the run cleaned up after itself |
| recovered | by | after the watchdog or `recover` left nothing outstanding |
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final, Self, TypeVar

from holdfast_chaos.processes import ProcessIdentity

FILE_NAME: Final = "journal.jsonl"
_BYTES_MAX: Final = 64 * 2**20
_POLL_S: Final = 0.02

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class JournalError(Exception):
    """The journal cannot be written or read; the message says which, where and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `t` in unix seconds."""

    seq: int
    t: float
    event: str
    fields: Mapping[str, Any]


class Journal:
    """A journal open for writing. Safe to use from several threads."""

    def __init__(self, path: Path, file: BinaryIO, next_seq: int) -> None:
        """Use `open`."""
        self.path = path
        self._file = file
        self._next_seq = next_seq
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path, timeout_s: float = 0.0) -> Self:
        """Opens a journal for appending, making it if there is none; a last line torn by a crash is cut off.

        Args:
            path: the file.
            timeout_s: how long to wait for another writer to finish.

        Raises:
            JournalError: it cannot be written, another process writes it, or it is corrupt before its last line.
        """
        is_new = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}: give another folder") from error
        try:
            _take(file, path, timeout_s)
            entries, whole_bytes = _parse(path)
            os.ftruncate(file.fileno(), whole_bytes)
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            raise
        if is_new:
            _fsync_folder(path.parent)
        return cls(path, file, entries[-1].seq + 1 if entries else 0)

    def write(self, event: str, **fields: object) -> None:
        """Appends one entry and returns once it is on disk; process identities may be given as they are.

        Raises:
            JournalError: it is not on disk; whatever was to follow must not happen.
        """
        with self._lock:
            line = {"seq": self._next_seq, "t": round(time.time(), 6), "event": event, **fields}
            data = json.dumps(line, default=_plain, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            try:
                self._append(data)
            except (OSError, ValueError) as error:
                raise JournalError(f"cannot write {event!r} to {self.path}: {error}: is the disk full?") from error
            self._next_seq += 1

    def close(self) -> None:
        """Closes it and lets another process write. Repeatable."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(data)
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), size)  # no torn line may stand before whole ones
            raise
        if written != len(data):
            os.ftruncate(self._file.fileno(), size)
            raise OSError("only part of the line fitted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> list[Entry]:
    """Every whole entry, in order; a last line torn by a crash is left out.

    Raises:
        JournalError: there is no such file, or a line before the last is no entry.
    """
    return _parse(path)[0]


@dataclass(frozen=True)
class Outstanding:
    """What a journal says may be left: intents not healed, processes not stopped, in the order they came."""

    run_id: str | None = None
    harness: ProcessIdentity | None = None
    ended: bool = False
    intents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Undo records by fault id."""
    processes: Mapping[ProcessIdentity, str] = field(default_factory=dict)
    """Names by identity."""


def outstanding(entries: Iterable[Entry]) -> Outstanding:
    """Works out what may be left. An intent counts from when it is written, whether or not the injection followed.

    Raises:
        JournalError: an entry lacks a field it must have.
    """
    state = Outstanding()
    for entry in entries:
        try:
            state = _after(state, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise JournalError(
                f"journal entry {entry.seq} ({entry.event}) lacks something or is malformed: {error!r}"
            ) from error
    return state


def _after(state: Outstanding, entry: Entry) -> Outstanding:
    fields = entry.fields
    match entry.event:
        case "run_started":
            harness = ProcessIdentity.from_json(fields["harness"])
            return replace(state, run_id=str(fields["run_id"]), harness=harness)
        case "process_started":
            identity = ProcessIdentity.from_json(fields["identity"])
            return replace(state, processes={**state.processes, identity: str(fields["name"])})
        case "intent":
            return replace(state, intents={**state.intents, str(fields["fault"]): dict(fields["undo"])})
        case "healed" | "undone" if "fault" in fields:
            return replace(state, intents=_without(state.intents, fields["fault"]))
        case "process_stopped" | "undone" if "identity" in fields:
            return replace(state, processes=_without(state.processes, ProcessIdentity.from_json(fields["identity"])))
        case "run_ended":
            return replace(state, ended=True)
        case _:
            return state


def _without(mapping: Mapping[KeyT, ValueT], key: object) -> dict[KeyT, ValueT]:
    return {found: value for found, value in mapping.items() if found != key}


def _parse(path: Path) -> tuple[list[Entry], int]:
    """The whole entries and how many bytes they take."""
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}. Give the folder of a run.") from error
    if len(data) > _BYTES_MAX:
        raise JournalError(f"the journal {path} exceeds {_BYTES_MAX} bytes: it is surely no journal.")
    lines = data.split(b"\n")
    entries = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was never acknowledged
        try:
            entries.append(_entry(line))
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(
                f"{path}:{number}: no journal entry: {line[:100]!r} ({error}). The file was changed or damaged; "
                "what the lines before say can be undone by hand."
            ) from error
    return entries, len(data) - len(lines[-1])


def _entry(line: bytes) -> Entry:
    fields = json.loads(line)
    return Entry(int(fields.pop("seq")), float(fields.pop("t")), str(fields.pop("event")), fields)


def _take(file: BinaryIO, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise JournalError(f"another process writes the journal {path}: is its run still going?") from None
            time.sleep(_POLL_S)
        else:
            return


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: object) -> object:
    if isinstance(value, ProcessIdentity):
        return {"pid": value.pid, "create_time": value.create_time}
    raise TypeError(f"cannot journal {value!r}: give plain JSON values or a process identity")
