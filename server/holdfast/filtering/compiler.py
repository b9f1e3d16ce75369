"""From a filter's tree to one closure, for the messages of one type."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from holdfast.filtering.literals import DURATION, TIMESTAMP, Test, parts_of, test_of
from holdfast.filtering.parser import All, Comparison, Either, Node, Not, parse
from holdfast.filtering.scanner import Literal, Path, refusal, shown

FILTER_BYTES_MAX = 4096
"""Longest filter, as the proto files say."""

COMPILED_MAX = 256
"""Filters kept compiled; each takes at most some 100 KB."""

COST_MAX = 1280
"""Most that a filter may ask of a message: a comparison costs 1, `ELEMENT_COST` times as much for each repeated field
on its way. An agent has at most 256 capabilities with 32 tags each: then, this takes some 15 ms.
"""

ELEMENT_COST = 8
"""How many elements a repeated field is taken to have; most have fewer."""

COST_AT_ONCE = 5000
"""How much is asked without a pause: some ms; if every agent were the largest there can be, some 50 ms."""

MESSAGES_AT_ONCE = 2000
"""Most messages looked at without a pause."""

Match = Callable[[Any], bool]
"""Does a message match?"""


class Filter:
    """A compiled filter; equal texts share one.

    Attributes:
        text: As it was given.
        matches: Says whether a message of the type it was compiled for matches.
        messages_at_once: How many messages to judge before others get their turn.
    """

    __slots__ = ("_fields", "matches", "messages_at_once", "text")

    def __init__(self, text: str, matches: Callable[[Message], bool], asked: "_Asked") -> None:
        self.text = text
        self.matches = matches
        self.messages_at_once = max(1, min(MESSAGES_AT_ONCE, COST_AT_ONCE // max(1, asked.cost)))
        self._fields = frozenset(asked.fields)

    @property
    def is_empty(self) -> bool:
        """Does it match everything because it says nothing?"""
        return not self._fields

    def names(self, field: str) -> bool:
        """Does it mention this field of the message, or a part of it?"""
        return field in self._fields


@lru_cache(maxsize=COMPILED_MAX)
def compile_filter(text: str, descriptor: Descriptor) -> Filter:
    """Compiles a filter over the messages of a type; the empty one matches all. See the package for the language.

    Args:
        text: The filter, at most `FILTER_BYTES_MAX` bytes.
        descriptor: The messages' type.

    Raises:
        HoldfastError: INVALID_FIELD about `filter`, with the position, the offending text and what would be right.
    """
    if len(text.encode(errors="replace")) > FILTER_BYTES_MAX:
        raise refusal(0, f"has more than the {FILTER_BYTES_MAX} bytes allowed; ask in parts")
    asked = _Asked()
    return Filter(text, _compile(parse(text), descriptor, asked), asked)


@dataclass(slots=True)
class _Asked:
    """What the comparisons of a filter have asked so far."""

    fields: set[str] = field(default_factory=set)
    cost: int = 0

    def add(self, path: Path, descriptor: Descriptor) -> None:
        """Counts one more.

        Raises:
            HoldfastError: INVALID_FIELD beyond `COST_MAX`.
        """
        self.fields.add(path.parts[0])
        self.cost += _cost(path.parts, descriptor)
        if self.cost > COST_MAX:
            told = f"too many comparisons of repeated fields (cost {self.cost}, at most {COST_MAX}); ask in parts"
            raise refusal(path.position, told)


def _cost(parts: Sequence[str], descriptor: Descriptor | None) -> int:
    """How many comparisons one is, as `ELEMENT_COST` has it; fields that are not there cost nothing more."""
    cost = 1
    for part in parts:
        there = descriptor.fields_by_name.get(part) if descriptor is not None else None
        if there is None or (_is_map(there) and len(parts) > 1):
            break
        cost *= ELEMENT_COST if there.is_repeated else 1
        descriptor = there.message_type
    return cost


def _compile(node: Node, descriptor: Descriptor, asked: _Asked) -> Match:
    """The closure of a tree, whose depth the parser has bounded; counts what it asks."""
    match node:
        case Comparison(path, operator, literal):
            asked.add(path, descriptor)
            return _along(path, 0, descriptor, operator, literal)
        case Not(operand):
            refused = _compile(operand, descriptor, asked)
            return lambda message: not refused(message)
        case All(operands):
            return _all([_compile(each, descriptor, asked) for each in operands])
        case Either(operands):
            return _either([_compile(each, descriptor, asked) for each in operands])


def _all(tests: list[Match]) -> Match:
    def matches(message: Message) -> bool:
        for test in tests:  # noqa: SIM110 - a generator for every message costs more than the tests
            if not test(message):
                return False
        return True

    return matches


def _either(tests: list[Match]) -> Match:
    def matches(message: Message) -> bool:
        for test in tests:  # noqa: SIM110 - as above
            if test(message):
                return True
        return False

    return matches


def _along(path: Path, at: int, descriptor: Descriptor, operator: str, literal: Literal) -> Match:
    """The comparison at the end of a path, from its part `at` on."""
    field, rest = _field(path, at, descriptor), path.parts[at + 1 :]
    name = field.name
    if _is_map(field):
        return _map_match(field, ".".join(rest), operator, literal)
    if not rest:
        return _repeated_match(field, operator, literal) if field.is_repeated else _singular(field, operator, literal)
    nested = field.message_type
    if nested is None or nested.full_name in (TIMESTAMP, DURATION):
        raise refusal(path.position, f"{shown('.'.join(path.parts))}: {name} has no fields of its own")
    if field.is_repeated:
        inner = _along(path, at + 1, nested, _positive(operator, literal), literal)
        return _over_elements(name, inner, operator)
    inner = _along(path, at + 1, nested, operator, literal)
    return lambda message: message.HasField(name) and inner(getattr(message, name))


def _field(path: Path, at: int, descriptor: Descriptor) -> FieldDescriptor:
    name = path.parts[at]
    field = descriptor.fields_by_name.get(name)
    if field is None:
        known = list(descriptor.fields_by_name)
        near = difflib.get_close_matches(name[:64], known, n=3, cutoff=0.5)
        told = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(known)}"
        raise refusal(path.position, f"{descriptor.name} has no field {shown(name)}; {told}")
    return field


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _singular(field: FieldDescriptor, operator: str, literal: Literal) -> Match:
    name, test = field.name, test_of(field, operator, literal)
    if field.has_presence:
        return lambda message: message.HasField(name) and test(getattr(message, name))
    if operator == "=" and not literal.has_star:
        return _equal(name, test)
    return lambda message: test(getattr(message, name))


def _equal(name: str, test: Test) -> Match:
    return lambda message: test(getattr(message, name))


def _map_match(field: FieldDescriptor, key: str, operator: str, literal: Literal) -> Match:
    name = field.name
    if not key:
        return _has_key(field, operator, literal)
    value = parts_of(field)["value"]
    if literal.is_star and operator == ":":
        return lambda message: key in getattr(message, name)
    test = test_of(value, operator, literal)

    def matches(message: Message) -> bool:
        entries = getattr(message, name)
        return key in entries and test(entries[key])

    return matches


def _has_key(field: FieldDescriptor, operator: str, literal: Literal) -> Match:
    name = field.name
    if operator != ":":
        raise refusal(literal.position, f"{name} is a map: ask `{name}:key`, or compare `{name}.key`")
    if literal.is_star:
        return lambda message: bool(getattr(message, name))
    key = test_of(parts_of(field)["key"], "=", literal)
    if not literal.has_star:
        wanted = literal.text
        return lambda message: wanted in getattr(message, name)
    return lambda message: any(key(each) for each in getattr(message, name))


def _repeated_match(field: FieldDescriptor, operator: str, literal: Literal) -> Match:
    name = field.name
    if literal.is_star and operator == ":":
        return lambda message: bool(getattr(message, name))
    if field.message_type is None or field.message_type.full_name in (TIMESTAMP, DURATION):
        return _over_elements(name, test_of(field, _positive(operator, literal), literal), operator)
    by = field.message_type.fields_by_name.get("id")
    if operator != ":" or by is None:
        told = ", ".join(f"{name}.{each.name}" for each in field.message_type.fields)
        raise refusal(literal.position, f"{name} holds messages: ask `{name}:id`, or compare one of {told}")
    test = test_of(by, "=", literal)
    return lambda message: any(test(each.id) for each in getattr(message, name))


def _positive(operator: str, literal: Literal) -> str:
    """How each element is compared: `has` asks for equality, or whether it is set, and `!=` that none is equal."""
    if literal.is_star and operator == ":":
        return operator
    return "=" if operator in (":", "!=") else operator


def _over_elements(name: str, test: Match, operator: str) -> Match:
    is_wanted = operator != "!="

    def matches(message: Message) -> bool:
        for element in getattr(message, name):
            if test(element):
                return is_wanted
        return not is_wanted

    return matches
