"""Types of a step's values that have rules of their own: its messages, the pace of a stream, and metadata."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.paced import ON_ANSWER
from holdfast_loadtests.templates import has_holes
from holdfast_slo.durations import format_duration, parse_duration


def _pace(value: object) -> timedelta | Literal["on_answer"]:
    if value == ON_ANSWER:
        return ON_ANSWER
    try:
        found = value if isinstance(value, timedelta) else parse_duration(str(value))
    except ValueError as error:
        raise ValueError(f"expected {ON_ANSWER!r} or the interval between messages, like '20ms': {error}") from error
    if found <= timedelta():
        raise ValueError(f"expected an interval above 0s, got {value!r}; without `pace` all messages go at once")
    return found


def _pace_text(value: timedelta | str) -> str:
    return value if isinstance(value, str) else format_duration(value)


DEPTH_MAX: Final = 100
"""Deepest nesting of a request: more is more than protobuf reads, https://protobuf.dev/programming-guides/proto-limits."""


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        inner = [list(one.values() if isinstance(one, dict) else one) for one in level if isinstance(one, dict | list)]
        level = [item for items in inner for item in items]
        if not level:
            return value
    raise ValueError(f"nested more than {DEPTH_MAX} deep, which protobuf does not read")


Request = Annotated[dict[str, Any], AfterValidator(_shallow)]
"""A message as JSON, perhaps with holes in its texts."""


def _metadata(value: dict[str, str]) -> dict[str, str]:
    for text in value.values():
        if has_holes(text):
            raise ValueError(f"expected a value without holes, got {text!r}: metadata is the same for all calls")
    wire_metadata(value.items())
    return value


PaceOption = Annotated[
    timedelta | Literal["on_answer"],
    BeforeValidator(_pace),
    PlainSerializer(_pace_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": [ON_ANSWER, "20ms"]}),
]
"""`on_answer`, or the interval between a stream's messages."""

Metadata = Annotated[dict[str, str], AfterValidator(_metadata)]
"""Metadata of calls by name; a value whose name ends with -bin is base64."""
