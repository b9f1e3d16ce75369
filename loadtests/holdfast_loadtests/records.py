"""The record of a load: one row for every attempt, in a compressed CSV file that survives its writer's death.

A row is written once its call has ended. What was written up to the last flush can be read even where the writer was
killed.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast

from holdfast_loadtests.codes import NEVER_SENT, ErrorClass, Outcome

NOTE_CHARS_MAX: Final = 200


class Call(NamedTuple):
    """One attempt of one step. Times are unix seconds.

    `ordinal`, `step` and `attempt` name it within the run (from 0, 0 and 1). `row` is an index into the scenario's
    table, or -1. `connection` is the number of the channel, each of which has at most one TCP connection at a time.
    `lag_ms` is how much later than it could have been the generator sent it. `request` is a digest of the messages
    sent. `expected` says whether the answer was one of those the step expects, assertions included; `note` is what the
    status or an assertion said. A call that was never sent has both `sent_s` and `done_s` at the moment it was given
    up.
    """

    ordinal: int
    step: int
    attempt: int
    row: int
    connection: int
    due_s: float
    sent_s: float
    done_s: float
    lag_ms: float
    request: str
    phase: str
    scenario: str
    service: str
    method: str
    type: str
    code: str
    outcome: Outcome
    expected: bool
    error_class: ErrorClass
    note: str

    @property
    def latency_ms(self) -> float:
        """From the moment the call was due, not sent, so that waiting for the generator or a stalled server counts."""
        return (self.done_s - self.due_s) * 1000.0

    @property
    def sent(self) -> bool:
        """Whether it left the generator."""
        return self.code != NEVER_SENT

    @property
    def call(self) -> str:
        """`service/method`."""
        return f"{self.service}/{self.method}"


COLUMNS: Final = tuple(re.sub("_m?s$", "_us", name) for name in Call._fields)
"""Of the file: times are whole microseconds there, which are written in a third of the time that fractions take."""

LINES_AT_ONCE: Final = 256
"""Lines gathered before they are compressed: one at a time costs as much as all else that is done for the record."""

_NUMBERS: Final = "%d," * 9

_GOOD: Final = "OK,ok,1,,\n"
"""The end of nearly every line: an answer as it was expected, of which there is nothing to say."""


class RecordError(ValueError):
    """A file is no record of calls; the text says which and why."""


class RecordWriter:
    """Writes calls; `flush` makes what was written so far readable by others."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path, "wb", compresslevel=1)  # noqa: SIM115  # closed by close()
        self._lines = [_line(*COLUMNS)]

    def write(self, numbers: tuple[int, int, int, int, int, int, int, int, int], request: str, shared: str) -> None:
        """Adds one call.

        Args:
            numbers: ordinal, step, attempt, row and connection; due, sent and done in unix microseconds; lag in
                microseconds.
            request: the digest of what was sent.
            shared: the rest of the line, as `labels_of` and `end_of` give it.
        """
        lines = self._lines
        lines.append(_NUMBERS % numbers + request + shared)
        if len(lines) >= LINES_AT_ONCE:
            self._compress()

    def flush(self) -> None:
        """Hands what was written to the operating system in a form that can be decompressed."""
        self._compress()
        self._file.flush()

    def close(self) -> None:
        """Ends the file; idempotent."""
        if not self._file.closed:
            self._compress()
            self._file.close()

    def _compress(self) -> None:
        self._file.write("".join(self._lines).encode())
        self._lines.clear()


def labels_of(phase: str, scenario: str, service: str, method: str, type_: str) -> str:
    """What lines of one step in one phase have in common, made once for all of them."""
    return "," + _line(phase, scenario, service, method, type_)[:-1] + ","


def end_of(code: str, outcome: Outcome, expected: bool, error_class: ErrorClass, note: str) -> str:
    """The part of a line that says how a call ended."""
    if code == "OK" and expected and not note:
        return _GOOD
    note = note[:NOTE_CHARS_MAX].replace("\r", " ").replace("\n", " ")
    return _line(code, outcome, int(expected), error_class, note)


def _line(*values: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def read_calls(path: Path) -> Iterator[Call]:
    """Calls in the order in which they ended; a torn end, left by a killed writer, is passed over.

    Raises:
        RecordError: the file is missing or is no record of calls.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = csv.reader(_whole_lines(file))
            header = tuple(next(rows, ()))
            if header != COLUMNS:
                raise RecordError(f"{path}: no record of calls: its columns are {', '.join(header) or 'missing'}")
            yield from map(_call, rows)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot read this record of calls: {error}") from error


def _whole_lines(file: io.TextIOBase) -> Iterator[str]:
    try:
        for line in file:
            if line.endswith("\n"):
                yield line
    except EOFError:
        return  # the writer was killed between two flushes


def _call(row: list[str]) -> Call:
    ordinal, step, attempt, table_row, connection, due_us, sent_us, done_us, lag_us, request, *labels = row
    phase, scenario, service, method, type_, code, outcome, expected, error_class, note = labels
    return Call(
        int(ordinal),
        int(step),
        int(attempt),
        int(table_row),
        int(connection),
        int(due_us) / 1e6,
        int(sent_us) / 1e6,
        int(done_us) / 1e6,
        int(lag_us) / 1e3,
        request,
        phase,
        scenario,
        service,
        method,
        type_,
        code,
        cast("Outcome", outcome),
        expected == "1",
        cast("ErrorClass", error_class),
        note,
    )
