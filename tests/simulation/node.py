"""One server of a simulation: the product's code, with a clock, a network and a life of its own."""

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from holdfast.errors import HoldfastError, Reason
from holdfast.failpoints import Failpoint
from holdfast.service.agents import AgentRegistry
from holdfast.service.context import CallContext
from holdfast.service.decisions import DecisionHandlers
from holdfast.service.drainer import Drainer
from holdfast.service.elections import ElectionHandlers
from holdfast.service.janitor import Janitor
from holdfast.service.leases import LeaseHandlers
from holdfast.service.locks import LockHandlers
from holdfast.service.registry import Registry
from simulation.loop import NODE, VirtualLoop
from simulation.store import SimulatedStore
from support.history import History

CALL = CallContext("service", "method", "simulated")

JANITOR_EVERY_S = 2.0
"""Between rounds of the janitor: more often than in life, so that it meets everything."""

PROGRESS_EVERY_S = 0.5
"""Between messages of progress, likewise."""


class CrashedError(BaseException):
    """The process ended here."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """A node's own idea of time. The monotonic clock begins and runs as it likes; the wall clock is wrong."""

    begin_s: float
    rate: float
    wall_begin_s: float
    wall_rate: float


class Node:
    """A server that can be started, killed, paused and asked."""

    def __init__(self, name: str, rng: random.Random, clocks: Clocks, history: History, retain_revisions: int) -> None:
        self.name = name
        self.is_paused = False
        self.held: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.is_up = False
        self.is_serving = False
        self.trap: Failpoint | None = None
        self.store: SimulatedStore | None = None
        self._rng = rng
        self._clocks = clocks
        self._history = history
        self._retain_revisions = retain_revisions
        self._context = contextvars.copy_context()
        self._context.run(NODE.set, self)

    @property
    def loop(self) -> VirtualLoop:
        """The simulation's loop."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop

    def _clock(self) -> float:
        return self._clocks.begin_s + self.loop.time() * self._clocks.rate

    @property
    def wall_rate(self) -> float:
        """How fast its time of day goes."""
        return self._clocks.wall_rate

    def wall_clock(self) -> float:
        """Unix time as it has it."""
        return self._clocks.wall_begin_s + self.loop.time() * self._clocks.wall_rate

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _new_key(self) -> bytes:
        return random.Random(self.name).randbytes(32)  # nobody guesses here, and a seed replays

    # Its life.

    def start(self, store: SimulatedStore) -> None:
        """Begins to serve once it has its view."""
        self.store, self.is_up = store, True
        self.registry = Registry(store, self._clock, self.wall_clock, self._new_id, new_key=self._new_key)
        self._handlers = (
            AgentRegistry(self.registry, progress_every_s=PROGRESS_EVERY_S),
            LeaseHandlers(self.registry),
            DecisionHandlers(self.registry, progress_every_s=PROGRESS_EVERY_S),
            LockHandlers(self.registry),
            ElectionHandlers(self.registry),
        )
        self.spawn(self._run())

    async def _run(self) -> None:
        registry = self.registry
        self._part("view", registry.follow_store(), Reason.REVISION_COMPACTED)
        await registry.view.is_ready.wait()
        if registry.replicas is not None:
            self._part("replicas", registry.replicas.run())
        self._part("lease keeper", registry.start_keeping())
        self._part("janitor", Janitor(registry, self._retain_revisions).run(JANITOR_EVERY_S))
        self._part("deadlines", registry.deadlines.run())
        self._part("drainer", Drainer(registry).run())
        self.is_serving = True
        self._history.mark(self.name, "serving")

    def _part(self, name: str, work: Coroutine[Any, Any, None], by_design: Reason | None = None) -> None:
        """Runs a part of the server until it is killed: as in life, a part that ends by itself ends the server.

        That is a defect as well, unless it ends for the reason it is meant to end for: compaction may overtake a view.
        """
        registry = self.registry

        def ended(part: asyncio.Task[None]) -> None:
            if part.cancelled() or self.registry is not registry:
                return
            error = part.exception()
            if isinstance(error, CrashedError):
                return
            if not isinstance(error, HoldfastError) or error.reason is not by_design:
                self.loop.errors.append(f"the {name} of {self.name} ended: {error!r}")
            self.kill()

        self.spawn(work).add_done_callback(ended)

    def kill(self) -> None:
        """Ends it at once, with everything it was about to do."""
        if not self.is_up:
            return
        self.is_up = self.is_serving = False
        self.trap = None
        self._history.mark(self.name, "killed")
        self.loop.resume(self)  # the dead are not held
        for task in list(self.tasks):
            task.cancel()
        self.tasks.clear()
        if self.store is not None and not self.store.is_shared:
            self.store.crash()

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True
        self._history.mark(self.name, "paused")

    def resume(self) -> None:
        """SIGCONT."""
        if self.is_paused:
            self._history.mark(self.name, "resumed")
            self.loop.resume(self)

    def hit(self, point: Failpoint) -> None:
        """Dies at a place if it is to."""
        if self.trap == point:
            self.kill()
            raise CrashedError

    # What clients do with it.

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something inside the node; it ends with it."""
        return self.loop.create_task(work, context=self._context.copy())

    def handler(self, op: str) -> Callable[..., Any]:
        """The handler of an rpc."""
        name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in op)[1:]
        handler: Callable[..., Any] = next(getattr(each, name) for each in self._handlers if hasattr(each, name))
        return handler


async def one(message: Any) -> AsyncIterator[Any]:
    """A stream of one message."""
    yield message
