"""What watches are fed from: the events of each revision, as far back as the store's history goes.

Watchers hold no queue, only a position in this one list, so a slow one costs no memory. One that falls behind its
start has missed something and is told so.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast import names
from holdfast.filtering import Filter
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEvent, AgentEvents, AgentEventType, WatchAgentsResponse

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

    def filtered(self, parent: str, only: Filter) -> bytes | None:
        """The WatchAgentsResponse with the events that a filter matches before or after; None if it matches none."""
        events = self.events.get(parent)
        if events is None:
            return None
        wanted = [event for event in events if _is_wanted(event, only)]
        if len(wanted) == len(events):
            return self.encoded(parent)
        return _response(self.revision, wanted) if wanted else None


def _is_wanted(event: Event, only: Filter) -> bool:
    return only.matches(event.agent) or (event.previous is not None and only.matches(event.previous))


def _response(revision: int, events: Sequence[Event]) -> bytes:
    messages = [AgentEvent(type=event.type, agent=event.agent, previous=event.previous) for event in events]
    return WatchAgentsResponse(revision=revision, events=AgentEvents(events=messages)).SerializeToString()


class FellBehindError(Exception):
    """The revision asked for is no longer in the history."""


class History:
    """Steps of consecutive revisions after `start`."""

    def __init__(self) -> None:
        self.start = 0
        self._steps: deque[Step] = deque()
        self._filtered: OrderedDict[tuple[int, str, str], bytes | None] = OrderedDict()
        self._filtered_bytes = 0
        self._advanced: asyncio.Future[None] | None = None

    @property
    def end(self) -> int:
        """The newest revision."""
        return self.start + len(self._steps)

    def begin(self, revision: int) -> None:
        """Starts anew after a revision."""
        self.start = revision
        self._steps.clear()

    def append(self, revision: int, events: Sequence[Event]) -> None:
        """Adds the next revision's events."""
        assert revision == self.end + 1, f"revision {revision} follows {self.end}: a hole"
        by_parent: dict[str, list[Event]] = {}
        for event in events:
            by_parent.setdefault(names.parent_of(event.agent.name), []).append(event)
        self._steps.append(Step(revision, by_parent))
        if self._advanced is not None:
            self._advanced.set_result(None)
            self._advanced = None

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
        if key in self._filtered:
            self._filtered.move_to_end(key)
            return self._filtered[key]
        found = self._filtered[key] = step.filtered(parent, only)
        self._filtered_bytes += len(found or b"")
        while len(self._filtered) > FILTERED_MAX or self._filtered_bytes > FILTERED_BYTES_MAX:
            _, dropped = self._filtered.popitem(last=False)
            self._filtered_bytes -= len(dropped or b"")
        return found

    async def advance(self, revision: int, timeout_s: float | None = None) -> bool:
        """Waits until something follows `revision`; False if nothing did within the time."""
        if self.end > revision:
            return True
        if self._advanced is None:
            self._advanced = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._advanced], timeout=timeout_s)
        return bool(done)
