"""Files that users write: read with the line of every key, and refused with one message that says what to do.

document = load_document(Path("exp.yaml"))
experiment = document.parse(Experiment)      # or InputError: file:line, key, value, what was expected
raise document.error(("faults", 0, "at"), "a time within the run (45s)", "make it smaller")
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from holdfast.cli import InputError
from holdfast_slo.yaml_tree import BYTES_MAX, Node, TreeError, read_tree, scalar_tree

Loc = Sequence[str | int]
ModelT = TypeVar("ModelT", bound=BaseModel)

_ERRORS_SHOWN_MAX: Final = 20
_PLAIN_WORDS: Final = {
    "model_type": "expected a mapping (key: value)",
    "model_attributes_type": "expected a mapping (key: value)",
    "dict_type": "expected a mapping (key: value)",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "string_type": "expected text",
}


class Strict(BaseModel):
    """Base of every model read from a file: unknown keys and infinite numbers are refused, instances are frozen.

    Fields with an alias are written by it in files (`for:`), and may be given by name in code.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, allow_inf_nan=False
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content with the place of every value; `name` is what the user called the file."""

    name: str
    root: Node
    text: str

    @property
    def data(self) -> object:
        """The content as plain lists, dictionaries and scalars."""
        return self.root.plain()

    def parse(self, model: type[ModelT]) -> ModelT:
        """The content as a model.

        Raises:
            InputError: it does not fit; every misfit is listed with its place, value and what was expected.
        """
        try:
            return model.model_validate(self.data, by_alias=True, by_name=False)
        except ValidationError as error:
            misfits = _without_other_branches(error.errors(), self.root)
            lines = [self._misfit(misfit, model) for misfit in misfits]
        raise InputError(_listed(lines))

    def error(self, loc: Loc, expected: str, hint: str = "") -> InputError:
        """An error about the value at `loc`, for what only a caller can check (across fields, against other files)."""
        return InputError(self._message(loc, expected, hint))

    def where(self, loc: Loc) -> str:
        """The place of the value at `loc`, as in `exp.yaml:12`; of the nearest value around it where it is absent."""
        return _walk(self.root, loc).place

    def _message(self, loc: Loc, expected: str, hint: str) -> str:
        step = _walk(self.root, loc)
        key = _dotted(step.path if step.found else (*step.path, *step.rest[-1:]))
        value = f" is {_shown(step.node.plain())}" if step.found and step.path else ""
        return f"{step.place}: {key}{value}: expected {expected}" + (f"\n    {hint}" if hint else "")

    def _misfit(self, misfit: ErrorDetails, model: type[BaseModel]) -> str:
        loc = misfit["loc"]
        kind = misfit["type"]
        if kind == "extra_forbidden":
            return self._unknown_key(loc, model)
        step = _walk(self.root, loc)
        if kind == "missing":
            key = _dotted((*step.path, loc[-1]))
            return f"{step.place}: {key} is missing: add the key {str(loc[-1])!r}"
        expected = _PLAIN_WORDS.get(kind) or misfit["msg"].removeprefix("Value error, ").replace(
            "Input should be", "expected", 1
        )
        if not step.path:
            return f"{step.place}: {expected}"
        return f"{step.place}: {_dotted(step.path)} is {_shown(step.node.plain())}: {expected}"

    def _unknown_key(self, loc: Loc, model: type[BaseModel]) -> str:
        step = _walk(self.root, loc)
        known = sorted(_keys_at(model, loc[:-1]))
        near = get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known) or 'nothing'}"
        value = _shown(step.node.plain())
        return f"{step.place}: {_dotted(step.path)} is an unknown key (value {value}): {hint}"


def load_document(path: Path | Traversable, name: str | None = None) -> Document:
    """Reads a YAML (or JSON) file, called `name` in messages, by default as its path is written.

    Raises:
        InputError: it cannot be read, is no UTF-8, exceeds 1 MiB, or is no YAML a document may hold.
    """
    name = name or (str(path) if isinstance(path, Path) else path.name)
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{name}: cannot read this file: {reason}. Check the path and its permissions.") from error
    if len(raw) > BYTES_MAX:
        raise InputError(f"{name}: larger than {BYTES_MAX} bytes; a document this large is surely the wrong file.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    return read_document(text, name)


def read_document(text: str, name: str) -> Document:
    """As `load_document`, of text already at hand."""
    try:
        return Document(name, read_tree(text, name), text)
    except TreeError as error:
        raise InputError(f"{name}:{error.line}: {error}" if error.line else f"{name}: {error}") from error


def apply_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """The document with values replaced, each given as `dotted.path=YAML`.

    A step of a path is a key, a list's index, or the `id` or `name` of an item: `faults.slow-net.for=5s`. The last
    step may be a key that is not there yet; what holds it must be.

    Raises:
        InputError: an override has no `=`, its path leads nowhere, or its value is no YAML.
    """
    root = document.root
    for override in overrides:
        path, equals, text = override.partition("=")
        where = f"--set {override}"
        if not equals or not path:
            raise InputError(f"{where}: expected key=value, such as load.arrivals.0.rate=10/s")
        try:
            root = _replaced(root, path.split("."), scalar_tree(text, where), where)
        except TreeError as error:
            raise InputError(f"{where}: the value {text!r} is no YAML: {error}") from error
    return Document(document.name, root, document.text)


def _replaced(node: Node, path: list[str], value: Node, where: str) -> Node:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(node.value, Mapping):
        if rest and key not in node.value:
            raise InputError(f"{where}: there is no key {key!r} at {node.where}{_nearest(key, node.value)}")
        child = _replaced(node.value[key], rest, value, where) if rest else value
        return Node({**node.value, key: child}, node.where, {**node.keys, key: node.keys.get(key, where)}, node.size)
    if isinstance(node.value, Sequence) and not isinstance(node.value, str):
        index = _index(node.value, key, where)
        items = list(node.value)
        items[index] = _replaced(items[index], rest, value, where)
        return Node(tuple(items), node.where, {}, node.size)
    raise InputError(f"{where}: {_shown(node.value)} at {node.where} holds no {key!r}: it is a plain value")


def _index(items: Sequence[Node], key: str, where: str) -> int:
    if key.isdecimal() and len(key) < 9 and int(key) < len(items):
        return int(key)
    names = [
        str(node.plain())
        for item in items
        if isinstance(item.value, Mapping) and (node := item.value.get("id") or item.value.get("name"))
    ]
    if len(names) == len(items) and key in names:
        return names.index(key)
    there = f"it has {len(items)} items, counted from 0" + (f", called {', '.join(names)}" if names else "")
    raise InputError(f"{where}: the list has no item {key!r}: {there}")


def _nearest(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names) or 'none'}"


@dataclass(frozen=True, slots=True)
class _Step:
    """How far a location leads into a tree: the deepest node on it, and the path that is really there."""

    node: Node
    path: tuple[str | int, ...]
    rest: tuple[str | int, ...]
    place: str

    @property
    def found(self) -> bool:
        return not self.rest


def _walk(root: Node, loc: Loc) -> _Step:
    """Follows `loc`; segments not in the tree (pydantic adds the names of a union's members) are left in `rest`."""
    node, place = root, root.where
    path: list[str | int] = []
    rest: list[str | int] = []
    for segment in loc:
        value = node.value
        if isinstance(value, Mapping) and segment in value:
            place, node = node.keys.get(str(segment), node.where), value[str(segment)]
        elif (
            isinstance(value, Sequence)
            and isinstance(segment, int)
            and not isinstance(value, str)
            and segment < len(value)
        ):
            node = value[segment]
            place = node.where
        else:
            rest.append(segment)
            continue
        path.append(segment)
        rest.clear()
    return _Step(node, tuple(path), tuple(rest), place)


def _without_other_branches(errors: list[ErrorDetails], root: Node) -> list[ErrorDetails]:
    """Drops what a union's other members complain of, where one member fits well enough to say more."""
    paths = [_walk(root, error["loc"]) for error in errors]
    kept = [
        error
        for error, step in zip(errors, paths, strict=True)
        if error["type"] == "missing"
        or step.found
        or not any(len(other.path) > len(step.path) and other.path[: len(step.path)] == step.path for other in paths)
    ]
    return sorted(kept, key=lambda error: [str(part).zfill(6) for part in error["loc"]]) if len(kept) > 1 else kept


def _keys_at(model: object, loc: Loc) -> set[str]:
    """The keys a file may hold at `loc`, over all members of unions."""
    types = _models_in(model)
    for segment in loc:
        inside = [
            found
            for kind in types
            for name, field in kind.model_fields.items()
            if (field.alias or name) == segment
            for found in _models_in(field.annotation)
        ]
        types = inside or types  # a list's index or a union member's name leads nowhere new
    return {field.alias or name for kind in types for name, field in kind.model_fields.items()}


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path) or "the document"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _listed(lines: Sequence[str]) -> str:
    if len(lines) == 1:
        return lines[0]
    shown = [f"  {line}" for line in lines[:_ERRORS_SHOWN_MAX]]
    more = [f"  … and {len(lines) - _ERRORS_SHOWN_MAX} more"] if len(lines) > _ERRORS_SHOWN_MAX else []
    return "\n".join([f"{len(lines)} things are wrong:", *shown, *more])
