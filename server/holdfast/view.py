"""The state as this replica sees it: everything in memory, fed by the store's watch, one whole revision at a time."""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from holdfast import names
from holdfast.core.state import AgentEntry, LeaseEntry, RequestEntry, agent_entry
from holdfast.history import Event, History
from holdfast.registry.v1.agent_pb2 import Agent, AgentLiveness, AgentTier
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEventType
from holdfast.storage.v1.records_pb2 import AgentRecord, LeaseRecord, RequestRecord
from holdfast.store.interface import Change, KeyValue, Store


class LeaseListener(Protocol):
    """Learns of leases as the view does."""

    def lease_stands(self, lease: LeaseEntry) -> None:
        """A lease was granted, or was there when the view was built."""
        ...

    def lease_ended(self, name: str) -> None:
        """A lease ended or was dropped."""
        ...


class View:
    """Agents, leases and answers at `revision`, with the indexes reads need and the history watches need.

    `run` feeds it from the store; it is whole once `is_ready` is set.
    """

    def __init__(self, listener: LeaseListener) -> None:
        self.revision = 0
        self.history = History()
        self.is_ready = asyncio.Event()
        self._listener = listener
        self._agents: dict[str, AgentEntry] = {}
        self._leases: dict[str, LeaseEntry] = {}
        self._requests: dict[str, RequestEntry] = {}
        self._agents_by_lease: dict[str, set[str]] = defaultdict(set)
        self._live: dict[str, list[str]] = defaultdict(list)
        self._ended: dict[str, None] = {}
        self._standing = 0
        self._counts: Counter[tuple[AgentTier.ValueType, AgentLiveness.ValueType]] = Counter()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    # Reading.

    def agent(self, name: str) -> AgentEntry | None:
        """The agent of this name, expired ones included."""
        return self._agents.get(name)

    def lease(self, name: str) -> LeaseEntry | None:
        """The lease of this name, ended ones included."""
        return self._leases.get(name)

    def agents_of(self, lease: str) -> Collection[str]:
        """Names of the agents that name this lease."""
        return self._agents_by_lease.get(lease, ())

    def request(self, key: str) -> RequestEntry | None:
        """The answer kept under a request's key."""
        return self._requests.get(key)

    def live_agents(self, parent: str, after: str = "", limit: int | None = None) -> list[Agent]:
        """Live agents of a namespace in the order of their names, from the first greater than `after`."""
        live = self._live.get(parent, [])
        first = bisect_right(live, after)
        last = len(live) if limit is None else first + limit
        return [self._agents[name].agent for name in live[first:last]]

    def ended_leases(self) -> Iterator[LeaseEntry]:
        """Leases that ended and are still remembered, the first ended first."""
        return (self._leases[name] for name in list(self._ended))

    def requests(self) -> Iterator[tuple[str, RequestEntry]]:
        """Answers that are kept, with their keys, the oldest first."""
        return iter(list(self._requests.items()))

    @property
    def leases_standing(self) -> int:
        """How many leases stand."""
        return self._standing

    def agents_count(self, tier: AgentTier.ValueType, liveness: AgentLiveness.ValueType) -> int:
        """How many agents there are of a tier and liveness, in all namespaces."""
        return self._counts[tier, liveness]

    @property
    def live_count(self) -> int:
        """How many agents are LIVE."""
        return sum(self._counts[tier, AgentLiveness.AGENT_LIVENESS_LIVE] for tier in AgentTier.values())

    @property
    def expired_count(self) -> int:
        """How many agents are EXPIRED and still remembered."""
        return sum(self._counts[tier, AgentLiveness.AGENT_LIVENESS_EXPIRED] for tier in AgentTier.values())

    async def reached(self, revision: int) -> None:
        """Returns once the view is at `revision` or later."""
        while self.revision < revision:
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, arrival))
            await arrival

    # Following the store.

    async def run(self, store: Store) -> None:
        """Builds the oldest state there is, replays what happened since, and follows the store until cancelled."""
        start = store.compact_revision  # range reads 0 as "now"; before the first revision there was nothing
        at, records = await store.range("", start) if start else (0, [])
        self._build(at, records)
        target = await store.current_revision()
        if self.revision >= target:
            self.is_ready.set()
        async for changes in store.watch(self.revision + 1):
            self.apply(changes)
            if self.revision >= target:
                self.is_ready.set()

    def _build(self, revision: int, records: Sequence[KeyValue]) -> None:
        """The state at one revision; leases first, since agents' liveness follows from them."""
        self.revision = revision
        self.history.begin(revision)
        for prefix in (names.LEASE_PREFIX, names.AGENT_PREFIX, names.REQUEST_PREFIX):
            for record in records:
                if record.key.startswith(prefix):
                    self._put(record, [])

    def apply(self, changes: Sequence[Change]) -> None:
        """Takes whole revisions in, in order without holes, and lets those who wait for them go on."""
        for change in changes:
            assert change.revision == self.revision + 1, f"revision {change.revision} follows {self.revision}: a hole"
            events: list[Event] = []
            # Leases come before the agents that name them: a registration writes both.
            for put in sorted(change.puts, key=lambda put: not put.key.startswith(names.LEASE_PREFIX)):
                self._put(put, events)
            for key in sorted(change.deletes):  # "agent:" sorts before "lease:"
                self._delete(key, events, change.revision)
            self.revision = change.revision
            self.history.append(change.revision, events)
        self._wake()

    def _wake(self) -> None:
        for _ in range(len(self._waiting)):
            revision, arrival = self._waiting.popleft()
            if arrival.done():
                continue
            if revision <= self.revision:
                arrival.set_result(None)
            else:
                self._waiting.append((revision, arrival))

    def _put(self, put: KeyValue, events: list[Event]) -> None:
        prefix, _, name = put.key.partition(":")
        match prefix + ":":
            case names.AGENT_PREFIX:
                self._put_agent(name, put, events)
            case names.LEASE_PREFIX:
                self._put_lease(LeaseEntry(name, LeaseRecord.FromString(put.value), put.mod_revision), events)
            case names.REQUEST_PREFIX:
                self._requests[put.key] = RequestEntry(RequestRecord.FromString(put.value), put.mod_revision)
            case _:
                raise ValueError(
                    f"the store holds {put.key!r}, which this version does not know; use the one that wrote it"
                )

    def _put_agent(self, name: str, put: KeyValue, events: list[Event]) -> None:
        record = AgentRecord.FromString(put.value)
        entry = agent_entry(record, put.mod_revision, self._leases.get(record.agent.lease))
        previous = self._replace(name, entry)
        if previous is not None and previous.agent.uid == entry.agent.uid:
            events.append(Event(AgentEventType.AGENT_EVENT_TYPE_MODIFIED, entry.agent, previous.agent))
        else:
            events.append(Event(AgentEventType.AGENT_EVENT_TYPE_ADDED, entry.agent, None))

    def _put_lease(self, lease: LeaseEntry, events: list[Event]) -> None:
        self._forget_lease(lease.name)
        self._leases[lease.name] = lease
        if lease.stands:
            self._standing += 1
            self._listener.lease_stands(lease)
            return
        self._ended[lease.name] = None
        self._listener.lease_ended(lease.name)
        for name in sorted(self.agents_of(lease.name)):
            previous = self._agents[name]
            expired = previous.expired_by(lease)
            self._replace(name, expired)
            events.append(Event(AgentEventType.AGENT_EVENT_TYPE_EXPIRED, expired.agent, previous.agent))

    def _delete(self, key: str, events: list[Event], revision: int) -> None:
        prefix, _, name = key.partition(":")
        if prefix + ":" == names.AGENT_PREFIX:
            previous = self._replace(name, None)
            if previous is not None:
                events.append(
                    Event(AgentEventType.AGENT_EVENT_TYPE_DELETED, _last(previous.agent, revision), previous.agent)
                )
        elif prefix + ":" == names.LEASE_PREFIX:
            self._forget_lease(name)
            self._listener.lease_ended(name)
        else:
            self._requests.pop(key, None)

    def _forget_lease(self, name: str) -> None:
        known = self._leases.pop(name, None)
        if known is not None and known.stands:
            self._standing -= 1
        self._ended.pop(name, None)

    def _replace(self, name: str, entry: AgentEntry | None) -> AgentEntry | None:
        """Puts an agent in the place of the one of its name, and keeps the indexes right. Returns the one before."""
        previous = self._agents.pop(name, None)
        if previous is not None:
            self._index(name, previous, -1)
        if entry is not None:
            self._agents[name] = entry
            self._index(name, entry, +1)
        return previous

    def _index(self, name: str, entry: AgentEntry, step: int) -> None:
        agent = entry.agent
        self._counts[agent.tier, agent.liveness] += step
        live = self._live[names.parent_of(name)]
        attached = self._agents_by_lease[agent.lease]
        if step > 0:
            attached.add(name)
            if entry.is_live:
                insort(live, name)
            return
        attached.discard(name)
        if not attached:
            del self._agents_by_lease[agent.lease]
        if entry.is_live:
            del live[bisect_left(live, name)]


def _last(agent: Agent, revision: int) -> Agent:
    """An agent as it last was, at the revision of its removal."""
    last = Agent()
    last.CopyFrom(agent)
    last.revision = revision
    return last
