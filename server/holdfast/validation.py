"""Checks requests against the field constraints in the proto files.

The constraints are options of our own, `(holdfast.rules.v1.field)`, rather than protovalidate's: protovalidate 1.x
for Python interprets CEL for every call, which costs more than the call itself, and 2.x runs on another protobuf
runtime than grpcio's generated code. These are compiled once per message type into plain closures.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sized
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from holdfast.errors import FieldViolation, invalid_fields
from holdfast.rules.v1 import rules_pb2

VIOLATIONS_MAX = 20
"""Most violations told at once; a request of ten thousand bad elements needs no ten thousand answers."""

NANOS_MAX = 999_999_999
"""Most nanoseconds of a google.protobuf.Duration beside its seconds."""

SECONDS_MAX = 315_576_000_000
"""Most seconds of a google.protobuf.Duration, some 10 000 years: from its definition."""

UTF8_BYTES_MAX = 4
"""Most bytes of a character."""

Check = Callable[[Message, str, list[FieldViolation]], None]
"""Checks one field of a message below a path and appends what is wrong."""


def check(message: Message) -> None:
    """Checks a request and clears the fields that only the server writes, and those it does not know.

    What is not known is not limited either: kept, it would be stored and sent to everyone.

    Raises:
        HoldfastError: INVALID_FIELD with the paths of at most `VIOLATIONS_MAX` fields.
    """
    violations: list[FieldViolation] = []
    message.DiscardUnknownFields()
    for rule in _checks_of(message.DESCRIPTOR):
        rule(message, "", violations)
    if violations:
        raise invalid_fields(violations[:VIOLATIONS_MAX])


@cache
def _checks_of(descriptor: Descriptor) -> tuple[Check, ...]:
    return tuple(check for field in descriptor.fields for check in _field_checks(field))


def _field_checks(field: FieldDescriptor) -> Iterable[Check]:
    rules = field.GetOptions().Extensions[rules_pb2.field]
    if rules.output_only:
        return [_clear(field.name)]
    if _is_map(field):
        return _map_checks(field, rules)
    if field.is_repeated:
        return _list_checks(field, rules)
    return _singular_checks(field, rules)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _clear(name: str) -> Check:
    def clear(message: Message, _path: str, _violations: list[FieldViolation]) -> None:
        message.ClearField(name)

    return clear


def _singular_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Iterable[Check]:
    name = field.name
    if field.message_type is not None:
        return _message_checks(field, rules)
    value_checks = _value_checks(field, rules)
    if not value_checks and not rules.required:
        return []

    is_required = rules.required

    def singular(message: Message, path: str, violations: list[FieldViolation]) -> None:
        value = getattr(message, name)
        if not value:
            if is_required:
                violations.append(FieldViolation(path + name, "is required"))
            return
        _apply(value_checks, value, path + name, violations)

    return [singular]


def _message_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Iterable[Check]:
    name, nested = field.name, field.message_type
    is_duration = nested is not None and nested.full_name == Duration.DESCRIPTOR.full_name
    duration_checks = _duration_checks(rules) if is_duration else []
    is_required = rules.required

    def submessage(message: Message, path: str, violations: list[FieldViolation]) -> None:
        if not message.HasField(name):
            if is_required:
                violations.append(FieldViolation(path + name, "is required"))
            return
        value = getattr(message, name)
        where = f"{path}{name}."
        _apply(duration_checks, value, path + name, violations)
        for check in _checks_of(nested):
            check(value, where, violations)

    return [submessage]


def _list_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Iterable[Check]:
    name, nested = field.name, field.message_type
    value_checks = [] if nested is not None else _value_checks(field, rules)
    is_required, inherits, is_unique = rules.required, rules.inherits, rules.unique
    is_count_right = _count_check(rules)

    def each(message: Message, path: str, violations: list[FieldViolation]) -> None:
        values = getattr(message, name)
        if not values and not is_required:
            return
        if not is_count_right(values, path + name, violations):
            return
        nested_checks = _checks_of(nested) if nested is not None else ()
        for index, value in enumerate(values):
            if len(violations) >= VIOLATIONS_MAX:
                return
            where = f"{path}{name}[{index}]"
            _apply(value_checks, value, where, violations)
            if inherits and not getattr(value, inherits):
                setattr(value, inherits, getattr(message, inherits))
            where += "."
            for check in nested_checks:
                check(value, where, violations)
        if is_unique and len(set(values)) < len(values):
            twice = Counter(values).most_common(1)[0][0]
            violations.append(FieldViolation(path + name, f"holds {twice!r} more than once; each must be different"))

    return [each]


def _map_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Iterable[Check]:
    name = field.name
    pattern = re.compile(rules.pattern) if rules.pattern else None
    is_long = _bytes_at_most(rules.bytes_max) if rules.bytes_max else None
    is_required, is_count_right = rules.required, _count_check(rules)

    def entries(message: Message, path: str, violations: list[FieldViolation]) -> None:
        values = getattr(message, name)
        if not values and not is_required:
            return
        if not is_count_right(values, path + name, violations):
            return
        for key in sorted(values):
            if pattern and not pattern.fullmatch(key):
                violations.append(FieldViolation(f'{path}{name}["{key}"]', f"the key must match {rules.pattern}"))
            if is_long is not None and (wrong := is_long(values[key])):
                violations.append(FieldViolation(f'{path}{name}["{key}"]', wrong))

    return [entries]


def _count_check(rules: rules_pb2.FieldRules) -> Callable[[Sized, str, list[FieldViolation]], bool]:
    """Whether the elements of a field are worth a look; says what is wrong with their number."""
    is_required, items_max = rules.required, rules.items_max

    def check(values: Sized, path: str, violations: list[FieldViolation]) -> bool:
        if is_required and not values:
            violations.append(FieldViolation(path, "is required: it must hold at least one element"))
        if items_max and len(values) > items_max:
            violations.append(FieldViolation(path, f"has {len(values)} elements, more than the {items_max} allowed"))
            return False
        return True

    return check


ValueCheck = Callable[[Any], str | None]
"""Says what is wrong with a value, or None."""


def _apply(checks: Iterable[ValueCheck], value: object, path: str, violations: list[FieldViolation]) -> None:
    for check in checks:
        wrong = check(value)
        if wrong is not None:
            violations.append(FieldViolation(path, wrong))


def _value_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[ValueCheck]:
    if field.enum_type is not None:
        return [_known_value(field.enum_type)]
    checks: list[ValueCheck] = []
    if rules.bytes_max:
        checks.append(_bytes_at_most(rules.bytes_max))
    if rules.pattern:
        checks.append(_matches(rules.pattern))
    checks += _bounds(
        rules.gte if rules.HasField("gte") else None, rules.lte if rules.HasField("lte") else None, _same, ""
    )
    return checks


def _duration_checks(rules: rules_pb2.FieldRules) -> list[ValueCheck]:
    lowest = rules.duration_ms_gte if rules.HasField("duration_ms_gte") else None
    highest = rules.duration_ms_lte if rules.HasField("duration_ms_lte") else None
    return [_is_duration, *_bounds(lowest, highest, _duration_ms, " ms")]


def _is_duration(value: Duration) -> str | None:
    """What protobuf itself says a Duration is; its own libraries accept others from the wire."""
    if abs(value.nanos) > NANOS_MAX:
        return f"has {value.nanos} nanos, which is no part of a second: at most {NANOS_MAX} either way"
    if abs(value.seconds) > SECONDS_MAX:
        return f"has {value.seconds} seconds, more than the {SECONDS_MAX} of a google.protobuf.Duration"
    if value.seconds * value.nanos < 0:
        return f"has {value.seconds} seconds and {value.nanos} nanos; both must have one sign"
    return None


def _same(value: int) -> float:
    return value


def _duration_ms(value: Duration) -> float:
    return float(value.seconds * 1000 + value.nanos / 1_000_000)


def _known_value(enum: EnumDescriptor) -> ValueCheck:
    known = frozenset(enum.values_by_number)

    def check(value: int) -> str | None:
        return None if value in known else f"{value} is no value of {enum.name}"

    return check


def _bytes_at_most(limit: int) -> ValueCheck:
    surely = limit // UTF8_BYTES_MAX

    def check(value: str | bytes) -> str | None:
        if len(value) <= surely:
            return None
        length = len(value.encode() if isinstance(value, str) else value)
        return None if length <= limit else f"has {length} bytes, more than the {limit} allowed"

    return check


def _matches(pattern: str) -> ValueCheck:
    fullmatch = re.compile(pattern).fullmatch

    def check(value: str) -> str | None:
        return None if fullmatch(value) else f"{value[:100]!r} must match {pattern}"

    return check


def _bounds(lowest: int | None, highest: int | None, measure: Callable[[Any], float], unit: str) -> list[ValueCheck]:
    checks: list[ValueCheck] = []
    if lowest is not None:
        checks.append(
            lambda value: None if measure(value) >= lowest else f"{measure(value):g}{unit} is below {lowest}{unit}"
        )
    if highest is not None:
        checks.append(
            lambda value: None if measure(value) <= highest else f"{measure(value):g}{unit} is above {highest}{unit}"
        )
    return checks
