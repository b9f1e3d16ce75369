"""Hands scenarios to users when they are due: rows one life at a time, nothing dropped, nothing polled."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from holdfast_loadtests.clock import RunClock
from holdfast_loadtests.schedule import Due

BACKLOG_MAX: Final = 100_000
"""Scenarios that may wait for a user or a row; beyond it they are recorded as never sent."""

TURN_MAX: Final = 512
"""Scenarios begun in one turn of the event loop: a generator that is late must still read its answers."""


@dataclass(slots=True)
class Work:
    """A scenario that is due; `free_s` is when its row became free, `late_s` how late the scheduler handed it on."""

    due: Due
    due_s: float
    late_s: float = 0.0
    free_s: float = float("-inf")


class Dispatcher:
    """The one source of work for all users.

    Args:
        schedule: what falls due when.
        clock: unix seconds.
        closed: whether users draw work themselves, as soon as they are free.
        begin: gives a user, by its number, a scenario to run, and says since when it was free; `done` ends it.
    """

    def __init__(
        self, schedule: Iterator[Due], clock: RunClock, *, closed: bool, begin: Callable[[int, Work, float], None]
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._closed = closed
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Work] = deque()
        self._free: deque[tuple[int, float]] = deque()
        self._users = 0
        self._users_made = 0
        self._leaving = 0
        self._retired: list[int] = []
        self._is_handing_out = False
        self._parked: dict[tuple[str, int], deque[Work]] = {}
        self._parked_count = 0
        self._running = 0
        self._idle = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._next: Due | None = None
        self._start_s = 0.0
        self.stop_s = float("inf")
        self.is_stopped = False
        self.refused: list[Work] = []
        self._orphaned: list[Work] = []

    def start(self, start_s: float, users: int) -> None:
        """Begins: scenarios fall due from `start_s` on, and so many users are free."""
        self._start_s = start_s
        self._users = self._users_made = users
        self._free.extend((user, float("-inf")) for user in range(users))
        self._next = next(self._schedule, None)
        self._timer = self._loop.call_soon(self._draw if self._closed else self._look)

    def resize(self, users: int) -> None:
        """The closed model's users become so many; one too many leaves once the scenario that it runs has ended."""
        now_s = self._clock.now_s()
        while self._users < users:
            self._users += 1
            if self._leaving:
                self._leaving -= 1
            else:
                self._free.append((self._retired.pop() if self._retired else self._users_made, now_s))
                self._users_made = max(self._users_made, self._free[-1][0] + 1)
        while self._users > users:
            self._users -= 1
            if self._free:
                self._retired.append(self._free.pop()[0])
            else:
                self._leaving += 1
        if not self.is_stopped:
            self._loop.call_soon(self._draw)

    def done(self, user: int, work: Work, free_s: float, cut_short: bool = False) -> None:
        """The scenario ended at `free_s`: its row goes to who waited longest for it, its user to what waits.

        Where the end of the load cut it short, nobody takes its row over: what the scenario would have put in order is
        not, as with an agent that is registered still.
        """
        self._running -= 1
        if self._leaving:
            self._leaving -= 1
            self._retired.append(user)
        else:
            self._free.append((user, free_s))
        row = _held_row(work.due)
        if row is not None:
            self._orphan(row) if cut_short else self._pass_on(row)
        if self._ready:
            self._hand_out()
        elif self._closed and not self.is_stopped:
            self._loop.call_soon(self._draw)
        if self.is_stopped and not self._outstanding:
            self._idle.set()

    def stop(self) -> None:
        """Nothing falls due from now on; what is due already, and perhaps not looked at yet, is still handed out."""
        self.stop_s = self._clock.now_s()
        self.is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        while not self._closed and self._next is not None:
            due_s = self._start_s + self._next.due_offset_s
            if due_s >= self.stop_s:
                break
            self._offer(Work(self._next, due_s, self.stop_s - due_s))
            self._next = next(self._schedule, None)

    async def drain(self, timeout_s: float) -> list[Work]:
        """Waits until all that was due has ended, or gives up on what has not begun by then and returns it."""
        await self.wait_idle(timeout_s)
        left = [work for queue in self._parked.values() for work in queue] + list(self._ready) + self._orphaned
        self._orphaned.clear()
        self._parked.clear()
        self._ready.clear()
        self._parked_count = 0
        return left

    async def wait_idle(self, timeout_s: float) -> None:
        """After `stop`: waits until nothing is waiting or running any more."""
        self._idle.clear()
        if self._outstanding:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout_s)
            except TimeoutError:
                return

    @property
    def _outstanding(self) -> int:
        return self._running + self._parked_count + len(self._ready)

    def _look(self) -> None:
        """Hands on what is due by now, and comes back when the next is."""
        due = self._next
        for _ in range(TURN_MAX):
            if due is None:
                return
            due_s = self._start_s + due.due_offset_s
            late_s = self._clock.now_s() - due_s
            if late_s < 0.0:
                # Rounded up: the loop counts milliseconds, and a scenario must not begin before it is due.
                self._timer = self._loop.call_later(math.ceil(-late_s * 1000.0) / 1000.0, self._look)
                return
            self._offer(Work(due, due_s, late_s))
            due = self._next = next(self._schedule, None)
        self._timer = self._loop.call_soon(self._look)

    def _draw(self) -> None:
        """The closed model: a scenario falls due for each user, since it is free. Held rows are passed over."""
        while self._free and not self.is_stopped and self._next is not None:
            due, self._next = self._next, next(self._schedule, None)
            if _held_row(due) not in self._parked:
                self._offer(Work(due, max(self._start_s, self._free[0][1])))

    def _offer(self, work: Work) -> None:
        row = _held_row(work.due)
        if self._parked_count + len(self._ready) >= BACKLOG_MAX:
            self.refused.append(work)
        elif row is not None and row in self._parked:
            self._parked[row].append(work)
            self._parked_count += 1
        else:
            if row is not None:
                self._parked[row] = deque()
            self._ready.append(work)
            self._hand_out()

    def _hand_out(self) -> None:
        if self._is_handing_out:
            return  # a scenario that ended as it began: the loop below goes on with the next
        self._is_handing_out = True
        while self._ready and self._free:
            self._running += 1
            user, since_s = self._free.popleft()
            self._begin(user, self._ready.popleft(), since_s)
        self._is_handing_out = False

    def _orphan(self, row: tuple[str, int]) -> None:
        waiting = self._parked.pop(row, deque())
        self._parked_count -= len(waiting)
        self._orphaned.extend(waiting)

    def _pass_on(self, row: tuple[str, int]) -> None:
        waiting = self._parked.get(row)
        if not waiting:
            self._parked.pop(row, None)
            return
        work = waiting.popleft()
        self._parked_count -= 1
        work.free_s = self._clock.now_s()
        self._ready.append(work)


def _held_row(due: Due) -> tuple[str, int] | None:
    """The row that the scenario holds for itself; its key is in `_parked` for as long as it is held."""
    return (due.scenario.rows, due.row_index) if due.scenario.rows else None
