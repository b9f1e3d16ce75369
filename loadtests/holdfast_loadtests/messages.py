"""Messages known only by their descriptors: does a JSON value fit one, and what lies at a dotted path in one."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from holdfast_loadtests.hints import nearest

WELL_KNOWN: Final = "google.protobuf."
"""Messages of this package have JSON forms of their own (a Duration is "30s"): their fields are not looked into."""


INDEX_DIGITS_MAX: Final = 9
"""No message has a list of a thousand million."""


class MisfitError(ValueError):
    """A value does not fit a message; the text names the field."""


def descriptor_of(message_class: type[Message]) -> Descriptor:
    """What describes a message's fields (protobuf's stubs leave its type open)."""
    return cast("Descriptor", message_class.DESCRIPTOR)


def encode(message_class: type[Message], value: Mapping[str, Any]) -> bytes:
    """The message that a JSON object describes, serialised.

    Raises:
        MisfitError: a field is unknown or its value of the wrong type.
    """
    try:
        return json_format.ParseDict(dict(value), message_class()).SerializeToString()
    except (json_format.Error, TypeError, ValueError, SystemError) as error:  # the last for keys with lone surrogates
        raise misfit(descriptor_of(message_class), value, str(error)) from error


def misfit(descriptor: Descriptor, value: Mapping[str, Any], why: str) -> MisfitError:
    """The error for a value that does not fit, with the nearest field where one is unknown."""
    return MisfitError(_unknown_field(descriptor, value, "") or f"{descriptor.full_name}: {why}")


def _unknown_field(descriptor: Descriptor, value: object, path: str) -> str:
    if not isinstance(value, Mapping) or descriptor.full_name.startswith(WELL_KNOWN):
        return ""
    fields = fields_of(descriptor)
    for key, item in value.items():
        field = fields.get(str(key))
        if field is None:
            known = [name for name, found in fields.items() if name == found.name]
            return f"{descriptor.full_name} has no field {path + str(key)!r}; {nearest(str(key), known)}"
        items = item if isinstance(item, Sequence) and not isinstance(item, str) else [item]
        inner = None if is_map(field) else field.message_type
        problems = (_unknown_field(inner, one, f"{path}{key}.") for one in items if inner is not None)
        if problem := next(filter(None, problems), ""):
            return problem
    return ""


def fields_of(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """A message's fields by both their names."""
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def is_map(field: FieldDescriptor) -> bool:
    """Whether it is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _element(field: FieldDescriptor) -> FieldDescriptor:
    """What one item of the field is: for a map its value, else the field itself."""
    if not is_map(field):
        return field
    assert field.message_type is not None, "a map is made of entry messages"
    return field.message_type.fields_by_name["value"]


class Path:
    """A dotted path into messages of one type, as `agents.0.fence`: names of fields, indexes of lists, keys of maps."""

    def __init__(self, descriptor: Descriptor, text: str) -> None:
        """Resolves the path.

        Raises:
            MisfitError: it leads nowhere in such a message.
        """
        self.text = text
        self._steps: list[tuple[FieldDescriptor, str | int | None]] = []
        parts = text.split(".")
        current: Descriptor | None = descriptor
        while parts:
            if current is None:
                raise MisfitError(f"{text!r}: there is nothing inside {self._steps[-1][0].full_name}, a plain value")
            field = current.fields_by_name.get(parts[0])
            if field is None:
                raise MisfitError(
                    f"{current.full_name} has no field {parts[0]!r}; {nearest(parts[0], current.fields_by_name)}"
                )
            parts.pop(0)
            self._steps.append((field, self._item(field, parts)))
            current = _element(field).message_type

    def _item(self, field: FieldDescriptor, parts: list[str]) -> str | int | None:
        if not field.is_repeated:
            return None
        what = "a key" if is_map(field) else "an index, from 0"
        if not parts or not (is_map(field) or (parts[0].isdecimal() and len(parts[0]) <= INDEX_DIGITS_MAX)):
            raise MisfitError(f"{self.text!r}: {field.name} holds many; say which with {what}: '{field.name}.0'")
        return parts.pop(0) if is_map(field) else int(parts.pop(0))

    @property
    def sample(self) -> object:
        """A value of the type that lies at the path, to try a template with."""
        field = _element(self._steps[-1][0])
        if field.message_type is not None:
            return {} if not field.message_type.full_name.startswith(WELL_KNOWN) else None
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return "A" if field.type == FieldDescriptor.TYPE_STRING else "QQ=="
        return field.enum_type.values[0].name if field.enum_type is not None else field.default_value

    def value_in(self, message: Message) -> object:
        """What lies there, as JSON would have it (enums by name, messages as objects); None where nothing does."""
        current: Any = message
        for field, item in self._steps:
            current = getattr(current, field.name)
            if item is None:
                continue
            if isinstance(item, int):
                if item >= len(current):
                    return None
                current = current[item]
            elif item in current:
                current = current[item]
            else:
                return None
        return _plain(_element(self._steps[-1][0]), current)


def _plain(field: FieldDescriptor, value: object) -> object:
    if isinstance(value, Message):
        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field.enum_type is not None:
        assert isinstance(value, int), f"protobuf gives enums as numbers, not {value!r}"
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value
