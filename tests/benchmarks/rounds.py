"""Alternating rounds and what follows from them."""

import json
import math
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

ROUNDS = 30
"""A ratio of one round scatters by several percent; the mean of thirty by about one."""


@dataclass(frozen=True)
class Comparison:
    """One line of output: `ratio` above 1 means that ours is better; the interval is 95 %."""

    name: str
    peer: str
    metric: str
    unit: str
    pairs: list[tuple[float, float]]

    def as_json(self) -> str:
        """The ratio is the geometric mean over rounds, its interval from the logarithms' standard error."""
        logs = [math.log(ours / theirs) for ours, theirs in self.pairs]
        error = stdev(logs) / math.sqrt(len(logs)) * NormalDist().inv_cdf(0.975)
        line = {
            "name": self.name,
            "peer": self.peer,
            "metric": self.metric,
            "ours": round(fmean(ours for ours, _ in self.pairs), 3),
            "theirs": round(fmean(theirs for _, theirs in self.pairs), 3),
            "unit": self.unit,
            "ratio": round(math.exp(fmean(logs)), 4),
            "ci_low": round(math.exp(fmean(logs) - error), 4),
            "ci_high": round(math.exp(fmean(logs) + error), 4),
            "rounds": len(self.pairs),
        }
        return json.dumps(line)


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
        sys.stderr.write(f"\rround {number + 1}/{rounds}: {first:.0f} against {second:.0f}   ")
    sys.stderr.write("\n")
    return pairs
