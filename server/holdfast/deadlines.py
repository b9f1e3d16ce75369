"""Deadlines of work in progress, counted on a monotonic clock.

A deadline is given as a time of day. It is read against the wall clock once, when this replica learns of it; from then
on only a clock that does not jump counts, so that setting the time ends nothing early. What happens when one passes is
decided against the store, so that replicas may all keep the same deadlines and only one acts.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.errors import HoldfastError
from holdfast.guard import HELD_S_MAX, StallGuard

TICK_S = 0.25
"""Longest sleep between looks at the clock."""

AT_ONCE = 64
"""Most that pass together; the others follow at the next look."""

RETRY_S = 0.5
"""Pause before what the store refused is tried again."""

log = structlog.get_logger()


class Deadlines:
    """Keeps one deadline for each name. `run` acts on those that pass; tests and simulations call `look`.

    Args:
        clock: A monotonic clock, in seconds.
        wall_clock: Unix time, in seconds.
        act: What is done about a name whose deadline has passed. It must bear being called twice, and ask `is_past`
            again when it decides: others may have moved the deadline meanwhile.
    """

    def __init__(
        self, clock: Callable[[], float], wall_clock: Callable[[], float], act: Callable[[str], Awaitable[object]]
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._act = act
        self._due_s: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self._silences: dict[str, float] = {}
        self._guard = StallGuard(clock())
        self._heard_from_s = clock()
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, deadline: Timestamp) -> None:
        """Counts towards a deadline, in the place of the one before; towards one that is known it just goes on."""
        if name in self._due_s and self._told.get(name) == deadline.ToNanoseconds():
            return
        left_s = max(0.0, deadline.ToMilliseconds() / 1000 - self._wall_clock())
        self._begin(name, deadline.ToNanoseconds(), left_s)

    def listen(self, name: str, since_revision: int, silence_s: float) -> None:
        """Counts a silence from now on that began with a revision; towards one that is known it just goes on.

        What is not heard while this process stands still is no silence: such a deadline moves, as leases' do.
        """
        if name in self._silences and self._told.get(name) == since_revision:
            return
        self._begin(name, since_revision, silence_s)
        self._silences[name] = self._due_s[name]

    def _begin(self, name: str, told: int, left_s: float) -> None:
        self._told[name] = told
        self._due_s[name] = self._clock() + left_s
        heapq.heappush(self._heap, (self._due_s[name], name))
        if len(self._heap) > 2 * len(self._due_s) + 64:  # most are cleared long before they are due
            self._heap = [(due_s, each) for each, due_s in self._due_s.items()]
            heapq.heapify(self._heap)

    def start(self, name: str, left_s: float) -> None:
        """Counts so many seconds from now, in the place of the deadline before."""
        self._told.pop(name, None)
        self._due_s[name] = self._clock() + left_s
        heapq.heappush(self._heap, (self._due_s[name], name))

    def left_s(self, name: str) -> float | None:
        """How long until the deadline of a name, in seconds; None without one."""
        due_s = self._due_s.get(name)
        return max(0.0, due_s - self._clock()) if due_s is not None else None

    def clear(self, name: str) -> None:
        """Forgets a deadline, if there is one."""
        self._due_s.pop(name, None)
        self._told.pop(name, None)
        self._silences.pop(name, None)

    def is_past(self, name: str) -> bool:
        """Whether the deadline of a name has passed; False without one."""
        due_s = self._due_s.get(name)
        return due_s is not None and self._clock() >= due_s

    async def run(self) -> None:
        """Acts on deadlines as they pass, until cancelled."""
        while True:  # noqa: ASYNC110 - what it waits for is time itself
            await asyncio.sleep(await self.look())

    async def look(self) -> float:
        """Acts on the deadlines that have passed. Returns how long to wait before the next look, in seconds."""
        outcomes = await asyncio.gather(*(self._try(*due) for due in self._pop_due().items()))
        if not all(outcomes):
            return RETRY_S
        next_s = self._heap[0][0] - self._clock() if self._heap else TICK_S
        return min(max(next_s, 0.005), TICK_S)

    def _pop_due(self) -> dict[str, float]:
        now_s = self._clock()
        self._heard_from_s = max(self._heard_from_s, now_s + self._guard.look(now_s))
        due: dict[str, float] = {}
        while self._heap and self._heap[0][0] <= now_s and len(due) < AT_ONCE:
            due_s, name = heapq.heappop(self._heap)
            if self._due_s.get(name) == due_s and not self._must_wait(name, now_s):  # neither moved nor cleared since
                due[name] = due_s
        return due

    def _must_wait(self, name: str, now_s: float) -> bool:
        """Gives a silence the time in which nothing was heard, at most `HELD_S_MAX` in all."""
        first_due_s = self._silences.get(name)
        if first_due_s is None or min(self._heard_from_s, first_due_s + HELD_S_MAX) <= now_s:
            return False
        self._due_s[name] = min(self._heard_from_s, first_due_s + HELD_S_MAX)
        heapq.heappush(self._heap, (self._due_s[name], name))
        return True

    async def _try(self, name: str, due_s: float) -> bool:
        """Whether it was done; what was not is due again."""
        if self._due_s.get(name) != due_s:  # moved or cleared before this had its turn
            return True
        try:
            await self._act(name)
        except HoldfastError as error:
            log.warning("deadline_not_acted_on", name=name, reason=error.reason.name, message=error.message)
            if self._due_s.get(name) == due_s:
                heapq.heappush(self._heap, (due_s, name))
            return False
        if self._due_s.get(name) == due_s:
            self.clear(name)
        return True
