"""YAML read into a tree whose every node knows where it was written.

Scalars follow YAML 1.2's core schema (`no`, `on` and `1:30` are text, as they look). Nothing is ever executed: tags are
refused. Reading is bounded in bytes, depth and nodes, aliases included, so that a hostile file costs little.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import yaml
from yaml import events

BYTES_MAX: Final = 1 << 20
DEPTH_MAX: Final = 40
NODES_MAX: Final = 100_000

Scalar: TypeAlias = str | int | float | bool | None

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INT: Final = re.compile(r"[-+]?\d{1,18}|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT: Final = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class TreeError(ValueError):
    """The text is no YAML that a document may hold; `line` counts from 1, 0 where there is none."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it was written; `keys` has the place of each key of a mapping, `size` counts nodes below it."""

    value: "Scalar | Sequence[Node] | Mapping[str, Node]"
    where: str
    keys: Mapping[str, str]
    size: int

    def plain(self) -> object:
        """The value in plain lists, dictionaries and scalars."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, Sequence) and not isinstance(self.value, str):
            return [node.plain() for node in self.value]
        return self.value


def read_tree(text: str, name: str) -> Node:
    """Reads one YAML document; `name` is what places are called by, as in `name:12`.

    Raises:
        TreeError: it is no YAML, holds a duplicate key, tag, merge key or second document, or is too deep or large.
    """
    try:
        return _Composer(yaml.parse(text, Loader=yaml.BaseLoader), name).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise TreeError(_one_line(error), mark.line + 1 if mark else 0) from error
    except yaml.reader.ReaderError as error:
        raise TreeError(
            f"holds the character {error.character!r}, which YAML does not allow: {error.reason}", 0
        ) from error


def scalar_tree(text: str, where: str) -> Node:
    """Reads a value given outside a file, such as an option's: YAML whose every node was written at `where`.

    Raises:
        TreeError: as for `read_tree`.
    """
    return _moved(read_tree(text, where), where)


def _moved(node: Node, where: str) -> Node:
    value = node.value
    if isinstance(value, Mapping):
        value = {key: _moved(child, where) for key, child in value.items()}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(_moved(child, where) for child in value)
    return Node(value, where, dict.fromkeys(node.keys, where), node.size)


def _one_line(error: yaml.MarkedYAMLError) -> str:
    return " ".join(part for part in (error.context, error.problem, error.note) if part)


def _resolve(text: str) -> Scalar:
    """A plain scalar's value by YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema)."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Composer:
    """Builds the tree from the parser's events; recursion is bounded by DEPTH_MAX."""

    def __init__(self, stream: Iterator[events.Event], name: str) -> None:
        self._stream = stream
        self._name = name
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node:
        next(self._stream)  # the stream's start
        start = next(self._stream)
        if isinstance(start, events.StreamEndEvent):
            return Node({}, f"{self._name}:1", {}, 1)
        root = self._node(next(self._stream), 0)
        next(self._stream)  # the document's end
        after = next(self._stream)
        if not isinstance(after, events.StreamEndEvent):
            raise TreeError("a second document begins here; a file holds one: move it to its own file", _line(after))
        return root

    def _node(self, event: events.Event, depth: int) -> Node:
        line = _line(event)
        if depth > DEPTH_MAX:
            raise TreeError(f"nested deeper than {DEPTH_MAX} levels", line)
        if isinstance(event, events.AliasEvent):
            return self._alias(event)
        node = self._built(event, depth)
        self._count(1, line)
        anchor = getattr(event, "anchor", None)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _built(self, event: events.Event, depth: int) -> Node:
        where = f"{self._name}:{_line(event)}"
        tag = getattr(event, "tag", None)
        if tag and tag != "!":
            raise TreeError(
                f"the tag {tag!r} is not supported: write plain text, numbers, lists and mappings", _line(event)
            )
        if isinstance(event, events.ScalarEvent):
            return Node(_resolve(event.value) if event.implicit[0] else event.value, where, {}, 1)
        if isinstance(event, events.SequenceStartEvent):
            children = tuple(self._children(events.SequenceEndEvent, depth))
            return Node(children, where, {}, 1 + sum(child.size for child in children))
        return self._mapping(where, depth)

    def _children(self, end: type[events.Event], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._stream), end):
            yield self._node(event, depth + 1)

    def _mapping(self, where: str, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, str] = {}
        while not isinstance(event := next(self._stream), events.MappingEndEvent):
            key, line = self._key(event), _line(event)
            if key in values:
                raise TreeError(f"the key {key!r} is given twice (first at {keys[key]}); keep one", line)
            keys[key] = f"{self._name}:{line}"
            values[key] = self._node(next(self._stream), depth + 1)
        return Node(values, where, keys, 1 + sum(child.size for child in values.values()))

    def _key(self, event: events.Event) -> str:
        if not isinstance(event, events.ScalarEvent):
            raise TreeError("a key must be plain text", _line(event))
        if event.value == "<<":
            raise TreeError("the merge key '<<' is not supported: write the keys out", _line(event))
        return event.value

    def _alias(self, event: events.AliasEvent) -> Node:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise TreeError(f"the alias '*{event.anchor}' stands for nothing written before it", _line(event))
        self._count(node.size, _line(event))
        return node

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise TreeError(f"holds more than {NODES_MAX} values, aliases counted in full", line)


def _line(event: events.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 0
