"""Plain Prometheus counter selectors: `grpc_client_handled_total{grpc_method="GetAgent",grpc_code!~"OK|NotFound"}`.

A gate counts raw samples itself, because PromQL's `increase()` extrapolates to the window's edges and so invents
fractions of calls. Hence a gate's query is the counter alone, optionally within `sum(…)`, and no function of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHER: Final = re.compile(
    r"""\s*(?P<label>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)')\s*(?P<end>,|\Z)""",
    re.DOTALL,
)
_SUM: Final = re.compile(r"sum\s*\((?P<inner>.*)\)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_EXAMPLE: Final = 'grpc_client_handled_total{grpc_code="OK"}'
_LENGTH_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; `operator` is one of = != =~ !~."""

    label: str
    operator: str
    value: str

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.operator}"{escaped}"'


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric's name and conditions on its labels; its text is PromQL."""

    metric: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        return self.metric + (f"{{{','.join(map(str, self.matchers))}}}" if self.matchers else "")

    def where(self, label: str, operator: str, value: str) -> "Selector":
        """The selector narrowed by one more condition."""
        return replace(self, matchers=(*self.matchers, Matcher(label, operator, value)))

    def bare(self) -> "Selector":
        """The metric alone, whatever its labels."""
        return Selector(self.metric)

    def labels_required(self) -> Mapping[str, str | None]:
        """Labels that a series must carry to match, with the value where only one will do."""
        return {
            matcher.label: matcher.value if matcher.operator == "=" else None
            for matcher in self.matchers
            if matcher.operator in {"=", "=~"} and matcher.value
        }


def parse_selector(query: str) -> Selector:
    """Reads a counter selector, optionally wrapped in `sum(…)`.

    Raises:
        ValueError: the query is anything else; the message says what and why only a counter will do.
    """
    text = query.strip()
    if match := _SUM.fullmatch(text):
        text = match["inner"].strip()
    name = _METRIC.match(text)
    if name is None or len(query) > _LENGTH_MAX:
        raise _refused(query)
    rest = text[name.end() :].strip()
    if not rest:
        return Selector(name[0])
    if not (rest.startswith("{") and rest.endswith("}")):
        raise _refused(query)
    return Selector(name[0], _matchers(rest[1:-1], query))


def _matchers(text: str, query: str) -> tuple[Matcher, ...]:
    matchers, position = [], 0
    while text[position:].strip():
        match = _MATCHER.match(text, position)
        if match is None:
            raise _refused(query)
        raw = match["double"] if match["double"] is not None else match["single"]
        value = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), raw, flags=re.DOTALL)
        matchers.append(Matcher(match["label"], match["operator"], value))
        position = match.end()
    return tuple(matchers)


def _refused(query: str) -> ValueError:
    shown = query if len(query) <= 200 else f"{query[:200]}…"
    return ValueError(
        f"expected a plain counter, like {_EXAMPLE}, optionally within sum(…), got {shown!r}: the gate counts "
        "raw samples itself, since rate() and increase() extrapolate; write the counter that they are applied to"
    )
