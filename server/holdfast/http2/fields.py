"""Field sections: the header fields of a request, a response or trailers, and what RFC 9113 §8 asks of them."""

import re
from collections.abc import Iterable
from typing import Final

REQUEST: Final = "request"
RESPONSE: Final = "response"
TRAILERS: Final = "trailers"

_WRONG_IN_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9a-z]").search
"""RFC 9110 §5.1: a token; RFC 9113 §8.2: in lower case."""

_WRONG_IN_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z").search
"""RFC 9113 §8.2.1."""

_OF_ONE_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
"""Fields that HTTP/2 does not have: RFC 9113 §8.2.2."""

_OF_REQUESTS = frozenset((b":method", b":scheme", b":path", b":authority"))
_NEEDED = (b":method", b":scheme", b":path")


class Fields:
    """One field section, as it came. Compared and hashed by identity: the same object may come again and again.

    Attributes:
        pairs: Names and values, in order, pseudo-fields included.
        kind: REQUEST, RESPONSE or TRAILERS, by its pseudo-fields.
        problem: What makes it malformed (RFC 9113 §8.1.1); empty if nothing does.
        status: Of a response that is well-formed, its status; else 0.
        are_trailers: Whether they are well-formed trailers.
        content_length: What `content-length` says in bytes; None without one.
    """

    __slots__ = ("_first", "are_trailers", "content_length", "kind", "pairs", "problem", "status")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self.pairs = tuple(pairs)
        self._first: dict[bytes, bytes] = {}
        self.kind = TRAILERS
        self.status = 0
        self.content_length: int | None = None
        self.problem = self._read() or self._check_whole()
        if self.problem:
            self.status = 0
        self.are_trailers = self.kind is TRAILERS and not self.problem

    def get(self, name: bytes) -> bytes | None:
        """The first value of a name in lower case; None without one."""
        return self._first.get(name)

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a name, in order."""
        return [value for each, value in self.pairs if each == name]

    def __repr__(self) -> str:
        return f"Fields({self.pairs!r})"

    def _read(self) -> str:
        """Looks at each field. Returns the first problem."""
        first = self._first
        is_regular = False
        for name, value in self.pairs:
            if name[:1] == b":":
                problem = self._pseudo(name, value, is_regular)
            else:
                is_regular = True
                problem = self._regular(name, value)
            if problem:
                return problem
            if _WRONG_IN_VALUE(value):
                return f"{name!r} has the value {value!r}, with a control character or a space around it"
            first.setdefault(name, value)
        return ""

    def _pseudo(self, name: bytes, value: bytes, is_regular: bool) -> str:
        if is_regular:
            return f"{name!r} comes after other fields"
        if name in self._first:
            return f"{name!r} comes twice"
        if name in _OF_REQUESTS and self.kind != RESPONSE:
            self.kind = REQUEST
        elif name == b":status" and self.kind == TRAILERS:
            self.kind = RESPONSE
            if len(value) != 3 or not value.isdigit() or value < b"100":
                return f":status is {value!r}, not three digits"
            self.status = int(value)
        else:
            return f"{name!r} does not belong here"
        return ""

    def _regular(self, name: bytes, value: bytes) -> str:
        if not name or _WRONG_IN_NAME(name):
            return f"a field is named {name!r}, which is no token in lower case"
        if name in _OF_ONE_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            return f"{name!r}: {value!r} does not exist in HTTP/2"
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                return f"content-length is {value!r}, not a number of bytes"
            if self.content_length not in (None, int(value)):
                return f"content-length is both {self.content_length} and {int(value)}"
            self.content_length = int(value)
        return ""

    def _check_whole(self) -> str:
        if self.kind != REQUEST:
            return ""
        first = self._first
        if first.get(b":method") == b"CONNECT":  # RFC 9113 §8.5
            is_right = b":authority" in first and b":scheme" not in first and b":path" not in first
            return "" if is_right else "CONNECT has :authority, and neither :scheme nor :path"
        for name in _NEEDED:
            if not first.get(name):
                return f"a request without {name.decode()}"
        return ""
