"""Reads a filter's text piece by piece, in one pass and without regular expressions that backtrack."""

import re
from dataclasses import dataclass

from holdfast.errors import HoldfastError, invalid_field

SHOWN_MAX = 60
"""Most characters of a filter's text shown in an error."""

_SPACE = re.compile(r"[ \t\r\n]*")
_PATH_PART = re.compile(r"[A-Za-z0-9_/-]+")
_OPERATOR = re.compile(r"<=|>=|!=|[<>=:]")
_WORD = re.compile(r"""[^\s()"'<>=!,\\]+""")
_KEYWORD = re.compile(r"(?:AND|OR|NOT)(?![A-Za-z0-9_./:=<>!-])")


@dataclass(frozen=True, slots=True)
class Path:
    """A field as written: `labels.team`."""

    parts: tuple[str, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as written: its text without the stars at its ends, and where those were."""

    text: str
    position: int
    starts_open: bool = False
    ends_open: bool = False
    has_inner_star: bool = False

    @property
    def is_star(self) -> bool:
        """Is it `*` alone, which asks whether there is anything?"""
        return not self.text and self.starts_open

    @property
    def has_star(self) -> bool:
        """Is there a star in it that is not escaped?"""
        return self.starts_open or self.ends_open or self.has_inner_star

    @property
    def written(self) -> str:
        """As it was, but for what quotes and escapes it had."""
        return "*" * self.starts_open + self.text + "*" * self.ends_open


def refusal(position: int, description: str) -> HoldfastError:
    """INVALID_FIELD about the filter, at a position counted from 1."""
    return invalid_field("filter", f"at {position + 1}: {description}")


def shown(text: str) -> str:
    """Offending text, quoted and cut."""
    return repr(text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…")


class Scanner:
    """A position in a filter's text; each method takes what stands there, or leaves it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self._skip()

    @property
    def is_at_end(self) -> bool:
        """Is nothing left?"""
        return self.position >= len(self.text)

    @property
    def rest(self) -> str:
        """What is left, as far as an error shows it."""
        return shown(self.text[self.position : self.position + SHOWN_MAX + 1])

    def take(self, symbol: str) -> bool:
        """Takes one character."""
        if not self.text.startswith(symbol, self.position):
            return False
        self._move(self.position + len(symbol))
        return True

    def peek_keyword(self) -> str:
        """AND, OR or NOT if it is next, otherwise nothing."""
        found = _KEYWORD.match(self.text, self.position)
        return found.group() if found else ""

    def take_keyword(self, keyword: str) -> bool:
        """Takes AND, OR or NOT."""
        return self.peek_keyword() == keyword and self.take(keyword)

    def operator(self) -> str:
        """Takes a comparison; nothing if there is none."""
        found = _OPERATOR.match(self.text, self.position)
        if found:
            self._move(found.end())
        return found.group() if found else ""

    def path(self) -> Path:
        """Takes a field: names, or quoted keys, with dots between."""
        start, parts = self.position, [self._path_part()]
        while self.text.startswith(".", self.position):
            self.position += 1
            parts.append(self._path_part())
        self._skip()
        return Path(tuple(parts), start)

    def literal(self) -> Literal:
        """Takes a value: quoted, or a word up to the next blank, parenthesis or comparison."""
        start = self.position
        if self.text[start : start + 1] in ("'", '"'):
            characters = self._quoted()
        else:
            found = _WORD.match(self.text, start)
            if not found:
                raise refusal(start, f"a value is missing before {self.rest}; quote what is no plain word")
            characters = [(each, each == "*") for each in found.group()]
            self.position = found.end()
        self._skip()
        return _literal(characters, start)

    def _path_part(self) -> str:
        if self.text[self.position : self.position + 1] in ("'", '"'):
            return "".join(character for character, _ in self._quoted())
        found = _PATH_PART.match(self.text, self.position)
        if not found:
            raise refusal(self.position, f"a field is missing before {self.rest}")
        self.position = found.end()
        return found.group()

    def _quoted(self) -> list[tuple[str, bool]]:
        """The characters between quotes, each with whether it is a star that stands for anything."""
        start, quote = self.position, self.text[self.position]
        characters: list[tuple[str, bool]] = []
        at = start + 1
        while at < len(self.text):
            character = self.text[at]
            if character == quote:
                self.position = at + 1
                return characters
            is_escaped = character == "\\" and at + 1 < len(self.text)
            at += is_escaped
            characters.append((self.text[at], character == "*"))
            at += 1
        raise refusal(start, f"the quoted text {shown(self.text[start:])} has no end; close it with {quote}")

    def _move(self, position: int) -> None:
        self.position = position
        self._skip()

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position


def _literal(characters: list[tuple[str, bool]], position: int) -> Literal:
    starts_open = bool(characters) and characters[0][1]
    ends_open = len(characters) > 1 and characters[-1][1]
    inner = characters[starts_open : len(characters) - ends_open]
    return Literal(
        text="".join(character for character, _ in inner),
        position=position,
        starts_open=starts_open,
        ends_open=ends_open,
        has_inner_star=any(is_star for _, is_star in inner),
    )
