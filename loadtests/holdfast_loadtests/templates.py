"""Requests with holes, in any text of a JSON value.

    {{agents.id}}      the scenario's row of the table `agents`      {{fence}}      captured from an earlier answer
    {{uuid}}           a new one for each hole                       {{counter}}    the scenario's number
    {{int(1, 6)}}      a seeded value; see `draws`

A text that is one hole and nothing else takes the value with its JSON type; a hole inside a text is written into it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from holdfast_loadtests.draws import DrawError, Draws, compile_draw

BUILT_IN: Final = frozenset({"uuid", "counter"})
"""Names with a meaning of their own: `uuid`, the same in every run with the same seed; `counter`, from 0."""

_HOLE: Final = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?|[A-Za-z_]\w*\([^(){}]*\))\s*\}\}")

NO_ROW: Final[Mapping[str, str]] = {}


class Scope:
    """What the holes of one step of one scenario are filled with."""

    __slots__ = ("captured", "draws", "ordinal", "row")

    def __init__(self, row: Mapping[str, str], captured: Mapping[str, Any], ordinal: int, draws: Draws) -> None:
        self.row = row
        self.captured = captured
        self.ordinal = ordinal
        self.draws = draws


Render = Callable[[Scope], Any]


def names_in(value: object) -> Iterator[str]:
    """Names of all holes in a JSON value, in order; keys of objects and functions left out."""
    return (hole for hole in holes_in(value) if not hole.endswith(")"))


def holes_in(value: object) -> Iterator[str]:
    """What stands in all holes of a JSON value, in order; keys of objects left out."""
    if isinstance(value, str):
        yield from _HOLE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from holes_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from holes_in(item)


def has_holes(value: object) -> bool:
    """Whether anything in it is to be filled."""
    return next(holes_in(value), None) is not None


def problem_in(value: object) -> str:
    """Why a function in one of its holes cannot be called; `""` where all can."""
    for hole in holes_in(value):
        try:
            _source(hole)
        except DrawError as error:
            return str(error)
    return ""


def compile_template(value: object) -> Render:
    """A function that fills the holes; values without any are shared by all results, so treat results as read-only.

    Raises:
        DrawError: a hole calls a function that there is not.
    """
    if not has_holes(value):
        return lambda _scope: value
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, Mapping):
        fields = [(key, compile_template(item)) for key, item in value.items()]
        return lambda scope: {key: render(scope) for key, render in fields}
    assert isinstance(value, list | tuple), f"JSON holds no {type(value).__name__} with text inside"
    items = [compile_template(item) for item in value]
    return lambda scope: [render(scope) for render in items]


def _compile_text(text: str) -> Render:
    whole = _HOLE.fullmatch(text)
    if whole is not None:
        return _source(whole[1])
    parts = _HOLE.split(text)  # text, hole, text, hole, …, text
    before, sources = parts[0], [(_source(hole), after) for hole, after in zip(parts[1::2], parts[2::2], strict=True)]
    if len(sources) == 1:  # most are: "namespaces/default/agents/{{agents.id}}"
        [(source, after)] = sources
        return lambda scope: f"{before}{source(scope)}{after}"
    return lambda scope: before + "".join([f"{source(scope)}{after}" for source, after in sources])


def _source(hole: str) -> Render:
    name, is_call, arguments = hole.partition("(")
    if is_call:
        draw = compile_draw(name, arguments[:-1])
        return lambda scope: draw(scope.draws)
    _, dot, column = name.partition(".")
    if dot:
        return lambda scope: scope.row[column]
    if name == "uuid":
        return lambda scope: scope.draws.uuid()
    if name == "counter":
        return lambda scope: scope.ordinal
    return lambda scope: scope.captured[name]
