"""Which activation goes to which agent next, found without looking at all of either.

**Which activation**: the one with the highest score,

    priority + waited_s / AGE_S_PER_POINT - POINTS_PER_LEAD * lead

where lead is how many more activations its requester has been given than the others of the namespace who wait. Scores
all rise alike with time, so their order needs no clock. Nothing starves: what comes more than
`(100 - priority) * AGE_S_PER_POINT` seconds later never goes first by its priority, and a requester who asks for much
falls behind by what it gets.

**Which agent**: the first in the order of `matching.order` that is LIVE, ENABLED, matches, has a free slot, and whose
breaker lets work through; but the one whose attempt failed last only if no other is free, and one that declined not
before its pause is over.

Activations that ask the same of agents form a group, which keeps their agents ranked; what changes about an agent
concerns only the groups that could use it.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from holdfast import names
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations.assigning import room
from holdfast.core.activations.entry import PENDING, ActivationEntry
from holdfast.core.matching import Selector, first_reason, order
from holdfast.core.state import AgentEntry
from holdfast.indexes import Population

AGE_S_PER_POINT = 1.0
"""Waiting that counts as much as one point of priority: the least urgent overtakes the most urgent after 99 s."""

POINTS_PER_LEAD = 10
"""Points of priority that one activation more than others costs a requester: urgent work comes first, and of ten
pieces of it others get their turn.
"""

IDLE_GROUPS_MAX = 256
"""Groups without activations whose ranking is kept for those to come; the longest unused go first."""

REQUESTERS_MAX = 10_000
"""Requesters remembered without waiting work; beyond, they are forgotten and count as new."""

CHANGED_MAX = 10_000
"""Agents that changed while nothing waits, before what is known of all of them is dropped."""

Rank: TypeAlias = tuple[int, int, int, str]
Key: TypeAlias = tuple[str, bytes]


class Fleet(Protocol):
    """The agents and activations at one revision."""

    def agent(self, name: str) -> AgentEntry | None:
        """The agent of this name, expired ones included."""
        ...

    def agents(self, names: Sequence[str]) -> list[AgentEntry]:
        """The agents of these names; all are there."""
        ...

    def slots_held(self, name: str) -> int:
        """How many pieces of work the agent of this name holds."""
        ...

    def population(self, parent: str) -> Population:
        """The agents of a namespace, with their indexes."""
        ...

    def activation(self, name: str) -> ActivationEntry | None:
        """The activation of this name."""
        ...


_Place: TypeAlias = tuple[int, int, str]
"""Of an activation in its queue: its urgency, which came first, and its name."""


@dataclass(slots=True, eq=False)
class _Group:
    """Activations that ask the same, by requester, and the agents that are free for them, ranked."""

    key: Key
    agent: str
    selector: Selector
    waiting: dict[str, list[_Place]] = field(default_factory=dict[str, list[_Place]])
    heads: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    listed: dict[str, int] = field(default_factory=dict[str, int])
    ranking: list[tuple[Rank, str]] = field(default_factory=list[tuple[Rank, str]])
    known: dict[str, Rank] = field(default_factory=dict[str, Rank])
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
        """By what an agent is found to concern this group: its name, a capability, or the namespace alone."""
        if self.agent:
            return self.parent, f"agent:{self.agent}"
        return self.parent, f"capability:{min(self.selector.all_of)}" if self.selector.all_of else ""

    def rank(self, name: str, rank: Rank | None) -> None:
        """Says where an agent stands now; None: it cannot take any."""
        if rank is None:
            self.known.pop(name, None)
        elif self.known.get(name) != rank:
            self.known[name] = rank
            heapq.heappush(self.ranking, (rank, name))
            if len(self.ranking) > 2 * len(self.known) + 64:
                self.ranking = [(each, agent) for agent, each in self.known.items()]
                heapq.heapify(self.ranking)


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
        self._served: Counter[tuple[str, str]] = Counter()
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._floor: Counter[str] = Counter()

    @property
    def has_work(self) -> bool:
        """Whether `pick` may find something."""
        return bool(self._ready or (self._changed and self._group_of))

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
        whose = (group.parent, requester)
        if not self._waiting[whose]:
            self._served[whose] = max(self._served[whose], self._floor[group.parent])
        self._waiting[whose] += 1
        self._enqueue(group, entry)

    def drop(self, name: str) -> None:
        """Lets go of an activation, if it is here."""
        if name not in self._group_of:
            return
        group, requester = self._group_of.pop(name)
        self._queued.discard(name)
        group.aside.pop(name, None)
        group.count -= 1
        self._leave(group.parent, requester)
        if not group.count:
            group.clear()
            self._ready.pop(group.key, None)
            self._idle[group.key] = None
            if len(self._idle) > IDLE_GROUPS_MAX:
                self._forget(next(iter(self._idle)))

    def _leave(self, parent: str, requester: str) -> None:
        whose = (parent, requester)
        self._waiting[whose] -= 1
        if not self._waiting[whose]:
            del self._waiting[whose]
            if len(self._served) > REQUESTERS_MAX + len(self._waiting):
                for other in [each for each in self._served if each not in self._waiting]:
                    del self._served[other]

    def _forget(self, key: Key) -> None:
        del self._idle[key]
        group = self._groups.pop(key)
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
        head = self._head(group) if group.known else None
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
        agent = self._best(group, entry, reserved)
        if agent is None:
            group.aside[name] = None
            return None
        whose = (group.parent, requester)
        self._floor[group.parent] = max(self._floor[group.parent], self._served[whose])
        self._served[whose] += 1
        return name, agent

    def _best(self, group: _Group, entry: ActivationEntry, reserved: Counter[str]) -> str | None:
        """The best agent for an activation, counted as given one more."""
        declined, failed_last = entry.state.declined, entry.state.failure.agent
        passed: list[str] = []
        chosen: str | None = None
        while (name := self._first(group, reserved)) is not None:
            if name not in declined and name != failed_last:
                chosen = name
                break
            passed.append(name)
            heapq.heappop(group.ranking)
        if chosen is None and failed_last in passed and failed_last not in declined:
            chosen = failed_last
        for name in passed:
            heapq.heappush(group.ranking, (group.known[name], name))
        if chosen is not None:
            group.rank(chosen, self._rank(group, chosen, reserved[chosen] + 1))
        return chosen

    def _first(self, group: _Group, reserved: Counter[str]) -> str | None:
        """The agent that stands first now; it stays on top of the ranking."""
        while group.ranking:
            rank, name = group.ranking[0]
            if group.known.get(name) == rank:
                now = self._rank(group, name, reserved[name])
                if now == rank:
                    return name
                group.rank(name, now)
                continue
            heapq.heappop(group.ranking)
        return None

    def _rank(self, group: _Group, name: str, reserved: int) -> Rank | None:
        """Where an agent stands for a group, with so many activations more than it holds; None if it can take none."""
        entry = self._fleet.agent(name)
        if entry is None or not entry.is_live or (group.agent and group.agent != name):
            return None
        free = room(entry, self._fleet.slots_held(name) + reserved)
        if first_reason(group.selector, entry, free) is not None:
            return None
        return order(entry.agent, free)

    # Groups and queues.

    def _group_for(self, entry: ActivationEntry) -> _Group:
        asked = entry.record.activation.selector
        key = (names.parent_of(entry.name), asked.SerializeToString(deterministic=True))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, asked.agent, Selector.of_agents(asked))
            self._by_hint[group.hint][key] = None
            for each in self._candidates(group, asked):
                group.rank(each.agent.name, self._rank(group, each.agent.name, 0))
        return group

    def _candidates(self, group: _Group, asked: AgentSelector) -> Sequence[AgentEntry]:
        if group.agent:
            entry = self._fleet.agent(group.agent)
            return [entry] if entry is not None else []
        population = self._fleet.population(group.parent)
        near = population.nearest(asked.all_of, asked.any_of)
        return population.live.after("") if near is None else self._fleet.agents(list(near))

    def _enqueue(self, group: _Group, entry: ActivationEntry) -> None:
        requester = entry.record.activation.requester
        queue = group.waiting.setdefault(requester, [])
        self._came += 1
        heapq.heappush(queue, (_urgency(entry), self._came, entry.name))
        self._queued.add(entry.name)
        group.entries += 1
        if queue[0][2] == entry.name:
            self._list(group, requester)
        if group.known:
            self._ready[group.key] = None
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
        return int(self._served[group.parent, requester] * POINTS_PER_LEAD * AGE_S_PER_POINT * 1000)

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
                group.rank(name, self._rank(group, name, 0))
                if group.known and group.count:
                    self._ready[key] = None
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
