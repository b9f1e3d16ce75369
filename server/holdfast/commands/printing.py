"""What commands print: tables and fields for people, one JSON object a line for programs."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

CELL_CHARS_MAX = 60
"""Longest cell of a table; the whole is in `get`, and in `--json`."""


@dataclass(frozen=True)
class Printer:
    """Prints resources.

    Args:
        as_json: One object a line, by the names of the API, instead of what people read.
    """

    as_json: bool

    def rows(self, columns: Sequence[str], rows: Iterable[tuple[Message, Sequence[str]]]) -> None:
        """A table. Rows are looked at once all are there: a page would not know how wide the next is."""
        if self.as_json:
            for message, _ in rows:
                echo(_line(message))
            return
        cells = [tuple(map(_cell, row)) for _, row in rows]
        if not cells:
            echo("There are none.", err=True)
            return
        widths = [max(len(row[n]) for row in [tuple(columns), *cells]) for n in range(len(columns))]
        echo(_bold(_aligned(columns, widths)))
        for row in cells:
            echo(_aligned(row, widths))

    def change(self, what: str, message: Message, row: Sequence[str]) -> None:
        """One line of a watch."""
        echo(json.dumps({"event": what, **_dict(message)}) if self.as_json else "  ".join([what, *map(_cell, row)]))

    def resource(self, message: Message) -> None:
        """All of one resource: a field a line."""
        if self.as_json:
            echo(_line(message))
            return
        fields = list(_flattened("", _dict(message)))
        width = max((len(path) for path, _ in fields), default=0)
        for path, value in fields:
            echo(f"{path.ljust(width)}  {printable(value)}")


def echo(text: str, *, err: bool = False) -> None:
    """Prints a line, in colour only where a person looks who has not said NO_COLOR."""
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def printable(text: str) -> str:
    """Text without what would move the cursor: names and reasons come from whoever sent them."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def id_of(name: str) -> str:
    """The last part of a name."""
    return name.rsplit("/", 1)[-1]


def enum_name(message: Message, field: str) -> str:
    """The value of an enum without the prefix it has in the API: LIVE of AGENT_LIVENESS_LIVE."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert descriptor is not None, f"{field} is no enum"
    prefix = f"{_screaming(descriptor.name)}_"
    value = descriptor.values_by_number.get(getattr(message, field))
    return value.name.removeprefix(prefix) if value is not None else str(getattr(message, field))


def time_of(message: Message, field: str) -> str:
    """A time of day, UTC, to the second; empty if it is not set."""
    if not message.HasField(field):
        return ""
    return f"{getattr(message, field).ToDatetime():%Y-%m-%d %H:%M:%S}Z"


def _screaming(name: str) -> str:
    return "".join(f"_{char}" if char.isupper() else char.upper() for char in name)[1:]


def _cell(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= CELL_CHARS_MAX else shown[: CELL_CHARS_MAX - 1] + "…"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _line(message: Message) -> str:
    return json.dumps(_dict(message))


def _flattened(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Paths and values: `capabilities[0].id`, `review`."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flattened(f"{path}.{key}" if path else str(key), each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _flattened(f"{path}[{index}]", each)
    else:
        yield path, str(value)
