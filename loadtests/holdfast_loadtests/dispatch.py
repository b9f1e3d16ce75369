"""Hands scenarios to users when they are due: rows one life at a time, nothing dropped, nothing polled.

Runs on gevent; only the worker imports it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gevent.event import Event
from gevent.queue import Queue

from holdfast_loadtests.clock import RunClock
from holdfast_loadtests.schedule import Due

BACKLOG_MAX: Final = 100_000
"""Scenarios that may wait for a user or a row; beyond it they are recorded as never sent."""


@dataclass(slots=True)
class Work:
    """A scenario that is due; `free_s` is when its row became free, `late_s` how late the scheduler handed it on."""

    due: Due
    due_s: float
    late_s: float = 0.0
    free_s: float = float("-inf")


class Dispatcher:
    """The one source of work for all users."""

    def __init__(self, schedule: Iterator[Due], clock: RunClock, *, closed: bool) -> None:
        self._schedule = schedule
        self._clock = clock
        self._closed = closed
        self._ready: Queue[Work | None] = Queue()
        self._parked: dict[tuple[str, int], deque[Work]] = {}
        self._parked_count = 0
        self._running = 0
        self._idle = Event()
        self.stopping = Event()
        self.stop_s = float("inf")
        self.refused: list[Work] = []

    def run(self, start_s: float) -> None:
        """Makes scenarios ready as they fall due, until stopped or the schedule ends; closed: users draw themselves."""
        if self._closed:
            return
        for due in self._schedule:
            due_s = start_s + due.due_offset_s
            if self.sleep_until(due_s):
                return
            self._offer(Work(due, due_s, late_s=self._clock.now_s() - due_s))

    def sleep_until(self, until_s: float) -> bool:
        """Waits; true where the load was stopped before that time (what is due later must not begin)."""
        wait_s = until_s - self._clock.now_s()
        if wait_s > 0 and until_s < self.stop_s:
            self.stopping.wait(wait_s)
        return until_s >= self.stop_s

    def take(self) -> Work | None:
        """The next scenario for a user that is free; None when there will be no more."""
        while self._closed and not self.stopping.is_set() and self._ready.empty():
            due = next(self._schedule)
            self._offer(Work(due, self._clock.now_s()))
        work = self._ready.get()
        if work is not None:
            self._running += 1
        return work

    def done(self, work: Work) -> None:
        """The scenario ended: its row goes to the one that waited longest for it."""
        self._running -= 1
        row = _held_row(work.due)
        if row is not None:
            self._pass_on(row)
        if self.stopping.is_set() and not self._outstanding:
            self._idle.set()

    def stop(self) -> None:
        """Nothing falls due from now on; what is due already is still handed out."""
        self.stop_s = self._clock.now_s()
        self.stopping.set()

    def drain(self, timeout_s: float) -> list[Work]:
        """Waits until all that was due has ended, or gives up on what has not begun by then and returns it."""
        self.wait_idle(timeout_s)
        left = [work for queue in self._parked.values() for work in queue]
        while not self._ready.empty():
            work = self._ready.get_nowait()
            left += [work] if work is not None else []
        self._parked.clear()
        self._parked_count = 0
        return left

    def wait_idle(self, timeout_s: float) -> None:
        """After `stop`: waits until nothing is waiting or running any more."""
        if self._outstanding:
            self._idle.clear()
            self._idle.wait(timeout_s)

    def dismiss(self, users: int) -> None:
        """Sends so many users home."""
        for _ in range(users):
            self._ready.put(None)

    @property
    def _outstanding(self) -> int:
        return self._running + self._parked_count + self._ready.qsize()

    def _offer(self, work: Work) -> None:
        row = _held_row(work.due)
        if self._parked_count + self._ready.qsize() >= BACKLOG_MAX:
            self.refused.append(work)
        elif row is not None and row in self._parked:
            self._parked[row].append(work)
            self._parked_count += 1
        else:
            if row is not None:
                self._parked[row] = deque()
            self._ready.put(work)

    def _pass_on(self, row: tuple[str, int]) -> None:
        waiting = self._parked.get(row)
        if not waiting:
            self._parked.pop(row, None)
            return
        work = waiting.popleft()
        self._parked_count -= 1
        work.free_s = self._clock.now_s()
        self._ready.put(work)


def _held_row(due: Due) -> tuple[str, int] | None:
    """The row that the scenario holds for itself; its key is in `_parked` for as long as it is held."""
    return (due.scenario.rows, due.row_index) if due.scenario.rows else None
