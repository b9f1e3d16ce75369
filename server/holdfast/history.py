"""What watches are fed from: the events of each revision, as far back as the store's history goes.

Watchers hold no queue, only a position in this one list, so a slow one costs no memory. One that falls behind its
start has missed something and is told so. The list is bounded in bytes: the oldest steps go when they take too much.
"""

import asyncio
import operator
from collections import OrderedDict, deque
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass

from holdfast import names
from holdfast.core.state import last_of
from holdfast.filtering import Filter, compile_filter
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AGENT_EVENT_TYPE_ADDED,
    AGENT_EVENT_TYPE_DELETED,
    AgentEvent,
    AgentEvents,
    AgentEventType,
    WatchAgentsResponse,
)
from holdfast.topics import Changed, FellBehindError, Topics
from holdfast.turns import Turns

HISTORY_BYTES_MAX = 256 << 20
"""Most bytes of memory that the history takes, as `Event.held_bytes` has it, besides some 2 KB a revision."""

KEPT_SHARE = 0.9
"""How much of that is kept when it is too much: the oldest goes in worthwhile pieces."""

AGENT_BYTES = 1 << 10
"""What an agent takes in memory besides twice what it has serialised; measured."""

RESPONSES_BYTES_MAX = 16 << 20
"""Most bytes of serialised responses kept for watches; those asked for last stay. Many watchers, with one filter or
none, are at about the same revision, so a few responses serve them all.
"""

RESPONSES_MAX = 4096
"""Most such responses kept, empty ones included."""


