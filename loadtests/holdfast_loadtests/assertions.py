"""Assertions on a load's results: `p99 < 50ms`, `errors <= 0.1%`, `rps >= 450`.

A call that failed counts as slower than any limit, and one that nobody made proves nothing: without calls no assertion
holds.
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


def _mean(results: Results) -> float:
    return math.inf if results.errors else (mean_ms(results.latency) or math.nan)


_MEASURES: Final[dict[str, tuple[str, Callable[[Results], float]]]] = {
    "max": ("ms", lambda results: results.quantile_ms(1.0)),
    "mean": ("ms", _mean),
    "lag": ("ms", lambda results: results.lag.quantiles_us([0.99])[0] / 1000.0),
    "errors": ("share", lambda results: results.errors / max(results.ended + results.never_sent, 1)),
    "rps": ("", lambda results: results.rps),
    "calls": ("", lambda results: float(results.ended)),
}
"""Name → its unit and how it is read; beside these every `pNN` is one, in ms."""


@dataclass(frozen=True)
class Assertion:
    """What must hold. `limit` is in milliseconds, a share from 0 to 1, or a plain number, as the measure is."""

    text: str
    measure: Callable[[Results], float]
    unit: str
    holds: Callable[[float, float], bool]
    limit: float

    def judge(self, results: Results) -> tuple[bool | None, str]:
        """Whether it holds, None where nothing was measured; and what was found, in words."""
        if not results.ended:
            return None, "no samples: no call was made that could show it"
        found = self.measure(results)
        if math.isnan(found):
            return None, "no samples"
        shown = "beyond any limit: too many calls failed" if math.isinf(found) else _shown(found, self.unit)
        return self.holds(found, self.limit), shown


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


def _measure(text: str, name: str) -> tuple[str, Callable[[Results], float]]:
    quantile = _QUANTILE.fullmatch(name)
    if quantile is not None:
        share = float(quantile[1]) / 100.0
        return "ms", lambda results: results.quantile_ms(share)
    if name not in _MEASURES:
        raise InputError(f"--assert {text!r}: there is no measure {name!r}; {nearest(name, ['p99', *_MEASURES])}")
    return _MEASURES[name]


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
    if unit == "share":
        return f"{value:.4%}"
    return f"{value:.3f} ms" if unit == "ms" else f"{value:.6g}"
