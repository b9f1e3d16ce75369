"""The seeded schedule: which scenario is due when, with which row.

Pure: the same load, tables and seed give the same schedule.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count, cycle, repeat, takewhile
from operator import gt
from typing import Final, NamedTuple

from holdfast_loadtests.spec import Arrivals, LoadSpec, Scenario

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
    times = repeat(0.0) if spec.arrivals is None else _times(spec.arrivals, random.Random(f"times:{seed}"))
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


def _times(arrivals: Sequence[Arrivals], rng: random.Random) -> Iterator[float]:
    start_s = 0.0
    for stretch in arrivals:
        offsets = _poisson(stretch.rate, rng) if stretch.process == "poisson" else _constant(stretch.rate)
        if stretch.for_ is None:
            yield from (start_s + offset_s for offset_s in offsets)
            return
        length_s = stretch.for_.total_seconds()
        yield from (start_s + offset_s for offset_s in takewhile(partial(gt, length_s), offsets))
        start_s += length_s


def _constant(rate_per_s: float) -> Iterator[float]:
    # Multiplied, not added up: adding 1/rate a million times drifts.
    return (number / rate_per_s for number in count())


def _poisson(rate_per_s: float, rng: random.Random) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate_per_s)
        yield at_s


def expected_calls(spec: LoadSpec, start_s: float, end_s: float) -> dict[str, float]:
    """Calls expected to fall due between two offsets, by `service/method`, if every scenario runs to its end.

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
            due = _arrivals_between(spec.arrivals, start_s - shift_s, end_s - shift_s)
            calls[step.call] = calls.get(step.call, 0.0) + due * scenario.weight / weight_sum
    return calls


def _arrivals_between(arrivals: Sequence[Arrivals], start_s: float, end_s: float) -> float:
    total, at_s = 0.0, 0.0
    for stretch in arrivals:
        until_s = at_s + stretch.for_.total_seconds() if stretch.for_ else max(end_s, at_s)
        total += stretch.rate * max(0.0, min(end_s, until_s) - max(start_s, at_s))
        at_s = until_s
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
