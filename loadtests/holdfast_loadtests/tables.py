"""Tables of values that requests are filled from: CSV with a header row, or one JSON object a line."""

import csv
import io
import json
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from holdfast.cli import InputError

Table = list[dict[str, str]]

BYTES_MAX: Final = 64 * 1024 * 1024
"""Larger tables are refused: every worker holds them in memory."""


def load_table(source: Path | Traversable) -> Table:
    """Reads a table; every row has the same columns, every value is text.

    Raises:
        InputError: the file cannot be read, has no rows, or a row does not fit; the message names file and line.
    """
    name = str(source) if isinstance(source, Path) else source.name
    text = _read(source, name)
    rows = list(_json_rows(text, name) if source.name.endswith(".jsonl") else _csv_rows(text, name))
    if not rows:
        raise InputError(f"{name}: no rows. Expected a header line and at least one row of values.")
    return rows


def _read(source: Path | Traversable, name: str) -> str:
    try:
        with source.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"{name}: cannot read this file: {error.strerror or error}. Check the path.") from error
    if len(raw) > BYTES_MAX:
        raise InputError(f"{name}: larger than {BYTES_MAX} bytes, the limit for a table. Give fewer rows.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def _csv_rows(text: str, name: str) -> Iterator[dict[str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        _check_columns(columns, name)
        for values in reader:
            if not values:
                continue
            if len(values) != len(columns):
                raise InputError(
                    f"{name}:{reader.line_num}: {len(values)} values, but the header names {len(columns)} columns "
                    f"({', '.join(columns)}). Quote values that hold commas."
                )
            yield dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num}: no valid CSV: {error}") from error


def _check_columns(columns: list[str], name: str) -> None:
    bad = [column for column in columns if not column.isidentifier()]
    if bad:
        raise InputError(
            f"{name}:1: column {bad[0]!r} is no name. Expected letters, digits and underscores, "
            "so that requests can say {{table.column}}."
        )
    if len(set(columns)) != len(columns):
        raise InputError(f"{name}:1: the header names a column twice: {', '.join(columns)}")


def _json_rows(text: str, name: str) -> Iterator[dict[str, str]]:
    columns: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row = _json_row(line, f"{name}:{number}")
        columns = columns or list(row)
        if set(row) != set(columns):
            raise InputError(f"{name}:{number}: columns {sorted(row)} differ from the first row's {sorted(columns)}")
        yield row


def _json_row(line: str, where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no valid JSON: {error}") from error
    if not isinstance(row, dict) or not row:
        raise InputError(f"{where}: expected one JSON object with the row's columns, got {line[:80]!r}")
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
