"""Alternating rounds and what follows from them."""

import json
import math
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import fmean, stdev

ROUNDS = 30
"""A ratio of one round scatters by several percent; the mean of thirty by about one."""

STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
"""Student's t, two-sided 95 %, for 1 … 18 degrees of freedom; beyond, 2.09 to 1.96 is taken as the first."""


@dataclass(frozen=True)
class Comparison:
    """One line of output: `ratio` above 1 means that ours is better; the interval is 95 %.

    `is_cost` where less is better: seconds, bytes.
    """

    name: str
    peer: str
    metric: str
    unit: str
    pairs: list[tuple[float, float]]
    is_cost: bool = False

    def as_json(self) -> str:
        """The ratio is the geometric mean over rounds, its interval from the logarithms' standard error.

        One round has no interval: null.
        """
        sign = -1 if self.is_cost else 1
        logs = [sign * math.log(ours / theirs) for ours, theirs in self.pairs]
        line = {
            "name": self.name,
            "peer": self.peer,
            "metric": self.metric,
            "ours": round(fmean(ours for ours, _ in self.pairs), 3),
            "theirs": round(fmean(theirs for _, theirs in self.pairs), 3),
            "unit": self.unit,
            "ratio": round(math.exp(fmean(logs)), 4),
            "ci_low": _exp(fmean(logs), -_error(logs)),
            "ci_high": _exp(fmean(logs), _error(logs)),
            "rounds": len(self.pairs),
        }
        return json.dumps(line)


@dataclass(frozen=True)
class Figure:
    """One line of output without a peer: the same fields, null where two would be compared."""

    name: str
    metric: str
    unit: str
    value: float
    rounds: int

    def as_json(self) -> str:
        """The line."""
        compared = dict.fromkeys(("peer", "theirs", "ratio", "ci_low", "ci_high"))
        line = {"name": self.name, "metric": self.metric, "ours": round(self.value, 3), "unit": self.unit}
        return json.dumps({**line, **compared, "rounds": self.rounds})


def _error(logs: list[float]) -> float:
    """Half the interval of the mean; not a number where one value says nothing of how values scatter."""
    if len(logs) < 2:
        return math.nan
    return stdev(logs) / math.sqrt(len(logs)) * (STUDENT[len(logs) - 2] if len(logs) - 2 < len(STUDENT) else 2.09)


def _exp(mean: float, error: float) -> float | None:
    return None if math.isnan(error) else round(math.exp(mean + error), 4)


async def alternate(
    ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]], rounds: int = ROUNDS
) -> list[tuple[float, float]]:
    """Runs both in turn, the one that goes first changing every round, so that drift hits both."""
    await ours()  # warm-up, not counted
    await theirs()
    pairs = []
    for number in range(rounds):
        if number % 2:
            second, first = await theirs(), await ours()
        else:
            first, second = await ours(), await theirs()
        pairs.append((first, second))
        sys.stderr.write(f"\rround {number + 1}/{rounds}: {first:.4g} against {second:.4g}   ")
    sys.stderr.write("\n")
    return pairs
