"""Queues before resources that many want to change at once: one after the other, in the order they came."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from holdfast.errors import HoldfastError, Reason

QUEUE_MAX = 1_000
"""Most that queue for one resource; the last of them waits for as many writes."""


@dataclass(slots=True)
class _Queue:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # wakes those who wait in the order they came
    length: int = 0


class Queues:
    """A queue for each resource that somebody queues for; empty when nobody does."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def first_of(self, names: Iterable[str]) -> str:
        """The first of these resources that has a queue; empty if none has."""
        return next((name for name in names if name in self._queues), "")

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Waits at the end of a resource's queue; the next one's turn comes after the block. Nobody waits for "".

        Raises:
            HoldfastError: TXN_CONFLICT if too many wait.
        """
        if not name:
            yield
            return
        queue = self._queues.setdefault(name, _Queue())
        if queue.length >= QUEUE_MAX:
            raise HoldfastError(
                Reason.TXN_CONFLICT,
                f"{QUEUE_MAX} calls wait to change {name[:200]} already; try again after a random delay.",
                subject=name[:200],
            )
        queue.length += 1
        try:
            async with queue.turn:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[name]
