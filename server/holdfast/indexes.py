"""Where agents are found without looking at each: by namespace in the order of names, by capability, by lease."""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from holdfast import names
from holdfast.core.state import AgentEntry
from holdfast.registry.v1.agent_pb2 import (
    ADMIN_STATE_DRAINED,
    ADMIN_STATE_DRAINING,
    ADMIN_STATE_ENABLED,
    AgentLiveness,
    AgentTier,
)

_NOBODY: frozenset[str] = frozenset()

_DRAINS = (ADMIN_STATE_DRAINING, ADMIN_STATE_DRAINED)


class Roll:
    """Agents in the order of their names. Adding one moves those behind it: some 20 µs where there are 100 000."""

    __slots__ = ("_entries", "_names")

    def __init__(self) -> None:
        self._entries: list[AgentEntry] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, entry: AgentEntry) -> None:
        """Adds an agent that is not there."""
        at = bisect_left(self._names, name)
        self._names.insert(at, name)
        self._entries.insert(at, entry)

    def remove(self, name: str) -> None:
        """Removes an agent that is there."""
        at = bisect_left(self._names, name)
        del self._names[at], self._entries[at]

    def after(self, name: str, limit: int | None = None) -> list[AgentEntry]:
        """At most `limit` agents, from the first whose name is greater."""
        first = bisect_right(self._names, name) if name else 0
        return self._entries[first : None if limit is None else first + limit]


def _name(entry: AgentEntry) -> str:
    return entry.agent.name


class Population:
    """The agents of one namespace. `live` and `expired` hold all; `held_back` counts the live that are not ENABLED."""

    __slots__ = ("by_capability", "expired", "held_back", "live")

    def __init__(self) -> None:
        self.live = Roll()
        self.expired = Roll()
        self.held_back = 0
        self.by_capability: dict[str, set[str]] = {}

    def add(self, name: str, entry: AgentEntry) -> None:
        """Counts an agent in."""
        if not entry.is_live:
            self.expired.add(name, entry)
            return
        self.live.add(name, entry)
        self.held_back += entry.agent.admin_state != ADMIN_STATE_ENABLED
        for capability in entry.agent.capabilities:
            self.by_capability.setdefault(capability.id, set()).add(name)

    def remove(self, name: str, entry: AgentEntry) -> None:
        """Counts an agent out."""
        if not entry.is_live:
            self.expired.remove(name)
            return
        self.live.remove(name)
        self.held_back -= entry.agent.admin_state != ADMIN_STATE_ENABLED
        for capability in entry.agent.capabilities:
            able = self.by_capability[capability.id]
            able.discard(name)
            if not able:
                del self.by_capability[capability.id]

    def everyone(self, after: str = "", limit: int | None = None) -> Iterator[AgentEntry]:
        """Live and expired agents as they are now, in the order of names, from the first greater than `after`.

        At least `limit` of them, if there are as many. The order is made while it is read, which may take its time.
        """
        return heapq.merge(self.live.after(after, limit), self.expired.after(after, limit), key=_name)

    def nearest(self, all_of: Collection[str], any_of: Collection[str]) -> Collection[str] | None:
        """Names of live agents, among which are all that have all of some capabilities and one of others.

        The fewest that one look at the index gives: others have to be sorted out one by one, which may take its time,
        while this may not. None if it would not leave out many.
        """
        few: Collection[str] | None = min((self._having(each) for each in all_of), key=len, default=None)
        some = [self._having(each) for each in any_of]
        some_count = sum(map(len, some))
        limit = len(self.live) // 2 if few is None else min(len(few), len(self.live) // 2)
        if some and some_count <= limit:
            return _NOBODY.union(*some)
        return few if few is not None and len(few) <= limit else None

    def _having(self, capability: str) -> Collection[str]:
        return self.by_capability.get(capability, _NOBODY)


LATE_MAX = 64
"""Names put in their places one by one; more are sorted in together, which takes a few ms where there are 100 000."""


