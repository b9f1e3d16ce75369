"""Deadlines of calls: one timer for all calls with the same deadline, not one each.

Calls with one deadline expire in the order in which they began, so the first of them is all that a timer need watch.
"""

import asyncio
from collections.abc import Callable

from holdfast_loadtests.exchanges import Exchange

Expire = Callable[[Exchange, float], None]


class Expiry:
    """Deadlines of the calls of all channels.

    Args:
        loop: keeps the time.
        expire: called with a call whose deadline has passed, and the deadline in seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Expire) -> None:
        self._loop = loop
        self._expire = expire
        self._lanes: dict[float, dict[Exchange, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def watch(self, exchange: Exchange, deadline_s: float) -> None:
        """Begins to watch a call; it leaves by ending."""
        lane = self._lanes.get(deadline_s)
        if lane is None:
            lane = self._lanes[deadline_s] = {}
        lane[exchange] = self._loop.time() + deadline_s
        exchange.lane = lane
        if deadline_s not in self._timers:
            self._timers[deadline_s] = self._loop.call_later(deadline_s, self._look, deadline_s)

    def under_way(self) -> list[Exchange]:
        """Every call that has not ended."""
        return [exchange for lane in self._lanes.values() for exchange in lane]

    def close(self) -> None:
        """Stops watching."""
        for timer in self._timers.values():
            timer.cancel()

    def _look(self, deadline_s: float) -> None:
        lane = self._lanes[deadline_s]
        now_s = self._loop.time()
        while lane:
            exchange, at_s = next(iter(lane.items()))
            if at_s > now_s:
                break
            self._expire(exchange, deadline_s)
            lane.pop(exchange, None)
        if lane:
            self._timers[deadline_s] = self._loop.call_at(next(iter(lane.values())), self._look, deadline_s)
        else:
            del self._timers[deadline_s]
