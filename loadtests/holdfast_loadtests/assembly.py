"""Messages put together from pieces that are serialised beforehand: only what a hole fills is made for each call.

A message whose template has two holes of text costs some two microseconds; to fill a JSON object and have protobuf
parse it costs thirty. What comes out is byte for byte what protobuf makes of the filled object.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from holdfast_loadtests.messages import WELL_KNOWN, MisfitError, encode, fields_of, is_map, misfit
from holdfast_loadtests.templates import Render, Scope, compile_template, has_holes

Encode = Callable[[Scope], bytes]
_Piece = bytes | Encode

_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
}
"""Fields written as plain varints, and their ranges."""

_VARINT, _BYTES = 0, 2


def compile_message(message_class: type[Message], value: Mapping[str, Any]) -> Encode:
    """A function that gives the message a template describes, serialised.

    The template must have been tried on the message; what a hole brings later is checked as it comes.

    Raises:
        MisfitError: (by the function) what a hole was filled with does not fit its field.
    """
    descriptor: Any = message_class.DESCRIPTOR
    return _joined(_pieces(descriptor, value))


def _joined(pieces: list[_Piece]) -> Encode:
    """One function of all pieces, neighbours that do not change merged."""
    merged: list[_Piece] = []
    for piece in pieces:
        before = merged[-1] if merged else None
        if isinstance(piece, bytes) and isinstance(before, bytes):
            merged[-1] = before + piece
        elif piece != b"":
            merged.append(piece)
    if all(isinstance(piece, bytes) for piece in merged):
        constant = b"".join(piece for piece in merged if isinstance(piece, bytes))
        return lambda _scope: constant
    if len(merged) == 1:
        return _as_function(merged[0])
    functions = [_as_function(piece) for piece in merged]
    return lambda scope: b"".join([function(scope) for function in functions])


def _as_function(piece: _Piece) -> Encode:
    return (lambda _scope: piece) if isinstance(piece, bytes) else piece


def _pieces(descriptor: Descriptor, value: Mapping[str, Any]) -> list[_Piece]:
    """The pieces of a message, in the order of field numbers, as protobuf serialises them."""
    fields = fields_of(descriptor)
    found: list[tuple[int, list[_Piece]]] = []
    for key, item in value.items():
        field = fields.get(key)
        if field is None:  # it is refused as it would be without holes
            raise misfit(descriptor, value, f"no field {key!r}")
        found.append((field.number, _field_pieces(descriptor, field, item)))
    return [piece for _, pieces in sorted(found, key=lambda entry: entry[0]) for piece in pieces]


def _field_pieces(parent: Descriptor, field: FieldDescriptor, item: object) -> list[_Piece]:
    if not has_holes(item):
        return [_serialised(parent, field, item)]
    inner = field.message_type
    if inner is None or is_map(field) or inner.full_name.startswith(WELL_KNOWN):
        return [_filled(parent, field, item)]
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated and isinstance(item, list | tuple):
        if all(isinstance(one, Mapping) for one in item):
            return [_nested(field, _joined(_pieces(inner, one))) for one in item]
    elif field.type == FieldDescriptor.TYPE_MESSAGE and isinstance(item, Mapping):
        return [_nested(field, _joined(_pieces(inner, item)))]
    return [_filled(parent, field, item)]


def _nested(field: FieldDescriptor, body: Encode) -> Encode:
    tag = _tag(field, _BYTES)

    def encode_nested(scope: Scope) -> bytes:
        found = body(scope)
        return tag + varint(len(found)) + found

    return encode_nested


def _filled(parent: Descriptor, field: FieldDescriptor, item: object) -> Encode:
    """A field that a hole fills: text and whole numbers directly, the rest as protobuf would."""
    render = compile_template(item)
    slow = _by_protobuf(parent, field, render)
    if field.is_repeated:
        return slow
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(field, render, parent)
    if field.type in _INTEGERS:
        return _integer(field, render, parent)
    return slow


def _text(field: FieldDescriptor, render: Render, parent: Descriptor) -> Encode:
    tag, empty = _tag(field, _BYTES), _tag(field, _BYTES) + b"\0" if field.has_presence else b""

    def encode_text(scope: Scope) -> bytes:
        value = render(scope)
        if type(value) is not str:
            return _serialised(parent, field, value)
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise MisfitError(f"{parent.full_name}.{field.name}: {value!r} is no valid Unicode") from error
        size = len(raw)
        if not size:
            return empty
        return tag + (bytes((size,)) if size < 128 else varint(size)) + raw

    return encode_text


def _integer(field: FieldDescriptor, render: Render, parent: Descriptor) -> Encode:
    tag = _tag(field, _VARINT)
    lowest, highest = _INTEGERS[field.type]
    has_presence = field.has_presence

    def encode_integer(scope: Scope) -> bytes:
        value = render(scope)
        if type(value) is not int or not lowest <= value <= highest:
            return _serialised(parent, field, value)  # text with digits, and what must be refused
        if not value and not has_presence:
            return b""
        return tag + varint(value if value >= 0 else value + (1 << 64))

    return encode_integer


def _by_protobuf(parent: Descriptor, field: FieldDescriptor, render: Render) -> Encode:
    return lambda scope: _serialised(parent, field, render(scope))


def _serialised(parent: Descriptor, field: FieldDescriptor, value: object) -> bytes:
    """One field alone, as protobuf serialises it."""
    message_class: Any = message_factory.GetMessageClass(parent)
    if value is None:  # unset, as JSON's null is
        return b""
    return encode(message_class, {field.name: value})


def _tag(field: FieldDescriptor, wire_type: int) -> bytes:
    return varint(field.number << 3 | wire_type)


def varint(value: int) -> bytes:
    """A number as protobuf writes it, seven bits a byte; it must not be negative."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
