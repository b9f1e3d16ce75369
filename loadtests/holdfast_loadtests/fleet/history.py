"""Histories: what each process of a fleet saw, one JSON object a line, in a file of its own.

A line is written whole before what follows it is done, so that a kill loses at most the line being written: readers
leave an unfinished last line out. Times are of the machine's monotonic clock, in seconds, and so comparable between its
processes.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

PATTERN: Final = "*.jsonl"

Event = Mapping[str, Any]


class HistoryError(Exception):
    """A history is damaged; the message names file and line."""


class Recorder:
    """Writes one process's history, within a block; without a folder it keeps none.

    Args:
        folder: where it goes; made if it is not there.
        name: of the process; the file is called `NAME-PID.jsonl`.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / f"{name}-{os.getpid()}.jsonl").open("a", buffering=1, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, event: str, **fields: object) -> None:
        """Adds an event, with its time."""
        if self._file is not None:
            self._file.write(json.dumps({"t_s": time.monotonic(), "event": event, **fields}) + "\n")


def read(path: Path) -> Iterator[Event]:
    """The events of one history, in order.

    Raises:
        HistoryError: a line other than an unfinished last one is no event.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            return
        try:
            found = json.loads(line)
            found["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise HistoryError(f"{path}:{number}: no event: {line.strip()[:200]}") from error
        yield found
