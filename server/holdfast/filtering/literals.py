"""Values of a filter, read as the type of the field they are compared with, and the comparisons themselves."""

import operator as operators
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from holdfast.filtering.scanner import Literal, refusal, shown

Test = Callable[[Any], bool]
"""Compares one value that is there."""

TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operators.eq,
    ":": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}
_EQUALITY = ("=", ":", "!=")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")
_SECONDS = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_of(field: FieldDescriptor, operator: str, literal: Literal) -> Test:
    """The comparison of a field's single value, or of one element, with a literal.

    Raises:
        HoldfastError: INVALID_FIELD if the literal or the operator does not fit the field's type.
    """
    if literal.is_star and operator == ":":
        return _is_set(field)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _string_test(operator, literal)
    if literal.has_star:
        raise _wrong(field, literal, "takes no `*` (only texts do)")
    if field.message_type is not None:
        return _message_test(field, operator, literal)
    if field.enum_type is not None:
        _need_equality(field, operator, literal)
        return _compared(operator, _enum_number(field, field.enum_type, literal))
    if field.type == FieldDescriptor.TYPE_BOOL:
        _need_equality(field, operator, literal)
        return _compared(operator, _boolean(field, literal))
    return _compared(operator, _number(field, literal))


def _is_set(field: FieldDescriptor) -> Test:
    if field.message_type is not None:
        return lambda _value: True  # asked only of messages that are there
    return bool


def _compared(operator: str, wanted: object) -> Test:
    compare = _ORDER[operator]
    if compare is operators.eq:
        return lambda value: bool(value == wanted)
    return lambda value: compare(value, wanted)


def _string_test(operator: str, literal: Literal) -> Test:
    text = literal.text
    if literal.has_inner_star:
        raise refusal(
            literal.position, f"{shown(literal.text)} has a `*` inside; it may stand at the ends (`\\*` is a star)"
        )
    if operator == ":":
        return lambda value: text in value
    if not literal.has_star:
        return _compared(operator, text)
    if operator not in _EQUALITY:
        raise refusal(literal.position, f"{shown(literal.written)}: `{operator}` takes no `*`; `=` and `!=` do")
    fits = _wildcard(literal)
    return fits if operator == "=" else lambda value: not fits(value)


def _wildcard(literal: Literal) -> Test:
    text = literal.text
    if literal.starts_open and literal.ends_open:
        return lambda value: text in value
    if literal.starts_open:
        return lambda value: value.endswith(text)
    return lambda value: value.startswith(text)


def parts_of(field: FieldDescriptor) -> Mapping[str, FieldDescriptor]:
    """The fields of the message a field holds, by name."""
    return field.message_type.fields_by_name if field.message_type is not None else {}


def _message_test(field: FieldDescriptor, operator: str, literal: Literal) -> Test:
    kind = field.message_type.full_name if field.message_type is not None else ""
    if kind == TIMESTAMP:
        wanted = _timestamp_ns(field, literal)
    elif kind == DURATION:
        wanted = _duration_ns(field, literal)
    else:
        fields = ", ".join(parts_of(field))
        raise _wrong(field, literal, f"cannot be compared as a whole; name one of its fields: {fields}")
    compare = _ORDER[operator]
    return lambda value: compare(value.seconds * 1_000_000_000 + value.nanos, wanted)


def _enum_number(field: FieldDescriptor, enum: EnumDescriptor, literal: Literal) -> int:
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    for name in (literal.text, prefix + literal.text):
        if name in enum.values_by_name:
            return int(enum.values_by_name[name].number)
    raise _wrong(field, literal, f"takes one of {', '.join(enum.values_by_name)}")


def _boolean(field: FieldDescriptor, literal: Literal) -> bool:
    if literal.text not in ("true", "false"):
        raise _wrong(field, literal, "takes true or false")
    return literal.text == "true"


def _number(field: FieldDescriptor, literal: Literal) -> float:
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        if not _NUMBER.fullmatch(literal.text):
            raise _wrong(field, literal, "takes a number")
        return float(literal.text)
    if field.type == FieldDescriptor.TYPE_BYTES:
        raise _wrong(field, literal, "cannot be filtered by")
    if not _INTEGER.fullmatch(literal.text):
        raise _wrong(field, literal, "takes a whole number")
    return int(literal.text)


def _timestamp_ns(field: FieldDescriptor, literal: Literal) -> int:
    found = _RFC3339.fullmatch(literal.text)
    if not found:
        raise _not_a_time(field, literal)
    date, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise _not_a_time(field, literal) from None
    return (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + _fraction_ns(fraction)


def _not_a_time(field: FieldDescriptor, literal: Literal) -> Exception:
    return _wrong(field, literal, "takes a time as RFC 3339 has it, 2026-01-31T08:00:00Z")


def _duration_ns(field: FieldDescriptor, literal: Literal) -> int:
    found = _SECONDS.fullmatch(literal.text)
    if not found:
        raise _wrong(field, literal, "takes a duration in seconds, 30s")
    sign, seconds, fraction = found.groups()
    return (int(seconds) * 1_000_000_000 + _fraction_ns(fraction)) * (-1 if sign else 1)


def _fraction_ns(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))


def _need_equality(field: FieldDescriptor, operator: str, literal: Literal) -> None:
    if operator not in _EQUALITY:
        raise _wrong(field, literal, f"has no order; `{operator}` does not apply, `=` and `!=` do")


def _wrong(field: FieldDescriptor, literal: Literal, why: str) -> Exception:
    return refusal(literal.position, f"{shown(literal.written)}: {field.name} {why}")
