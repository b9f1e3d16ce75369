"""The record of a load: one row for every attempt, in a compressed CSV file that survives its writer's death.

A row is written once its call has ended. What was written up to the last flush can be read even where the writer was
killed.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, cast

from holdfast_loadtests.codes import NEVER_SENT, ErrorClass, Outcome

NOTE_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt of one step. Times are unix seconds.

    `ordinal`, `step` and `attempt` name it within the run (from 0, 0 and 1). `row` is an index into the scenario's
    table, or -1. `lag_ms` is how much later than it could have been the generator sent it. `expected` says whether the
    answer was one of those the step expects, assertions included. `connection` is the number of the channel, each of
    which has at most one TCP connection at a time. `request` is a digest of the messages sent, `note` what the status
    or an assertion said. A call that was never sent has both `sent_s` and `done_s` at the moment it was given up.
    """

    ordinal: int
    step: int
    attempt: int
    phase: str
    scenario: str
    row: int
    service: str
    method: str
    type: str
    due_s: float
    sent_s: float
    done_s: float
    lag_ms: float
    code: str
    outcome: Outcome
    expected: bool
    connection: int
    error_class: ErrorClass
    request: str
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


COLUMNS: Final = tuple(field.name for field in fields(Call))


class RecordError(ValueError):
    """A file is no record of calls; the text says which and why."""


class RecordWriter:
    """Writes calls; `flush` makes what was written so far readable by others."""

    def __init__(self, path: Path) -> None:
        self._binary = gzip.open(path, "wb", compresslevel=1)  # noqa: SIM115  # closed by close()
        self._text = io.TextIOWrapper(self._binary, encoding="utf-8", newline="", write_through=False)
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def write(self, call: Call) -> None:
        """Adds one call."""
        self._rows.writerow(
            (
                call.ordinal,
                call.step,
                call.attempt,
                call.phase,
                call.scenario,
                call.row,
                call.service,
                call.method,
                call.type,
                f"{call.due_s:.6f}",
                f"{call.sent_s:.6f}",
                f"{call.done_s:.6f}",
                f"{call.lag_ms:.3f}",
                call.code,
                call.outcome,
                int(call.expected),
                call.connection,
                call.error_class,
                call.request,
                call.note[:NOTE_CHARS_MAX].replace("\r", " ").replace("\n", " "),
            )
        )

    def flush(self) -> None:
        """Hands what was written to the operating system in a form that can be decompressed."""
        self._text.flush()
        self._binary.flush()

    def close(self) -> None:
        """Ends the file; idempotent."""
        self._text.close()


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
    return Call(
        ordinal=int(row[0]),
        step=int(row[1]),
        attempt=int(row[2]),
        phase=row[3],
        scenario=row[4],
        row=int(row[5]),
        service=row[6],
        method=row[7],
        type=row[8],
        due_s=float(row[9]),
        sent_s=float(row[10]),
        done_s=float(row[11]),
        lag_ms=float(row[12]),
        code=row[13],
        outcome=cast("Outcome", row[14]),
        expected=row[15] == "1",
        connection=int(row[16]),
        error_class=cast("ErrorClass", row[17]),
        request=row[18],
        note=row[19],
    )
