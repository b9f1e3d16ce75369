"""Assertions on a load's results: `p99 < 50ms`, `errors <= 0.1%`, `rps >= 450`.

A call that failed counts as slower than any limit, and one that nobody made proves nothing: without calls no assertion
holds. A latency that decides only because the generator itself sent calls late, as where its event loop stood still,
decides nothing: it is judged with those calls and without them.
"""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from holdfast.cli import InputError
from holdfast_loadtests.hints import nearest
from holdfast_loadtests.results import Results, mean_ms
from holdfast_loadtests.summary import LESS_LOAD
from holdfast_slo.durations import parse_duration

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}
_SHAPE: Final = re.compile(r"\s*([a-z_]+|p\d{1,2}(?:\.\d{1,3})?)\s*(<=|>=|==|<|>)\s*(.+?)\s*")
_QUANTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")

EXAMPLES: Final = "'p99 < 50ms', 'errors <= 0.1%', 'rps >= 450' or 'lag < 10ms'"


LATE_SHARE: Final = 0.1
LATE_MS_MIN: Final = 5.0
"""A call counts as late for an assertion where it left later than this share of the limit, and by this much at least:
so much an event loop is late on any machine that does something else too."""


def _mean(results: Results, late: int = 0) -> float:
    if results.errors:
        return math.inf
    own_ms = (mean_ms(results.lag) or 0.0) if late else 0.0
    return (mean_ms(results.latency) or math.nan) - own_ms


_LATENCIES: Final[dict[str, Callable[[Results, int], float]]] = {
    "max": lambda results, late: results.quantile_ms(1.0, late),
    "mean": _mean,
}
"""Latencies in ms, with so many late calls left out; beside these every `pNN` is one."""

_MEASURES: Final[dict[str, tuple[str, Callable[[Results], float]]]] = {
    "lag": ("ms", lambda results: results.lag.quantiles_us([0.99])[0] / 1000.0),
    "errors": ("share", lambda results: results.errors / max(results.ended + results.never_sent, 1)),
    "rps": ("", lambda results: results.rps),
    "calls": ("", lambda results: float(results.ended)),
}
"""Other measures: name → unit, and how it is read."""


@dataclass(frozen=True)
class Assertion:
    """What must hold. `limit` is in milliseconds, a share from 0 to 1, or a plain number, as the measure is.

    `measure` reads results with so many calls that the generator sent late left out; only latencies change by that.
    """

    text: str
    measure: Callable[[Results, int], float]
    unit: str
    holds: Callable[[float, float], bool]
    limit: float

    def judge(self, results: Results) -> tuple[bool | None, str]:
        """Whether it holds, None where that cannot be told; and what was found, in words."""
        if not results.ended:
            return None, "no samples: no call was made that could show it"
        found = self.measure(results, 0)
        if math.isnan(found):
            return None, "no samples"
        over_ms = max(LATE_SHARE * self.limit, LATE_MS_MIN)
        late = results.late(over_ms) if self.unit == "ms" else 0
        punctual = self.measure(results, late)
        shown, holds = _shown(found, self.unit), self.holds(found, self.limit)
        if holds == self.holds(punctual, self.limit):
            return holds, shown
        return None, (
            f"{shown}, but {_shown(punctual, self.unit)} without the {late} calls that the generator sent over "
            f"{over_ms:g} ms late; its longest stall was {results.stall_ms_max:.0f} ms: {LESS_LOAD}"
        )


def parse_assertion(text: str) -> Assertion:
    """Reads an assertion.

    Raises:
        InputError: it is none; the message says which there are.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InputError(f"--assert {text!r}: expected a measure, a comparison and a limit, like {EXAMPLES}")
    name, comparison, limit = match.groups()
    unit, measure = _measure(text, name)
    return Assertion(text.strip(), measure, unit, _OPERATORS[comparison], _limit(text, limit, unit))


def _measure(text: str, name: str) -> tuple[str, Callable[[Results, int], float]]:
    quantile = _QUANTILE.fullmatch(name)
    if quantile is not None:
        share = float(quantile[1]) / 100.0
        return "ms", lambda results, late: results.quantile_ms(share, late)
    if name in _LATENCIES:
        return "ms", _LATENCIES[name]
    if name not in _MEASURES:
        known = ["p99", *_LATENCIES, *_MEASURES]
        raise InputError(f"--assert {text!r}: there is no measure {name!r}; {nearest(name, known)}")
    unit, read = _MEASURES[name]
    return unit, lambda results, _late: read(results)


def _limit(text: str, limit: str, unit: str) -> float:
    try:
        if unit == "ms":
            return parse_duration(limit) / timedelta(milliseconds=1)
        value = float(limit.removesuffix("%")) / (100.0 if limit.endswith("%") else 1.0)
    except ValueError as error:
        raise InputError(f"--assert {text!r}: {error}") from error
    if not math.isfinite(value) or value < 0 or (unit == "share" and value > 1):
        what = "a share like 0.1% or 0.001" if unit == "share" else "a number from 0"
        raise InputError(f"--assert {text!r}: expected {what}, got {limit!r}")
    return value


def _shown(value: float, unit: str) -> str:
    if math.isinf(value):
        return "beyond any limit: too many calls failed"
    if unit == "share":
        return f"{value:.4%}"
    return f"{value:.3f} ms" if unit == "ms" else f"{value:.6g}"
