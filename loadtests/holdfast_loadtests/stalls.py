"""How long the event loop stood still: the generator's own share in what looks like a slow server."""

import asyncio
from typing import Final

EVERY_S: Final = 0.02


class Stalls:
    """Wakes up every 20 ms and keeps the longest that it came late; 0 while the loop keeps up."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begins to watch."""
        self._due_s = self._loop.time() + EVERY_S
        self._timer = self._loop.call_later(EVERY_S, self._wake)

    def end(self) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        self.longest_s = max(self.longest_s, self._loop.time() - self._due_s)
        self.begin()
