"""What watches are fed from: the events of each revision, as far back as the store's history goes.

Watchers hold no queue, only a position in this one list, so a slow one costs no memory. One that falls behind its
start has missed something and is told so.
"""

import asyncio
import operator
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast import names
from holdfast.filtering import Filter
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AGENT_EVENT_TYPE_ADDED,
    AGENT_EVENT_TYPE_DELETED,
    AgentEvent,
    AgentEvents,
    AgentEventType,
    WatchAgentsResponse,
)
from holdfast.turns import Turns

FILTERED_BYTES_MAX = 16 << 20
"""Most bytes of serialised responses kept for watches with filters; those asked for last stay. Many watchers of one
filter are at about the same revision, so a few responses serve them all.
"""

FILTERED_MAX = 4096
"""Most such responses kept, empty ones included."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one agent; the agents are never changed in place."""

    type: AgentEventType.ValueType
    agent: Agent
    previous: Agent | None
    replaced: Agent | None = None
    """The incarnation that a registration took the place of: a watch with a filter may have to take it back."""


@dataclass(slots=True)
class Step:
    """The events of one revision by namespace."""

    revision: int
    events: dict[str, list[Event]]
    _encoded: dict[str, bytes] = field(default_factory=dict)

    def encoded(self, parent: str) -> bytes | None:
        """The WatchAgentsResponse for a namespace, serialised once for all its watchers; None if nothing happened."""
        events = self.events.get(parent)
        if events is None:
            return None
        found = self._encoded.get(parent)
        if found is None:
            found = self._encoded[parent] = _response(self.revision, events)
        return found

    def told(self, parent: str, events: Sequence[Event]) -> bytes | None:
        """The WatchAgentsResponse with what a filter made of a namespace's events; None if that is nothing."""
        every = self.events[parent]
        if len(events) == len(every) and all(map(operator.is_, events, every)):
            return self.encoded(parent)
        return _response(self.revision, events) if events else None


def judged(events: Sequence[Event], only: Filter) -> list[Event]:
    """What events are to a watch with a filter.

    An agent that begins to match is ADDED, one that ceases to is DELETED; others that match are told as they are.
    """
    return [told for event in events if (told := _judged(event, only)) is not None]


def _judged(event: Event, only: Filter) -> Event | None:
    before = event.previous or event.replaced
    was_there = before is not None and only.matches(before)
    if event.type == AGENT_EVENT_TYPE_DELETED:
        return event if was_there else None
    if only.matches(event.agent):
        return event if was_there else Event(AGENT_EVENT_TYPE_ADDED, event.agent, None)
    return Event(AGENT_EVENT_TYPE_DELETED, event.agent, before) if was_there else None


def _response(revision: int, events: Sequence[Event]) -> bytes:
    messages = [AgentEvent(type=event.type, agent=event.agent, previous=event.previous) for event in events]
    return WatchAgentsResponse(revision=revision, events=AgentEvents(events=messages)).SerializeToString()


class FellBehindError(Exception):
    """The revision asked for is no longer in the history."""


class History:
    """Steps of consecutive revisions after `start`.

    Args:
        turns: For steps with many events.
    """

    def __init__(self, turns: Turns) -> None:
        self.start = 0
        self._steps: deque[Step] = deque()
        self._filtered: OrderedDict[tuple[int, str, str], bytes | None] = OrderedDict()
        self._filtered_bytes = 0
        self._judging = asyncio.Lock()
        self._turns = turns
        self._advanced = asyncio.Event()

    @property
    def end(self) -> int:
        """The newest revision."""
        return self.start + len(self._steps)

    def begin(self, revision: int) -> None:
        """Starts anew after a revision."""
        self.start = revision
        self._steps.clear()
        self._filtered.clear()
        self._filtered_bytes = 0

    def append(self, revision: int, events: Sequence[Event]) -> None:
        """Adds the next revision's events."""
        assert revision == self.end + 1, f"revision {revision} follows {self.end}: a hole"
        by_parent: dict[str, list[Event]] = {}
        for event in events:
            by_parent.setdefault(names.parent_of(event.agent.name), []).append(event)
        self._steps.append(Step(revision, by_parent))
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()

    def forget(self, revision: int) -> None:
        """Drops what happened up to a revision."""
        while self._steps and self._steps[0].revision <= revision:
            self._steps.popleft()
        self.start = max(self.start, revision)

    def after(self, revision: int, limit: int) -> list[Step]:
        """At most `limit` steps after a revision; none if it is the newest.

        Raises:
            FellBehindError: Steps after `revision` have been dropped.
        """
        if revision < self.start:
            raise FellBehindError
        first = revision - self.start
        return [self._steps[index] for index in range(first, min(first + limit, len(self._steps)))]

    def encoded(self, step: Step, parent: str, only: Filter) -> bytes | None:
        """The WatchAgentsResponse of a step for a namespace and a filter; None if nothing of it is wanted.

        Serialised once for all watchers that ask for the same; for filters, as long as `FILTERED_MAX` allows.
        """
        if only.is_empty or parent not in step.events:
            return step.encoded(parent)
        key = (step.revision, parent, only.text)
        if key not in self._filtered:
            return self._keep(key, step.told(parent, judged(step.events[parent], only)))
        self._filtered.move_to_end(key)
        return self._filtered[key]

    async def judge(self, step: Step, parent: str, only: Filter) -> int:
        """Makes `encoded` quick for a step of many events by judging them in slices. Returns how many without a pause.

        One step at a time: many watchers of one filter come at once, and each but the first finds the work done.
        """
        events, size = step.events.get(parent, ()), only.messages_at_once
        key = (step.revision, parent, only.text)
        if len(events) <= size or key in self._filtered:
            return min(size, len(events))
        async with self._judging:
            told: list[Event] = []
            for first in range(0, len(events), size) if key not in self._filtered else ():
                told += judged(events[first : first + size], only)
                await self._turns.wait()
            if key not in self._filtered:
                self._keep(key, step.told(parent, told))
        return size

    def _keep(self, key: tuple[int, str, str], response: bytes | None) -> bytes | None:
        self._filtered[key] = response
        self._filtered_bytes += len(response or b"")
        while len(self._filtered) > FILTERED_MAX or self._filtered_bytes > FILTERED_BYTES_MAX:
            _, dropped = self._filtered.popitem(last=False)
            self._filtered_bytes -= len(dropped or b"")
        return response

    async def advance(self, revision: int, timeout_s: float | None = None) -> bool:
        """Waits until something follows `revision`; False if nothing did within the time."""
        if self.end > revision:
            return True
        if timeout_s is None:  # asyncio.wait, or a timeout, would cost each of a thousand watchers as much as the rest
            await self._advanced.wait()
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._advanced.wait()
        except TimeoutError:
            return False
        return True
