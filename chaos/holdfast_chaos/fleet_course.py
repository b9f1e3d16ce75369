"""What a fleet did over time, from the histories that its processes wrote, for the report. Pure."""

from collections import Counter, defaultdict
from math import floor
from typing import Final

from holdfast_chaos.coordination_checks import Histories
from holdfast_slo.report import FleetPoint

BUCKET_S: Final = 1.0
HEARD_S: Final = 3
"""Buckets for which an agent counts once it was heard from: each has something to do every second or two."""

_ENDS: Final = ("ended", "not_ended", "create_failed", "closed", "not_closed", "open_failed")
"""Events of callers about what they had asked for."""

_SIGNS_OF_LIFE: Final = ("registered", "completed", "failed", "declined", "voted")
"""Events of agents that the service had acknowledged."""


def course(histories: Histories, unix_s: float) -> tuple[FleetPoint, ...]:
    """The fleet second by second; nothing where no caller wrote anything.

    Args:
        histories: what was written, in the machine's monotonic time.
        unix_s: unix time at which that clock stood at 0.
    """
    well, otherwise = Counter[int](), Counter[int]()
    for event in histories.events(*_ENDS):
        is_well = event.get("outcome") == "succeeded" or event.get("state") == "DECIDED"
        (well if is_well else otherwise)[_bucket(event["t_s"], unix_s)] += 1
    heard: dict[int, set[str]] = defaultdict(set)
    for event in histories.events(*_SIGNS_OF_LIFE):
        now = _bucket(event["t_s"], unix_s)
        for bucket in range(now, now + HEARD_S):
            heard[bucket].add(event["agent"])
    buckets = [*well, *otherwise]
    if not buckets:
        return ()
    return tuple(
        FleetPoint(
            t_s=bucket * BUCKET_S,
            length_s=BUCKET_S,
            ended_well=well[bucket],
            ended_otherwise=otherwise[bucket],
            agents=len(heard[bucket]),
        )
        for bucket in range(min(buckets), max(buckets) + 1)
    )


def _bucket(t_s: float, unix_s: float) -> int:
    return floor((t_s + unix_s) / BUCKET_S)