class Names:
    """Names of resources by namespace, in order.

    What is added is put in its place once somebody looks: when 100 000 are met at start, nobody does.
    """

    def __init__(self) -> None:
        self._by_parent: dict[str, list[str]] = {}
        self._late: dict[str, list[str]] = {}

    def add(self, name: str) -> None:
        """Adds a name that is not there."""
        self._late.setdefault(names.parent_of(name), []).append(name)

    def remove(self, name: str) -> None:
        """Removes a name that is there."""
        parent = names.parent_of(name)
        there = self._of(parent)
        del there[bisect_left(there, name)]
        if not there:
            del self._by_parent[parent]

    def after(self, parent: str, name: str) -> list[str]:
        """The names of a namespace that are greater."""
        there = self._of(parent)
        return there[bisect_right(there, name) :]

    def _of(self, parent: str) -> list[str]:
        """All names of a namespace, in order."""
        late = self._late.pop(parent, None)
        if late is None:
            return self._by_parent.get(parent, [])
        there = self._by_parent.setdefault(parent, [])
        if len(late) > LATE_MAX:
            there += late
            there.sort()
        else:
            for name in late:
                insort(there, name)
        return there


@dataclass(slots=True)
class Tally:
    """How many agents there are, and their bytes."""

    count: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Company:
    """The agents of a lease that has several, by name, and their bytes."""

    entries: dict[str, AgentEntry]
    size_bytes: int


class Indexes:
    """Every index of agents, kept right by `add` and `remove`."""

    def __init__(self) -> None:
        self.live = Tally()
        self.expired = Tally()
        self.counts: Counter[tuple[AgentTier.ValueType, AgentLiveness.ValueType]] = Counter()
        self._populations: dict[str, Population] = {}
        self._by_lease: dict[str, AgentEntry | Company] = {}  # most have one agent
        self._draining: Counter[str] = Counter()

    def add(self, name: str, lease: str, entry: AgentEntry) -> None:
        """Takes an agent in; its name and its lease's are kept, not copied, which makes 200 bytes."""
        agent = entry.agent
        self.counts[agent.tier, agent.liveness] += 1
        parent = names.parent_of(name)
        population = self._populations.get(parent)
        if population is None:
            population = self._populations[parent] = Population()
        population.add(name, entry)
        if self._by_lease.setdefault(lease, entry) is not entry:
            self._attach(lease, name, entry)
        tally = self.live if entry.is_live else self.expired
        tally.count += 1
        tally.size_bytes += agent.ByteSize()
        if agent.admin_state in _DRAINS:
            self._draining[lease] += 1

    def remove(self, name: str, entry: AgentEntry) -> None:
        """Takes an agent out, as it was taken in."""
        agent = entry.agent
        self.counts[agent.tier, agent.liveness] -= 1
        parent = names.parent_of(name)
        population = self._populations[parent]
        population.remove(name, entry)
        if not population.live and not population.expired:
            del self._populations[parent]
        self._detach(agent.lease, name, entry)
        tally = self.live if entry.is_live else self.expired
        tally.count -= 1
        tally.size_bytes -= agent.ByteSize()
        if agent.admin_state in _DRAINS:
            self._draining[agent.lease] -= 1
            if not self._draining[agent.lease]:
                del self._draining[agent.lease]

    def _attach(self, lease: str, name: str, entry: AgentEntry) -> None:
        """Adds an agent to a lease that has another."""
        attached = self._by_lease[lease]
        if isinstance(attached, AgentEntry):
            attached = self._by_lease[lease] = Company({attached.agent.name: attached}, attached.agent.ByteSize())
        attached.entries[name] = entry
        attached.size_bytes += entry.agent.ByteSize()

    def _detach(self, lease: str, name: str, entry: AgentEntry) -> None:
        attached = self._by_lease[lease]
        if isinstance(attached, AgentEntry):
            del self._by_lease[lease]
            return
        del attached.entries[name]
        attached.size_bytes -= entry.agent.ByteSize()
        if len(attached.entries) == 1:
            self._by_lease[lease] = next(iter(attached.entries.values()))

    def population(self, parent: str) -> Population:
        """The agents of a namespace; an empty one for a namespace that nobody is in."""
        return self._populations.get(parent) or Population()

    def agents_of(self, lease: str) -> Collection[str]:
        """Names of the agents that name this lease."""
        attached = self._by_lease.get(lease)
        if isinstance(attached, AgentEntry):
            return (attached.agent.name,)
        return attached.entries.keys() if attached is not None else _NOBODY

    def agents_bytes(self, lease: str) -> int:
        """Bytes of the agents that name this lease."""
        attached = self._by_lease.get(lease)
        if isinstance(attached, AgentEntry):
            return attached.agent.ByteSize()
        return attached.size_bytes if attached is not None else 0

    @property
    def has_draining(self) -> bool:
        """Whether an operator drains any agent."""
        return bool(self._draining)

    def is_draining(self, lease: str) -> bool:
        """Whether an operator drains an agent of this lease."""
        return lease in self._draining
