"""Durations as people write them in files: `500ms`, `15s`, `1m30s`, `2h`, `30d`."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNIT_US: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_PATTERN: Final = "".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit})?" for unit in _UNIT_US)
_DURATION: Final = re.compile(_PATTERN)
_LONGEST: Final = timedelta(days=3660)
"""Ten years: longer is a slip of the pen, and would overflow deadlines."""

_EXAMPLES: Final = "'500ms', '15s', '1m30s', '2h' or '30d'"


def parse_duration(text: str) -> timedelta:
    """Reads a duration: numbers with the units d, h, m, s, ms, us, the largest first; a bare `0` is zero.

    Raises:
        ValueError: the text is no duration, is negative or exceeds ten years; the message says what to write.
    """
    text = text.strip()
    if text == "0":
        return timedelta()
    if text.startswith("-"):
        raise ValueError(f"a duration cannot be negative: {text!r}; write it like {_EXAMPLES}")
    match = _DURATION.fullmatch(text) if len(text) <= 64 else None
    if match is None or not text:
        raise ValueError(f"expected a duration like {_EXAMPLES}, got {text!r}{_missing_unit(text)}")
    microseconds = sum(Decimal(number) * _UNIT_US[unit] for unit, number in match.groupdict().items() if number)
    if microseconds > _LONGEST / timedelta(microseconds=1):
        raise ValueError(f"{text!r} is longer than ten years; write a shorter duration, like {_EXAMPLES}")
    return timedelta(microseconds=round(microseconds))


def _missing_unit(text: str) -> str:
    return f" (which unit? '{text}s' for seconds)" if re.fullmatch(r"\d+(\.\d+)?", text) else ""


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as the same duration, down to the microsecond.

    Raises:
        ValueError: the duration is negative.
    """
    rest = duration // timedelta(microseconds=1)
    if rest < 0:
        raise ValueError(f"a duration cannot be negative: {duration!r}")
    parts = []
    for unit, size in _UNIT_US.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _validate(value: object) -> timedelta:
    if isinstance(value, timedelta):
        if value < timedelta():
            raise ValueError(f"a duration cannot be negative: {value!r}")
        return value
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return parse_duration(f"{value}")
    raise ValueError(f"expected a duration like {_EXAMPLES}, got {value!r}")


Duration = Annotated[
    timedelta,
    BeforeValidator(_validate),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(0|(\d+(\.\d+)?(d|h|m|s|ms|us))+)$",
            "description": f"A duration with its unit: {_EXAMPLES}.",
        }
    ),
]
"""A pydantic field type: a `timedelta` written as text with its unit; bare numbers are refused, naming the lack."""
