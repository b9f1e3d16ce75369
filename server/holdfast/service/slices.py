"""Long work on the event loop, in slices, between which others get their turn."""

import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

from holdfast.core.state import AgentEntry
from holdfast.filtering import Filter
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.turns import Turns

SLICE = 1_000
"""Agents looked at without a pause where each takes some µs; filters say themselves how many they judge at once."""

COST_AT_ONCE = 40
"""Resources of up to 1 KB shown, or judged, without a pause where each takes some 100 µs; larger ones count more."""

T = TypeVar("T")


async def sliced(items: Iterable[T], turns: Turns, size: int | None = None) -> AsyncIterator[Sequence[T]]:
    """The items in order, `size` or else `SLICE` at a time, others get turns in between; they must not change."""
    size = size or SLICE
    remaining = iter(items)
    while part := list(itertools.islice(remaining, size)):
        yield part
        if len(part) < size:
            return
        await turns.wait()


async def matching(
    entries: Sequence[AgentEntry], only: Filter, turns: Turns, count_max: int | None = None
) -> list[Agent]:
    """The first agents that a filter matches, at most `count_max` of them."""
    if only.is_empty:
        return [entry.agent for entry in entries[:count_max]]
    found: list[Agent] = []
    async for part in sliced(entries, turns, only.messages_at_once):
        found += [entry.agent for entry in part if only.matches(entry.agent)]
        if count_max is not None and len(found) >= count_max:
            return found[:count_max]
    return found


class Pause:
    """Lets others have their turn between resources that take long to show, or to judge by a filter."""

    def __init__(self, turns: Turns, only: Filter) -> None:
        self._turns = turns
        self._cost_max = min(COST_AT_ONCE, only.messages_at_once)
        self._cost = 0

    async def after(self, size_bytes: int) -> None:
        """After one of so many bytes; what is at hand must not change."""
        self._cost += 1 + (size_bytes >> 10)
        if self._cost >= self._cost_max:
            self._cost = 0
            await self._turns.wait()
