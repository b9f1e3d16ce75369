"""WatchAgents: a snapshot or a place in the history, then every change in order, or a reset that says why not."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.errors import HoldfastError, Reason
from holdfast.failpoints import Failpoint, hit
from holdfast.filtering import Filter, compile_filter
from holdfast.history import History
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentEvent,
    AgentEvents,
    AgentEventType,
    WatchAgentsRequest,
    WatchAgentsResponse,
    WatchProgress,
    WatchReset,
    WatchResetReason,
)
from holdfast.service.context import CallContext
from holdfast.service.paging import fitting
from holdfast.service.registry import Registry
from holdfast.service.room import SMALL_BYTES
from holdfast.service.slices import matching
from holdfast.topics import FellBehindError

SNAPSHOT_PAGE = 500
"""Most agents in one message of a snapshot: usually some 250 KB."""

PROGRESS_EVERY_S = 5.0
"""How often a quiet watch that asks for it is told how far it has come."""


class AgentWatching:
    """The handler of WatchAgents.

    Args:
        registry: The state.
        progress_every_s: See `PROGRESS_EVERY_S`.
    """

    def __init__(self, registry: Registry, progress_every_s: float = PROGRESS_EVERY_S) -> None:
        self._registry = registry
        self._progress_every_s = progress_every_s

    async def watch_agents(
        self, request: WatchAgentsRequest, context: CallContext
    ) -> AsyncGenerator[WatchAgentsResponse | bytes, None]:
        """WatchAgents. Changes come as serialised responses, which all watchers share."""
        only = compile_filter(request.filter, Agent.DESCRIPTOR)
        view, audience = self._registry.view, self._registry.audience
        with audience.place(context.client):
            await view.reached(await self._registry.store.current_revision())
            position = request.start_revision - 1
            if request.start_revision == 0:
                position = view.revision
                pages = self._snapshot(request, only)  # a frame of its own, so that nothing of it is held afterwards
                while (page := await anext(pages, None)) is not None:
                    async with audience.room.taken(context.client, page.size_bytes):
                        yield page.response()
                    del page  # the next may be days away
                del pages
            elif position > view.revision:
                raise in_future(request.start_revision, view.revision)
            elif position < view.history.start:
                yield _reset(WatchResetReason.WATCH_RESET_REASON_COMPACTED, view.history.start)
                # The status says it too, for clients that do not know this step of the protocol.
                raise compacted(request.start_revision, view.history.start)
            async for step in self._changes(request, only, position):
                if not isinstance(step, _Large):  # the room itself would cost as much
                    yield step
                    continue
                async with audience.room.taken(context.client, step.size_bytes):
                    try:
                        yield step.response()
                    except FellBehindError:
                        yield _fell_behind(view.history)
                        return
                del step

    async def _snapshot(self, request: WatchAgentsRequest, only: Filter) -> AsyncIterator["_Page"]:
        view = self._registry.view
        revision, there = view.revision, view.entries(request.parent, with_expired=only.names("liveness"))
        for page in _pages(revision, await matching(there, only, view.turns)):
            yield page

    async def _changes(self, request: WatchAgentsRequest, only: Filter, position: int) -> AsyncIterator["_Told"]:
        """Responses of up to `SMALL_BYTES`, and what makes larger ones.

        Whoever does not read must not hold on to history: between two responses a watch has its position alone.
        """
        history, clock = self._registry.view.history, asyncio.get_running_loop().time
        parent, tells_progress, told_s = request.parent, request.progress_notify, clock()
        looked_at = 0
        while True:
            try:
                step = history.next(position)
            except FellBehindError:
                yield _fell_behind(history)
                return
            if step is None and not tells_progress:
                await history.advance()
            elif step is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, told_s + self._progress_every_s - clock())):
                        await history.advance()
            else:
                looked_at += 1 if only.is_empty else await history.judge(step, parent, only)
                encoded = history.encoded(step, parent, only)
                position = step.revision
                del step
                if encoded is not None:
                    is_small = len(encoded) <= SMALL_BYTES
                    told = encoded if is_small else _Large(history, position, parent, only, len(encoded))
                    del encoded
                    hit(Failpoint.BEFORE_WATCH_SEND)
                    yield told
                    hit(Failpoint.AFTER_WATCH_SEND)
                    if tells_progress:
                        told_s = clock()
                if looked_at >= only.messages_at_once:
                    looked_at = 0
                    await self._registry.view.turns.wait()
            # By the clock, not by silence: where other namespaces are never silent, a quiet watch must hear it too.
            if tells_progress and clock() - told_s >= self._progress_every_s:
                yield WatchAgentsResponse(revision=position, progress=WatchProgress())
                told_s = clock()


@dataclass(frozen=True, slots=True)
class _Page:
    """A message of a snapshot that is not made before there is room for it."""

    revision: int
    agents: Sequence[Agent]
    is_last: bool

    @property
    def size_bytes(self) -> int:
        """The size of the message, near enough."""
        return sum(agent.ByteSize() for agent in self.agents)

    def response(self) -> WatchAgentsResponse:
        """The message."""
        events = [AgentEvent(type=AgentEventType.AGENT_EVENT_TYPE_ADDED, agent=agent) for agent in self.agents]
        return WatchAgentsResponse(revision=self.revision, events=AgentEvents(events=events, snapshot_end=self.is_last))


@dataclass(frozen=True, slots=True)
class _Large:
    """A large message of changes, which is made, or taken from those kept, once there is room for it."""

    history: History
    revision: int
    parent: str
    only: Filter
    size_bytes: int

    def response(self) -> bytes:
        """The message.

        Raises:
            FellBehindError: Its step has been dropped.
        """
        step = self.history.next(self.revision - 1)
        encoded = self.history.encoded(step, self.parent, self.only) if step is not None else None
        assert encoded is not None, f"revision {self.revision} told something before"
        return encoded


_Told: TypeAlias = _Large | WatchAgentsResponse | bytes


def _pages(revision: int, agents_there: list[Agent]) -> Iterator[_Page]:
    """A snapshot in messages of one revision, at least one; the last says that it is."""
    first, is_last = 0, False
    while not is_last:
        after = first + fitting(agents_there, first, SNAPSHOT_PAGE)
        is_last = after >= len(agents_there)
        yield _Page(revision, agents_there[first:after], is_last)
        first = after


def _fell_behind(history: History) -> WatchAgentsResponse:
    return _reset(WatchResetReason.WATCH_RESET_REASON_SLOW_CONSUMER, history.start)


def _reset(reason: WatchResetReason.ValueType, start: int) -> WatchAgentsResponse:
    return WatchAgentsResponse(revision=start, reset=WatchReset(reason=reason, compact_revision=start + 1))


def in_future(start_revision: int, revision: int) -> HoldfastError:
    """A watch cannot begin there yet."""
    return HoldfastError(
        Reason.REVISION_FUTURE,
        f"start_revision {start_revision} lies beyond {revision + 1}, the next to come; watch from 0 for a snapshot.",
        metadata={"revision": str(revision)},
    )


def compacted(start_revision: int, start: int) -> HoldfastError:
    """A watch cannot begin there any more."""
    return HoldfastError(
        Reason.REVISION_COMPACTED,
        f"the history from {start_revision} to {start} has been dropped; watch from 0 for a snapshot.",
        metadata={"compact_revision": str(start + 1)},
    )
