"""An event loop whose time passes when nothing else is left to do: no threads, no sockets, no waiting.

Nodes of a simulation can be paused, as by SIGSTOP: what runs in the context of a paused node waits until it goes on.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

CLOCK_RESOLUTION_S = 1e-9
"""Timers this close to now are due."""

ROUND_S = 1e-6
"""What a round of the loop takes: time never stands still for those who ask until it has passed."""


class Pausable(Protocol):
    """A node of a simulation."""

    is_paused: bool
    held: "list[asyncio.Handle]"
    tasks: "dict[asyncio.Task[Any], None]"


NODE: contextvars.ContextVar[Pausable | None] = contextvars.ContextVar("NODE", default=None)
"""The node whose code runs."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Virtual time from 0. Errors nobody waited for are kept in `errors`."""

    _now_s: float
    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__()
        self.errors: list[BaseException | str] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context.get("exception", context["message"])))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> "asyncio.Task[T]":
        """Begins a task. One of a node is also among the node's, whoever of its code begins it."""
        task = super().create_task(coro, name=name, context=context)
        node = NODE.get() if context is None else context.get(NODE)
        if node is not None:
            node.tasks[task] = None
            task.add_done_callback(lambda done: node.tasks.pop(done, None))
        return task

    def resume(self, node: Pausable) -> None:
        """Lets a paused node go on with what waited."""
        node.is_paused = False
        self._ready.extend(node.held)
        node.held.clear()

    def _run_once(self) -> None:
        """One round of what is due; time goes to the next timer if nothing is."""
        self._now_s += ROUND_S
        self._collect()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle._cancelled:
                continue
            node = handle._context.get(NODE)
            if node is not None and node.is_paused:
                node.held.append(handle)
            else:
                handle._run()

    def _collect(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            if not scheduled:
                raise RuntimeError(f"at {self._now_s:g} s everybody waits, and nothing will happen")
            self._now_s = max(self._now_s, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now_s + CLOCK_RESOLUTION_S:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)

    def _process_events(self, _events: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a system call."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a simulation to its end, and everything it started.

    Raises:
        RuntimeError: Everybody waits and nothing will happen.
    """
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        _end_all(loop)
        loop.close()


def _end_all(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True)) if tasks else None
    loop.run_until_complete(loop.shutdown_asyncgens())
