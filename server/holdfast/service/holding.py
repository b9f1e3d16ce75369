"""Acquiring and ending holds at the edge: lines of those who wait, delays that pass, callers that go away.

Each waiter makes its own attempts, when it is first in its line and what it waits for has changed. What ends a hold
gives it to the first in line in the same transaction. Whoever got something after it had gone has it taken back.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.core.holds import acquiring, ending
from holdfast.core.holds.acquiring import Acquisition, Turn
from holdfast.core.holds.entry import HoldEntry
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason
from holdfast.lines import Lines, Waiter
from holdfast.view import View

RETRY_S = 0.5
"""Pause before what the store refused to take back is taken back again."""

A = TypeVar("A")

log = structlog.get_logger()


class Delays(Protocol):
    """Counts the delays of what was lost, from when this replica learns of it, on a clock that does not jump."""

    def start(self, name: str, left_s: float) -> None:
        """A delay begins."""
        ...

    def clear(self, name: str) -> None:
        """There is none any more."""
        ...

    def is_past(self, name: str) -> bool:
        """Whether it is over."""
        ...


class Executor(Protocol):
    """Writes what is decided; see `Registry.execute`."""

    async def __call__(self, decide: Callable[[View], Plan[A]]) -> A:
        """Returns the answer once it is written."""
        ...


class Holding:
    """One replica's part in who holds what.

    Attributes:
        lines: Those who wait.
        on_wait_ended: Called with the name, how it ended (`granted`, `held`, `gone` or `refused`), and the seconds.

    Args:
        take: How holds are written.
        now: The wall clock, for people.
        delays: Where delays are counted; it calls `end_delay`.
    """

    def __init__(self, take: Executor, now: Callable[[], Timestamp], delays: Delays) -> None:
        self.lines = Lines()
        self.on_wait_ended: Callable[[str, str, float], None] = lambda _name, _how, _seconds: None
        self._take = take
        self._now = now
        self._delays = delays
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_stopped = False

    # As the view's listener.

    def hold_changed(self, name: str, entry: HoldEntry | None) -> None:
        """Counts the delay of what was lost, and tells those in line."""
        if entry is None or entry.is_held:
            self._delays.clear(name)
        else:
            self._delays.start(name, entry.record.delay_ms / 1000)
        is_held = entry is not None and entry.is_held
        self.lines.changed(name, *((entry.record.holder, entry.record.lease) if entry and is_held else ("", "")))

    def lease_ended(self, name: str) -> None:
        """Tells those who wait under it."""
        self.lines.lease_ended(name)

    # Acquiring.

    async def acquire(self, command: Acquisition, wait_s: float, client: str) -> HoldEntry:
        """Waits in line at most so long, and returns the hold got.

        Raises:
            HoldfastError: What `acquiring.acquire` raises; QUOTA_EXCEEDED if too many wait, NOT_READY when the server
                ends meanwhile.
        """
        began_s, how = time.perf_counter(), "gone"
        waiter = self.lines.join(command, client)
        try:
            hold = await self._wait(waiter, asyncio.get_running_loop().time() + wait_s)
            how = "granted"
        except HoldfastError as error:
            how = "held" if error.reason is Reason.LOCK_HELD else "refused"
            raise
        else:
            return hold
        finally:
            waiter.has_left = how != "granted"
            self.lines.leave(waiter)
            self.on_wait_ended(command.name, how, time.perf_counter() - began_s)

    async def _wait(self, waiter: Waiter, until_s: float) -> HoldEntry:
        """Attempts until one gets it. Whoever is being given it waits for the outcome, even beyond its time."""
        clock = asyncio.get_running_loop().time
        while True:
            may_wait = waiter.choosers > 0 or clock() < until_s
            hold = await self._attempt(waiter, may_wait=may_wait)
            if hold is not None:
                return hold
            self.lines.stay(waiter)
            await waiter.nudged(until_s if not waiter.choosers else None)

    async def _attempt(self, waiter: Waiter, *, may_wait: bool) -> HoldEntry | None:
        """One attempt, which goes on when its caller goes away; what it gets then is taken back."""
        command = waiter.command

        def attempting(reader: View) -> Plan[HoldEntry | None]:
            is_over = self._delays.is_past(command.name)
            turn = Turn(is_first=self.lines.is_first(waiter), is_delay_over=is_over, may_wait=may_wait)
            return acquiring.acquire(reader, command, turn, self._now())

        attempt = self._start(self._take(attempting))
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            attempt.add_done_callback(lambda _: self._take_back_later(command))
            raise
        except HoldfastError as error:
            if error.reason is Reason.TXN_CONFLICT and may_wait:  # its place in line is worth another attempt
                waiter.nudge()
                return None
            raise

    # Ending.

    async def release(self, name: str, fence: int) -> tuple[HoldEntry | None, int]:
        """Gives a hold back; returns that of the first in line, who has it in the same revision, and this revision.

        Raises:
            HoldfastError: FENCE_STALE.
        """
        return await self._pass_on(
            name, lambda reader, following: ending.release(reader, name, fence, following, self._now())
        )

    async def end_delay(self, name: str) -> None:
        """Does what the passing of a delay does."""
        await self._pass_on(
            name,
            lambda reader, following: ending.end_delay(
                reader, name, following, self._now(), is_over=self._delays.is_past(name)
            ),
        )

    async def _pass_on(self, name: str, decide: Callable[[View, Acquisition | None], Plan[A]]) -> A:
        """Writes what ends a hold, whether its caller stays or not, and tells who has it next."""
        return await asyncio.shield(self._start(self._passing_on(name, decide)))

    async def _passing_on(self, name: str, decide: Callable[[View, Acquisition | None], Plan[A]]) -> A:
        chosen: list[Waiter] = []

        def deciding(reader: View) -> Plan[A]:
            self._let_go(chosen)
            first = self.lines.first(name, lambda command: acquiring.may_be_granted(reader, command))
            if first is not None:
                first.choosers += 1
                chosen.append(first)
            return decide(reader, first.command if first is not None else None)

        try:
            return await self._take(deciding)
        finally:
            last = list(chosen)
            self._let_go(chosen)
            for each in last:
                if each.has_left:
                    self._take_back_later(each.command)

    def _let_go(self, chosen: list[Waiter]) -> None:
        for each in chosen:
            each.choosers -= 1
            each.nudge()
        chosen.clear()

    def _take_back_later(self, command: Acquisition) -> None:
        if not self._is_stopped:
            self._start(self._take_back(command))

    async def _take_back(self, command: Acquisition) -> None:
        """Takes back what a caller got that had gone; until the store takes it, since the lease may stand for days."""
        while True:
            try:
                await self._passing_on(
                    command.name, lambda reader, following: ending.take_back(reader, command, following, self._now())
                )
            except HoldfastError as error:
                log.warning("hold_not_taken_back", name=command.name, reason=error.reason.name, message=error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return

    # What goes on by itself.

    def _start(self, work: Coroutine[Any, Any, A]) -> "asyncio.Task[A]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._is_stopped:  # the view is not kept up any more: it would wait for ever
            task.cancel()
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may have gone

    def stop(self) -> None:
        """Waits no longer for what is on its way, once the view is not kept up any more."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()
