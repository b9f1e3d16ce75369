"""Long work on the event loop, in slices, between which others get their turn."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

SLICE = 2_000
"""Agents looked at without a pause: some 5 ms of a simple question, at most 50 of a long one."""

T = TypeVar("T")


async def sliced(items: Iterable[T], size: int = SLICE) -> AsyncIterator[Sequence[T]]:
    """The items in order, `size` at a time, with a turn for others in between; they must not change meanwhile."""
    remaining = iter(items)
    while part := list(itertools.islice(remaining, size)):
        yield part
        if len(part) < size:
            return
        await asyncio.sleep(0)
