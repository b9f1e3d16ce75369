"""Long work on the event loop, in slices: who waits for a turn between two of them leaves the others theirs."""

import asyncio


class Turns:
    """One slice of long work for each round of the event loop, first come, first served.

    Yielding alone would give each of a hundred long searches a slice in every round, and all else would wait for them.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        """Waits for a turn: one round of the event loop, and one or two more for each who came before."""
        async with self._lock:
            await asyncio.sleep(0)
