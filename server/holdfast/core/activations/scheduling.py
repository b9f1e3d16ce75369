"""Which activation goes to which agent next, found without looking at all of either.

The one with the highest score goes first,

    priority + waited_s / AGE_S_PER_POINT - POINTS_PER_LEAD * lead

where lead is how many more activations its requester has been given than the others of the namespace who wait. Scores
all rise alike with time, so their order needs no clock. Nothing starves: what comes more than
`(100 - priority) * AGE_S_PER_POINT` seconds later never goes first by its priority, and a requester who asks for much
falls behind by what it gets.

**Which agent** is said by `ranking`.

Activations that ask the same of agents form a group, which has a ranking of its agents; what changes about an agent
concerns only the groups that could use it.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from holdfast import names
from holdfast.core.activations.entry import PENDING, ActivationEntry
from holdfast.core.activations.ranking import Agents, Ranking
from holdfast.core.activations.sharing import Shares

AGE_S_PER_POINT = 1.0
"""Waiting that counts as much as one point of priority: the least urgent overtakes the most urgent after 99 s."""

POINTS_PER_LEAD = 10
"""Points of priority that one activation more than others costs a requester: urgent work comes first, and of ten
pieces of it others get their turn.
"""

IDLE_GROUPS_MAX = 256
"""Groups without activations whose ranking is kept for those to come; the longest unused go first."""

CHANGED_MAX = 10_000
"""Agents that changed while nothing waits, before what is known of all of them is dropped."""

Key: TypeAlias = tuple[str, bytes]


class Fleet(Agents, Protocol):
    """The agents and activations at one revision."""

    def activation(self, name: str) -> ActivationEntry | None:
        """The activation of this name."""
        ...


_Place: TypeAlias = tuple[int, int, str]
"""Of an activation in its queue: its urgency, which came first, and its name."""


@dataclass(slots=True, eq=False)
class _Group:
    """Activations that ask the same, by requester, and the agents that are free for them."""

    key: Key
    ranking: Ranking
    waiting: dict[str, list[_Place]] = field(default_factory=dict[str, list[_Place]])
    heads: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    listed: dict[str, int] = field(default_factory=dict[str, int])
    aside: dict[str, None] = field(default_factory=dict[str, None])
    count: int = 0
    entries: int = 0

    def clear(self) -> None:
        """Empties the queues."""
        self.waiting.clear()
        self.heads.clear()
        self.listed.clear()
        self.entries = 0

    @property
    def parent(self) -> str:
        return self.key[0]

    @property
    def hint(self) -> tuple[str, str]:
        """By what an agent is found to concern this group."""
        return self.parent, self.ranking.hint


class Scheduler:
    """Proposes assignments; whoever makes them says afterwards which it tried, by `settle`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._groups: dict[Key, _Group] = {}
        self._idle: dict[Key, None] = {}
        self._by_hint: defaultdict[tuple[str, str], dict[Key, None]] = defaultdict(dict)
        self._group_of: dict[str, tuple[_Group, str]] = {}
        self._queued: set[str] = set()
        self._came = 0
        self._changed: dict[str, None] = {}
        self._ready: dict[Key, None] = {}
        self._unranked: dict[Key, None] = {}
        self._shares = Shares()

    @property
    def has_work(self) -> bool:
        """Whether `pick` may find something, at once or after `rank`."""
        return bool(self._ready or self._unranked or (self._changed and self._group_of))

    # What changes.

    def put(self, entry: ActivationEntry) -> None:
        """Takes an activation in that is PENDING, as it is now; lets go of any other."""
        self.drop(entry.name)
        if entry.state.state != PENDING:
            return
        group = self._group_for(entry)
        requester = entry.record.activation.requester
        self._group_of[entry.name] = group, requester
        self._idle.pop(group.key, None)
        group.count += 1
        self._shares.join(group.parent, requester)
        self._enqueue(group, entry)

    def drop(self, name: str) -> None:
        """Lets go of an activation, if it is here."""
        if name not in self._group_of:
            return
        group, requester = self._group_of.pop(name)
        self._queued.discard(name)
        group.aside.pop(name, None)
        group.count -= 1
        self._shares.leave(group.parent, requester)
        if not group.count:
            group.clear()
            self._ready.pop(group.key, None)
            self._idle[group.key] = None
            if len(self._idle) > IDLE_GROUPS_MAX:
                self._forget(next(iter(self._idle)))

    def _forget(self, key: Key) -> None:
        del self._idle[key]
        group = self._groups.pop(key)
        self._unranked.pop(key, None)
        hinted = self._by_hint[group.hint]
        del hinted[key]
        if not hinted:
            del self._by_hint[group.hint]

    def agent_changed(self, name: str) -> None:
        """Something about an agent changed, or how much work it holds."""
        if not self._groups:
            return
        self._changed[name] = None
        if len(self._changed) > CHANGED_MAX and not self._group_of:
            self._changed.clear()
            for key in list(self._idle):
                self._forget(key)

    # What is proposed.

    def rank(self, count_max: int) -> bool:
        """Looks at agents for groups that are new, at most `count_max`: nobody gets anything of a group before.

        Returns:
            Whether there are more to look at.
        """
        while self._unranked and count_max > 0:
            key = next(iter(self._unranked))
            group = self._groups[key]
            count_max -= group.ranking.look_on(count_max)
            if group.ranking.is_whole:
                del self._unranked[key]
                self._note_ready(group)
        return bool(self._unranked)

    def pick(self, count_max: int) -> Mapping[str, Sequence[str]]:
        """Activations by the agent that is to get them, the most urgent first, at most `count_max`.

        They leave the queue until `settle` is told of them.
        """
        self._renew()
        picked = defaultdict[str, list[str]](list)
        reserved = Counter[str]()
        turns: list[tuple[int, Key]] = []
        for key in list(self._ready):
            self._give_turn(key, turns)
        while turns and reserved.total() < count_max:
            _, key = heapq.heappop(turns)
            found = self._take(self._groups[key], reserved)
            if found is not None:
                name, agent = found
                picked[agent].append(name)
                reserved[agent] += 1
            self._give_turn(key, turns)
        return picked

    def _give_turn(self, key: Key, turns: list[tuple[int, Key]]) -> None:
        """Puts a group in its place among others; one that has no work, or nobody for it, is not ready any more."""
        group = self._groups[key]
        head = self._head(group) if group.ranking else None
        if head is None:
            self._ready.pop(key, None)
        else:
            heapq.heappush(turns, (head[0], key))

    def settle(self, tried: Mapping[str, Iterable[str]]) -> None:
        """Says that assignments which `pick` proposed were made, or not: those that are still PENDING wait again."""
        for agent, activations in tried.items():
            self.agent_changed(agent)
            for name in activations:
                self._wait_again(name)

    def _wait_again(self, name: str) -> None:
        entry = self._fleet.activation(name)
        if entry is not None and name in self._group_of:
            self._enqueue(self._group_of[name][0], entry)

    def _take(self, group: _Group, reserved: Counter[str]) -> tuple[str, str] | None:
        """The next activation of a group, and its agent; None if there is none for it."""
        head = self._head(group)
        if head is None:
            return None
        _, requester = head
        _, _, name = heapq.heappop(group.waiting[requester])
        group.entries -= 1
        self._queued.discard(name)
        entry = self._fleet.activation(name)
        assert entry is not None, f"{name} waits, and is not there"
        agent = group.ranking.best(entry, reserved)
        if agent is None:
            group.aside[name] = None
            return None
        self._shares.serve(group.parent, requester)
        return name, agent

    # Groups and queues.

    def _group_for(self, entry: ActivationEntry) -> _Group:
        asked = entry.record.activation.selector
        key = (names.parent_of(entry.name), asked.SerializeToString(deterministic=True))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, Ranking(self._fleet, key[0], asked))
            self._by_hint[group.hint][key] = None
            self._unranked[key] = None
        return group

    def _note_ready(self, group: _Group) -> None:
        if group.count and group.ranking and group.ranking.is_whole:
            self._ready[group.key] = None

    def _enqueue(self, group: _Group, entry: ActivationEntry) -> None:
        requester = entry.record.activation.requester
        queue = group.waiting.setdefault(requester, [])
        self._came += 1
        heapq.heappush(queue, (_urgency(entry), self._came, entry.name))
        self._queued.add(entry.name)
        group.entries += 1
        if queue[0][2] == entry.name:
            self._list(group, requester)
        self._note_ready(group)
        if group.entries > 2 * group.count + 64:
            self._tidy(group)

    def _tidy(self, group: _Group) -> None:
        """Makes the queues anew, without what left them before it was its turn."""
        there = [name for queue in group.waiting.values() for _, _, name in sorted(queue) if name in self._queued]
        group.clear()
        for name in dict.fromkeys(there):
            self._wait_again(name)

    def _list(self, group: _Group, requester: str) -> None:
        """Puts a requester in its place among those of a group, by the first in its queue."""
        key = group.waiting[requester][0][0] + self._lag(group, requester)
        if group.listed.get(requester) != key:
            group.listed[requester] = key
            heapq.heappush(group.heads, (key, requester))

    def _lag(self, group: _Group, requester: str) -> int:
        return int(self._shares.lead(group.parent, requester) * POINTS_PER_LEAD * AGE_S_PER_POINT * 1000)

    def _head(self, group: _Group) -> tuple[int, str] | None:
        """The requester whose turn it is in a group; None if nobody waits."""
        while group.heads:
            key, requester = group.heads[0]
            if group.listed.get(requester) != key:
                heapq.heappop(group.heads)
                continue
            queue = group.waiting[requester]
            while queue and queue[0][2] not in self._queued:
                heapq.heappop(queue)
                group.entries -= 1
            if not queue:
                heapq.heappop(group.heads)
                del group.waiting[requester], group.listed[requester]
                continue
            if queue[0][0] + self._lag(group, requester) == key:
                return key, requester
            heapq.heappop(group.heads)
            del group.listed[requester]
            self._list(group, requester)
        return None

    def _renew(self) -> None:
        """Takes into the rankings what has changed about agents, and those that found no agent into the queues."""
        changed, self._changed = self._changed, {}
        for name in changed:
            for key in self._concerned(name):
                group = self._groups[key]
                group.ranking.look_at(name)
                self._note_ready(group)
                aside, group.aside = group.aside, {}
                for each in aside:
                    self._wait_again(each)

    def _concerned(self, name: str) -> list[Key]:
        """The groups that could use an agent; all of its namespace if it is gone, since they may still know it."""
        parent, entry = names.parent_of(name), self._fleet.agent(name)
        if entry is None:
            return [key for key in self._groups if key[0] == parent]
        hints = [f"agent:{name}", "", *(f"capability:{each.id}" for each in entry.agent.capabilities)]
        return [key for hint in hints for key in self._by_hint.get((parent, hint), ())]


def _urgency(entry: ActivationEntry) -> int:
    """Its place in the order of scores, in milliseconds: when it came, less what its priority is worth."""
    worth_ms = entry.record.activation.priority * AGE_S_PER_POINT * 1000
    return entry.state.queue_time.ToMilliseconds() - int(worth_ms)
