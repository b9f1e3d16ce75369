"""What watches of other resources than agents are fed from: their changes by topic, as far back as the history goes.

A topic is what is watched together, under a name such as `namespaces/a/decisions`. Watchers hold no queue, only a
position, and wake for their topic alone: what happens elsewhere costs them nothing.
"""

import asyncio
import operator
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from holdfast.turns import Turns

KEPT_BYTES_MAX = 16 << 20
"""Most bytes of serialised responses kept for watches to share, and as many of messages that filters are asked about;
those asked for last stay.
"""

KEPT_MAX = 4096
"""Most of each kept, empty ones included."""


class FellBehindError(Exception):
    """The revision asked for is no longer in the history."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of one resource at one revision, as a part of the view has it; entries are never changed in place.

    Attributes:
        topic: Where it is told.
        name: The resource.
        before: Its entry before; None if it was not there.
        now: Its entry; None if it is gone.
        held_bytes: What it takes in memory that only the history holds, near enough.
    """

    topic: str
    name: str
    before: Any
    now: Any
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """What changed of a topic at a revision."""

    revision: int
    changes: Sequence[Changed]


class _Arrival(asyncio.Event):
    """The next step of a topic, and how many wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.before = 0
        """The revision before it, once it is there."""


class Topics:
    """Steps after the revision `start`, by topic, up to `end`. The history says what comes and what goes.

    Args:
        turns: For steps with many changes.

    Attributes:
        responses: Serialised responses that watches share.
        messages: Resources as they were, for filters.
        judging: Held by who makes a response of many changes, since others want the same.
        turns: As given.
    """

    def __init__(self, turns: Turns) -> None:
        self.start = 0
        self.end = 0
        self.responses = Kept[Any]()
        self.messages = Kept[Any]()
        self.judging = asyncio.Lock()
        self.turns = turns
        self._steps: dict[str, deque[Step]] = {}
        self._told: deque[tuple[int, Sequence[str]]] = deque()
        self._arrivals: dict[str, _Arrival] = {}

    def begin(self, revision: int) -> None:
        """Starts anew after a revision."""
        self.start = self.end = revision
        self.responses.clear()
        self.messages.clear()
        self._steps.clear()
        self._told.clear()

    def append(self, revision: int, changes: Sequence[Changed]) -> None:
        """Adds the next revision's changes, and wakes those who wait for them."""
        self.end = revision
        if not changes:
            return
        by_topic: dict[str, list[Changed]] = {}
        for change in changes:
            by_topic.setdefault(change.topic, []).append(change)
        for topic, told in by_topic.items():
            self._steps.setdefault(topic, deque()).append(Step(revision, told))
            arrival = self._arrivals.pop(topic, None)
            if arrival is not None:
                arrival.before = revision - 1
                arrival.set()
        self._told.append((revision, tuple(by_topic)))

    def forget(self, revision: int) -> None:
        """Drops what happened up to a revision."""
        while self._told and self._told[0][0] <= revision:
            _, topics = self._told.popleft()
            for topic in topics:
                steps = self._steps[topic]
                steps.popleft()
                if not steps:
                    del self._steps[topic]
        self.start = max(self.start, revision)

    def next(self, topic: str, revision: int) -> Step | None:
        """The topic's first step after a revision; None if nothing followed.

        Raises:
            FellBehindError: Steps after `revision` may have been dropped.
        """
        if revision < self.start:
            raise FellBehindError
        steps = self._steps.get(topic)
        if steps is None or steps[-1].revision <= revision:
            return None
        if len(steps) == 1 or steps[-2].revision <= revision:
            return steps[-1]
        return steps[bisect_right(steps, revision, key=operator.attrgetter("revision"))]

    async def advance(self, topic: str, timeout_s: float | None = None) -> int:
        """Waits for the topic's next step, or for some time; to be called when `next` has none, without a pause.

        Returns:
            The revision up to which nothing of the topic followed: go on from there.
        """
        arrival = self._arrivals.setdefault(topic, _Arrival())
        arrival.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await arrival.wait()
        except TimeoutError:
            return arrival.before if arrival.is_set() else self.end
        finally:
            arrival.waiting -= 1
            if not arrival.waiting and self._arrivals.get(topic) is arrival:
                del self._arrivals[topic]
        return arrival.before


V = TypeVar("V")


class Kept(Generic[V]):
    """Values worth making once, within `KEPT_BYTES_MAX` and `KEPT_MAX`."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._values: OrderedDict[tuple[object, ...], tuple[V, int]] = OrderedDict()

    def __contains__(self, key: tuple[object, ...]) -> bool:
        return key in self._values

    def get(self, key: tuple[object, ...]) -> V:
        """The value of a key that is there."""
        self._values.move_to_end(key)
        return self._values[key][0]

    def keep(self, key: tuple[object, ...], value: V, size_bytes: int) -> V:
        """Keeps a value of a key that is not there, and returns it."""
        self._values[key] = value, size_bytes
        self.size_bytes += size_bytes
        while len(self._values) > KEPT_MAX or self.size_bytes > KEPT_BYTES_MAX:
            _, (_, dropped_bytes) = self._values.popitem(last=False)
            self.size_bytes -= dropped_bytes
        return value

    def clear(self) -> None:
        """Drops them all."""
        self._values.clear()
        self.size_bytes = 0
