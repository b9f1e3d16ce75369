"""Blocks of work that are cancelled when what they rest on is lost."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Stoppable(Protocol):
    """Work that can be told to stop."""

    def stop(self) -> None:
        """Stops it; again does nothing."""
        ...


class Guard:
    """An `async with` block: cancelled by `stop`, and left only with proof.

    As asyncio.timeout does: whoever cancels the task from outside cancels it, and only this guard's own cancellation
    becomes the error that `check` raises.

    Args:
        check: Raises unless what the block rests on is proven.
        guards: Where it is known while the block runs.
    """

    def __init__(self, check: Callable[[], None], guards: set[Stoppable]) -> None:
        self._check = check
        self._guards = guards
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_stopped = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None or self._task is not None:
            raise RuntimeError("a guard is one 'async with' block, inside a task; make another for another block.")
        self._check()
        self._task, self._cancelling = task, task.cancelling()
        self._guards.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._task is not None, "it was entered"
        self._guards.discard(self)
        if self._is_stopped:
            await self._take_back(self._task, kind)
        if kind is None:
            self._check()

    async def _take_back(self, task: asyncio.Task[object], kind: type[BaseException] | None) -> None:
        """Ends its own cancellation, also one that the block ended too soon to see."""
        was_seen = kind is asyncio.CancelledError
        if not was_seen:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if task.uncancel() <= self._cancelling:
            if was_seen:
                self._check()
        elif not was_seen:
            raise asyncio.CancelledError  # somebody else's, seen with ours

    def stop(self) -> None:
        """Cancels the block's task."""
        if self._task is not None and not self._is_stopped:
            self._is_stopped = True
            self._task.cancel()
