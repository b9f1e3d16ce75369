"""Requests with holes: `{{table.column}}`, `{{captured}}`, `{{uuid}}` and `{{counter}}` in any text of a JSON value.

A text that is one hole and nothing else takes the value with its JSON type; a hole inside a text is written into it.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

BUILT_IN: Final = frozenset({"uuid", "counter"})
"""`uuid`: a new one for each hole, the same in every run with the same seed. `counter`: the scenario's number."""

_HOLE: Final = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)\s*\}\}")

Scope = Callable[[str], Any]
"""Gives the value of a name."""
Render = Callable[[Scope], Any]


def names_in(value: object) -> Iterator[str]:
    """Names of all holes in a JSON value, in order, keys of objects left out."""
    if isinstance(value, str):
        yield from _HOLE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from names_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from names_in(item)


def compile_template(value: object) -> Render:
    """A function that fills the holes; values without any are shared by all results, so treat results as read-only."""
    if next(names_in(value), None) is None:
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
        name = whole[1]
        return lambda scope: scope(name)
    parts = _HOLE.split(text)  # text, name, text, name, …, text
    return lambda scope: "".join(str(scope(part)) if odd % 2 else part for odd, part in enumerate(parts))


class SeededUuids:
    """The uuids of one step of one scenario: the same seed, scenario and step give the same ones.

    Two runs with one seed against one lasting server therefore send the same request ids: give them different seeds.
    """

    def __init__(self, seed: int, ordinal: int, step: int) -> None:
        self._key = f"{seed}:{ordinal}:{step}:"
        self._count = 0

    def next(self) -> str:
        """The next uuid, version 4 in form."""
        digest = blake2b(f"{self._key}{self._count}".encode(), digest_size=16).digest()
        self._count += 1
        return str(uuid.UUID(bytes=digest, version=4))