EVERYTHING = compile_filter("", Agent.DESCRIPTOR)


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one agent; the agents are never changed in place."""

    type: AgentEventType.ValueType
    agent: Agent
    previous: Agent | None
    replaced: Agent | None = None
    """The incarnation that a registration took the place of: a watch with a filter may have to take it back."""

    @property
    def held_bytes(self) -> int:
        """What the agents take in memory that only the history holds: those before, and one removed as it last was."""
        return sum(AGENT_BYTES + 2 * agent.ByteSize() for agent in self._held())

    def _held(self) -> Iterator[Agent]:
        before = self.previous or self.replaced
        if before is not None:
            yield before
        if self.type == AGENT_EVENT_TYPE_DELETED:
            yield self.agent


@dataclass(frozen=True, slots=True)
class Step:
    """The events of one revision by namespace, and what all that changed takes in memory."""

    revision: int
    events: dict[str, list[Event]]
    held_bytes: int


def judged(events: Sequence[Event], only: Filter) -> list[Event]:
    """What events are to a watch with a filter.

    An agent that begins to match is ADDED, one that ceases to is DELETED; others that match are told as they are. Where
    a new incarnation does not match, the one before is DELETED as it last was, and that alone is told: a batch may
    replace as many bytes as it adds.
    """
    return [told for event in events if (told := _judged(event, only)) is not None]


def _judged(event: Event, only: Filter) -> Event | None:
    if event.replaced is not None:
        return event if only.matches(event.agent) else _taken_back(event, event.replaced, only)
    before = event.previous
    was_there = before is not None and only.matches(before)
    if event.type == AGENT_EVENT_TYPE_DELETED:
        return event if was_there else None
    if only.matches(event.agent):
        return event if was_there else Event(AGENT_EVENT_TYPE_ADDED, event.agent, None)
    return Event(AGENT_EVENT_TYPE_DELETED, event.agent, before) if was_there else None


def _taken_back(event: Event, replaced: Agent, only: Filter) -> Event | None:
    if not only.matches(replaced):
        return None
    return Event(AGENT_EVENT_TYPE_DELETED, last_of(replaced, event.agent.revision), None)


def _response(revision: int, events: Sequence[Event]) -> bytes:
    messages = [AgentEvent(type=event.type, agent=event.agent, previous=event.previous) for event in events]
    return WatchAgentsResponse(revision=revision, events=AgentEvents(events=messages)).SerializeToString()


def _key(step: Step, parent: str, only: Filter) -> tuple[int, str, str]:
    return step.revision, parent, only.text


class History:
    """Steps of consecutive revisions after `start`.

    Args:
        turns: For steps with many events.

    Attributes:
        start: The revision up to which history was dropped.
        size_bytes: What the steps take in memory; at most `HISTORY_BYTES_MAX`, or what the newest takes alone.
        has_overflowed: Set when steps were dropped because they took too much; whoever compacts the store clears it.
        topics: The same revisions' changes of everything else than agents.
    """

    def __init__(self, turns: Turns) -> None:
        self.start = 0
        self.size_bytes = 0
        self.has_overflowed = asyncio.Event()
        self.topics = Topics(turns)
        self._steps: deque[Step] = deque()
        self._responses: OrderedDict[tuple[int, str, str], bytes | None] = OrderedDict()
        self._responses_bytes = 0
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
        self.size_bytes = 0
        self.topics.begin(revision)
        self._steps.clear()
        self._responses.clear()
        self._responses_bytes = 0

    def append(self, revision: int, events: Sequence[Event], changes: Sequence[Changed] = ()) -> None:
        """Adds the next revision's events and changes, and drops the oldest steps if that makes too many bytes."""
        assert revision == self.end + 1, f"revision {revision} follows {self.end}: a hole"
        by_parent: dict[str, list[Event]] = {}
        held_bytes = sum(change.held_bytes for change in changes)
        for event in events:
            by_parent.setdefault(names.parent_of(event.agent.name), []).append(event)
            held_bytes += event.held_bytes
        self._steps.append(Step(revision, by_parent, held_bytes))
        self.topics.append(revision, changes)
        self.size_bytes += held_bytes
        if self.size_bytes > HISTORY_BYTES_MAX:
            while len(self._steps) > 1 and self.size_bytes > HISTORY_BYTES_MAX * KEPT_SHARE:
                self._drop_oldest()
            self.has_overflowed.set()
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()

    def forget(self, revision: int) -> None:
        """Drops what happened up to a revision."""
        while self._steps and self._steps[0].revision <= revision:
            self._drop_oldest()
        self.start = max(self.start, revision)
        self.topics.forget(self.start)

    def _drop_oldest(self) -> None:
        step = self._steps.popleft()
        self.start = step.revision
        self.size_bytes -= step.held_bytes
        self.topics.forget(step.revision)

    def next(self, revision: int) -> Step | None:
        """The step after a revision; None if it is the newest.

        Raises:
            FellBehindError: Steps after `revision` have been dropped.
        """
        if revision < self.start:
            raise FellBehindError
        index = revision - self.start
        return self._steps[index] if index < len(self._steps) else None

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

        Serialised once for all watchers that ask for the same, as long as `RESPONSES_BYTES_MAX` allows.
        """
        events = step.events.get(parent)
        if events is None:
            return None
        key = _key(step, parent, only)
        if key in self._responses:
            self._responses.move_to_end(key)
            return self._responses[key]
        return self._keep(step, parent, only, events if only.is_empty else judged(events, only))

    async def judge(self, step: Step, parent: str, only: Filter) -> int:
        """Makes `encoded` quick for a step of many events by judging them in slices. Returns how many without a pause.

        One step at a time: many watchers of one filter come at once, and each but the first finds the work done.
        """
        events, size = step.events.get(parent, ()), only.messages_at_once
        key = _key(step, parent, only)
        if len(events) <= size or key in self._responses:
            return min(size, len(events))
        async with self._judging:
            told: list[Event] = []
            for first in range(0, len(events), size) if key not in self._responses else ():
                told += judged(events[first : first + size], only)
                await self._turns.wait()
            if key not in self._responses:
                self._keep(step, parent, only, told)
        return size

    def _keep(self, step: Step, parent: str, only: Filter, told: Sequence[Event]) -> bytes | None:
        """Makes a response and keeps it; a filter that leaves nothing out shares what is told without one."""
        every = step.events[parent]
        if told is not every and len(told) == len(every) and all(map(operator.is_, told, every)):
            response = self.encoded(step, parent, EVERYTHING)
        else:
            response = _response(step.revision, told) if told else None
        self._responses[_key(step, parent, only)] = response
        self._responses_bytes += len(response or b"")
        while len(self._responses) > RESPONSES_MAX or self._responses_bytes > RESPONSES_BYTES_MAX:
            _, dropped = self._responses.popitem(last=False)
            self._responses_bytes -= len(dropped or b"")
        return response

    def advance(self) -> Awaitable[object]:
        """Waits until something follows the newest revision.

        Nothing but an event's own waiting: a coroutine more would cost each of a thousand watchers.
        """
        return self._advanced.wait()
