"""The seeded schedule: which scenario is due when, with which row.

Pure: the same load, tables and seed give the same schedule.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, count, cycle, repeat, takewhile
from math import sqrt
from operator import gt
from typing import Final, NamedTuple

from holdfast_loadtests.spec import TRACE_COLUMN, Arrivals, LoadSpec, Scenario

Tables = Mapping[str, Sequence[Mapping[str, str]]]

NO_ROW: Final = -1


class Due(NamedTuple):
    """A scenario that falls due, `due_offset_s` seconds after the load began.

    `row_index` is its row in the scenario's table, NO_ROW without one; `ordinal` counts scenarios from 0.
    """

    due_offset_s: float
    scenario: Scenario
    row_index: int
    ordinal: int


def schedule(spec: LoadSpec, tables: Tables, seed: int) -> Iterator[Due]:
    """What falls due, in order; endless where the load is.

    In the closed model every offset is 0: a scenario is due when a user is free. Times, scenarios and rows draw from
    generators of their own, so that changing one of them leaves the others.
    """
    scenarios = spec.all_scenarios()
    choices = _choices(scenarios, random.Random(f"scenarios:{seed}"))
    rows = _Rows(scenarios, tables, seed)
    times = repeat(0.0) if spec.arrivals is None else _times(spec.arrivals, tables, random.Random(f"times:{seed}"))
    for ordinal, (due_offset_s, scenario) in enumerate(zip(times, choices, strict=False)):
        yield Due(due_offset_s, scenario, rows.next(scenario), ordinal)


def _choices(scenarios: Sequence[Scenario], rng: random.Random) -> Iterator[Scenario]:
    weights = [scenario.weight for scenario in scenarios]
    while True:
        yield from rng.choices(scenarios, weights, k=256)


class _Rows:
    """Visits each table's rows in a seeded order, over and over.

    So all get their turn, and the same row comes back as late as it can.
    Scenarios that hold rows share one order for each table; each scenario that only reads one has its own.
    """

    def __init__(self, scenarios: Sequence[Scenario], tables: Tables, seed: int) -> None:
        orders: dict[str, Iterator[int]] = {}
        self._by_scenario: dict[str, Iterator[int]] = {}
        for scenario in scenarios:
            if scenario.table is None:
                self._by_scenario[scenario.name] = repeat(NO_ROW)
                continue
            key = f"held:{scenario.table}" if scenario.rows else f"read:{scenario.name}"
            if key not in orders:
                orders[key] = _order(len(tables[scenario.table]), random.Random(f"{key}:{seed}"))
            self._by_scenario[scenario.name] = orders[key]

    def next(self, scenario: Scenario) -> int:
        return next(self._by_scenario[scenario.name])


def _order(rows: int, rng: random.Random) -> Iterator[int]:
    order = list(range(rows))
    rng.shuffle(order)
    return cycle(order)


def _times(arrivals: Sequence[Arrivals], tables: Tables, rng: random.Random) -> Iterator[float]:
    start_s = 0.0
    for stretch in arrivals:
        offsets = _trace(stretch, tables) if stretch.trace else _arrivals(stretch, rng)
        length_s = _length_s(stretch, tables)
        yield from (start_s + offset_s for offset_s in takewhile(partial(gt, length_s), offsets))
        start_s += length_s


def _length_s(stretch: Arrivals, tables: Tables) -> float:
    """How long a stretch lasts; a trace without `for` until just after its last time."""
    if stretch.for_ is not None:
        return stretch.for_.total_seconds()
    return float(tables[stretch.trace][-1][TRACE_COLUMN]) + 1e-6 if stretch.trace else float("inf")


def _trace(stretch: Arrivals, tables: Tables) -> Iterator[float]:
    return (float(row[TRACE_COLUMN]) for row in tables[stretch.trace or ""])


def _arrivals(stretch: Arrivals, rng: random.Random) -> Iterator[float]:
    """The times at which the integral of the rate reaches 0, 1, 2, …; for a Poisson process, sums of Exp(1).

    Computed from the count each time, not added up: adding 1/rate a million times drifts.
    """
    first, last = stretch.rates_per_s
    slope = (last - first) / _length_s(stretch, {}) if last != first else 0.0
    # The least root of first·t + slope·t²/2 = n, in the form that neither divides by the slope nor cancels.
    counts: Iterator[float] = _exponentials(rng) if stretch.process == "poisson" else count()
    for number in counts:
        under = first * first + 2.0 * slope * number
        if under < 0.0:
            return  # the rate falls to 0 before so many have come
        yield 2.0 * number / (first + sqrt(under))


def _exponentials(rng: random.Random) -> Iterator[float]:
    return accumulate(rng.expovariate(1.0) for _ in repeat(None))


def expected_calls(spec: LoadSpec, start_s: float, end_s: float, tables: Tables | None = None) -> dict[str, float]:
    """Calls expected to fall due between two offsets, by `service/method`, if every scenario runs to its end.

    `tables` are needed where a trace is replayed.

    Raises:
        ValueError: the closed model, whose rate depends on the server.
    """
    if spec.arrivals is None:
        raise ValueError("a closed model has no rate of its own: its users call as fast as they are answered")
    scenarios = spec.all_scenarios()
    weight_sum = sum(scenario.weight for scenario in scenarios)
    calls: dict[str, float] = {}
    for scenario in scenarios:
        for step in scenario.steps:
            shift_s = step.after.total_seconds() if step.after else 0.0
            due = _arrivals_between(spec.arrivals, tables or {}, start_s - shift_s, end_s - shift_s)
            calls[step.call] = calls.get(step.call, 0.0) + due * scenario.weight / weight_sum
    return calls


def _arrivals_between(arrivals: Sequence[Arrivals], tables: Tables, start_s: float, end_s: float) -> float:
    total, at_s = 0.0, 0.0
    for stretch in arrivals:
        length_s = _length_s(stretch, tables)
        from_s, until_s = max(start_s - at_s, 0.0), min(end_s - at_s, length_s)
        if until_s > from_s and stretch.trace:
            total += sum(from_s <= offset_s < until_s for offset_s in _trace(stretch, tables))
        elif until_s > from_s:
            first, last = stretch.rates_per_s
            slope = (last - first) / length_s
            total += (until_s - from_s) * (first + slope * (from_s + until_s) / 2.0)
        at_s += length_s
    return total


def samples_by_second(spec: LoadSpec, tables: Tables, seed: int, seconds: int) -> list[dict[str, int]]:
    """Calls this schedule makes due in each of the first `seconds`, by `service/method`, if all succeed at once."""
    buckets: list[Counter[str]] = [Counter() for _ in range(seconds)]
    for due in schedule(spec, tables, seed) if spec.arrivals else ():
        if due.due_offset_s >= seconds:
            break
        at_s = due.due_offset_s
        for step in due.scenario.steps:
            at_s = due.due_offset_s + step.after.total_seconds() if step.after else at_s
            if at_s < seconds:
                buckets[int(at_s)][step.call] += 1
    return [dict(bucket) for bucket in buckets]
