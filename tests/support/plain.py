"""Messages of the API as plain values, which JSON can hold and checkers read without the product's code."""

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

PACKAGE = "holdfast.coordination.v1"
"""Requests and responses of this package are kept whole in histories, as plain values."""


def is_kept_whole(message: Message) -> bool:
    """Whether a history keeps all of a message."""
    return message.DESCRIPTOR.file.package == PACKAGE


def plain(message: Message) -> dict[str, Any]:
    """Its fields that are set: enums by their names without prefix, times and durations in seconds, bytes in hex."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        return {str(key): _single(of, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        return name.removeprefix(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field.enum_type.name).upper() + "_")
    if isinstance(value, bytes):
        return value.hex()
    if not isinstance(value, Message):
        return value
    if value.DESCRIPTOR.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return value.seconds + value.nanos / 1e9  # type: ignore[attr-defined]
    return plain(value)


def revision_of(told: dict[str, Any]) -> int:
    """The revision that a plain response is of: its own, or that of the resource in it; 0 if it says none."""
    nested = (value.get("revision", 0) for value in told.values() if isinstance(value, dict))
    return int(told.get("revision", 0) or max(nested, default=0))
