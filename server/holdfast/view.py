"""The state as this replica sees it: everything in memory, fed by the store's watch, one whole revision at a time."""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from holdfast import names
from holdfast.activations import Activations
from holdfast.answers import Answers
from holdfast.breakers import Breakers
from holdfast.core.activations.breaker import POLICY_DEFAULT, Policy, WorkEntry
from holdfast.core.activations.entry import ActivationEntry
from holdfast.core.decisions.entry import DecisionEntry
from holdfast.core.handoffs.entry import HandoffEntry
from holdfast.core.holds.entry import HoldEntry
from holdfast.core.state import AdminEntry, AgentEntry, LeaseEntry, RequestEntry, agent_entry, last_of, lease_record
from holdfast.decisions import Decisions
from holdfast.handoffs import Handoffs
from holdfast.history import Event, History
from holdfast.holds import Holds
from holdfast.indexes import Indexes, Population
from holdfast.lease_records import LeaseRecords
from holdfast.parts import Kind, Part
from holdfast.registry.v1.agent_pb2 import (
    ADMIN_STATE_DRAINING,
    Agent,
    AgentLiveness,
    AgentTier,
)
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AGENT_EVENT_TYPE_ADDED,
    AGENT_EVENT_TYPE_DELETED,
    AGENT_EVENT_TYPE_EXPIRED,
    AGENT_EVENT_TYPE_MODIFIED,
)
from holdfast.storage.v1.records_pb2 import LEASE_END_REASON_RELEASED, AdminRecord
from holdfast.store.interface import Change, KeyValue, Store, StoreFileError
from holdfast.timers import TimeKeeper
from holdfast.topics import Changed
from holdfast.turns import Turns

APPLIED_AT_ONCE = 500
"""Records taken in without a pause, and at least one revision: some 30 ms where each is the end of a lease."""


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

    Attributes:
        revision: Of the state.
        breaker_policy: When breakers open, as this service was told.
        turns: For whatever looks at many agents.
        history: What watches are fed from.
        is_ready: Set once the view is whole.
        leases: All there are, ended ones that are still remembered included.
        to_drain: Names of the agents that are DRAINING, the first asked for first.
        drain_asked: Set when a name is added to `to_drain`; whoever drains clears it.
        replicas: Revision of the last beat by replica, in a store that several share.
        answers: To requests with a request_id.
        decisions: All there are.
        holds: Of locks and elections, all there are.
        breakers: In front of all agents that were ever given work.
        activations: All there are, and who holds them.
        handoffs: All there are.
        growing: Bytes that are on their way into the agents of leases; kept right by whoever writes them.
    """

    def __init__(self, listener: LeaseListener, deadlines: TimeKeeper, breaker_policy: Policy = POLICY_DEFAULT) -> None:
        self.breaker_policy = breaker_policy
        self.revision = 0
        self.turns = Turns()
        self.history = History(self.turns)
        self.is_ready = asyncio.Event()
        self.to_drain: dict[str, None] = {}
        self.drain_asked = asyncio.Event()
        self._listener = listener
        self._agents: dict[str, AgentEntry] = {}
        self.leases = LeaseRecords()
        self.answers = Answers()
        self.decisions = Decisions(deadlines)
        self.holds = Holds(self.lease)
        self._admin: dict[str, AdminEntry] = {}
        self._secrets: dict[str, KeyValue] = {}
        self._indexes = Indexes()
        self.replicas: dict[str, int] = {}
        self.growing = Counter[str]()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._events: list[Event] = []
        self.breakers = Breakers(self._agents.__contains__, deadlines, self._break_agent)
        self.activations = Activations(self, deadlines)
        self.handoffs = Handoffs(self.activations, deadlines)
        self._parts: tuple[Part, ...] = (
            self.decisions,
            self.holds,
            self.breakers,
            self.activations,
            self.handoffs,
        )
        self._kinds = self._own_kinds()
        for part in self._parts:
            self._kinds |= part.kinds()

    def _own_kinds(self) -> dict[str, Kind]:
        """What is done with each kind of record that is not a part's."""
        return {
            names.LEASE_PREFIX: Kind(self._put_lease_record, self._delete_lease, self.leases.mod_revision),
            names.ADMIN_PREFIX: Kind(self._put_admin, self._delete_admin, _revision_in(self._admin)),
            names.AGENT_PREFIX: Kind(self._put_agent, self._delete_agent, _revision_in(self._agents)),
            names.REQUEST_PREFIX: Kind(self._put_answer, self._delete_answer, self._answer_revision),
            names.REPLICA_PREFIX: Kind(self._put_replica, self._delete_replica, self._replica_revision),
            names.SECRET_PREFIX: Kind(self._put_secret, self._delete_secret, _revision_in(self._secrets)),
        }

    # Reading.

    def agent(self, name: str) -> AgentEntry | None:
        """The agent of this name, expired ones included."""
        return self._agents.get(name)

    def lease(self, name: str) -> LeaseEntry | None:
        """The lease of this name, ended ones included."""
        return self.leases.get(name)

    def agents_of(self, lease: str) -> Collection[str]:
        """Names of the agents that name this lease."""
        return self._indexes.agents_of(lease)

    def agents_bytes(self, lease: str) -> int:
        """Bytes of the agents that name this lease, those on their way into it included."""
        return self._indexes.agents_bytes(lease) + self.growing[lease]

    def mod_revision(self, key: str) -> int:
        """The revision that last wrote a record that decisions rest on; 0 without one."""
        prefix, _, name = key.partition(":")
        kind = self._kinds.get(prefix + ":")
        return kind.mod_revision(name) if kind is not None else 0

    def decision(self, name: str) -> DecisionEntry | None:
        """The decision of this name."""
        return self.decisions.get(name)

    @property
    def unsettled_count(self) -> int:
        """How many decisions have not ended."""
        return self.decisions.unsettled_count

    def hold(self, name: str) -> HoldEntry | None:
        """The hold of the lock or election of this name, or one lost whose delay is not over."""
        return self.holds.get(name)

    def holds_of(self, lease: str) -> int:
        """How many holds are bound to a lease."""
        return self.holds.of_lease(lease)

    @property
    def holds_count(self) -> int:
        """How many holds there are, lost ones included."""
        return len(self.holds)

    @property
    def holds_bytes(self) -> int:
        """What they take."""
        return self.holds.size_bytes

    def admin(self, name: str) -> AdminEntry | None:
        """What an operator decided about the agent of this name, whether it is there or not."""
        return self._admin.get(name)

    def secret(self, name: str) -> bytes:
        """What only replicas know under this name; empty if it was not needed yet."""
        known = self._secrets.get(name)
        return known.value if known is not None else b""

    def activation(self, name: str) -> ActivationEntry | None:
        """The activation of this name."""
        return self.activations.get(name)

    def handoff(self, name: str) -> HandoffEntry | None:
        """The handoff of this name."""
        return self.handoffs.get(name)

    def work(self, agent: str) -> WorkEntry | None:
        """What the agent of this name is trusted with; None before its first assignment."""
        return self.breakers.get(agent)

    def unfinished(self, parent: str) -> tuple[int, int]:
        """How many activations of a namespace have not ended, and the bytes of their records."""
        return self.activations.unfinished(parent)

    @property
    def all_unfinished(self) -> tuple[int, int]:
        """As many of all namespaces, and their bytes."""
        return self.activations.all_unfinished

    def slots_held(self, name: str) -> int:
        """How many pieces of work the agent of this name holds."""
        return self.activations.slots_held(name)

    def is_draining(self, lease: str) -> bool:
        """Whether an operator drains, or has drained, an agent of this lease; O(1)."""
        return self._indexes.is_draining(lease)

    @property
    def has_draining_leases(self) -> bool:
        """Whether `is_draining` is true of any lease."""
        return self._indexes.has_draining

    def request(self, key: str) -> RequestEntry | None:
        """The answer kept under a request's key."""
        return self.answers.get(key)

    def population(self, parent: str) -> Population:
        """The agents of a namespace, with their indexes, as they are until the next revision."""
        return self._indexes.population(parent)

    def agents(self, names: Collection[str]) -> list[AgentEntry]:
        """The agents of these names, in their order; all are there. Some 10 ms for 100 000."""
        return list(map(self._agents.__getitem__, names))

    def entries(
        self, parent: str, after: str = "", limit: int | None = None, *, with_expired: bool = False
    ) -> list[AgentEntry]:
        """Agents of a namespace in the order of their names, from the first greater than `after`; LIVE ones, or all."""
        population = self.population(parent)
        if not with_expired:
            return population.live.after(after, limit)
        return list(itertools.islice(population.everyone(after, limit), limit))

    def live_agents(self, parent: str, after: str = "", limit: int | None = None) -> list[Agent]:
        """Live agents of a namespace in the order of their names, from the first greater than `after`."""
        return [entry.agent for entry in self.entries(parent, after, limit)]

    @property
    def leases_standing(self) -> int:
        """How many leases stand."""
        return self.leases.standing_count

    def agents_count(self, tier: AgentTier.ValueType, liveness: AgentLiveness.ValueType) -> int:
        """How many agents there are of a tier and liveness, in all namespaces."""
        return self._indexes.counts[tier, liveness]

    @property
    def live_count(self) -> int:
        """How many agents are LIVE."""
        return self._indexes.live.count

    @property
    def live_bytes(self) -> int:
        """Bytes of the agents that are LIVE."""
        return self._indexes.live.size_bytes

    @property
    def expired_count(self) -> int:
        """How many agents are EXPIRED and still remembered."""
        return self._indexes.expired.count

    @property
    def expired_bytes(self) -> int:
        """Bytes of the agents that are EXPIRED and still remembered."""
        return self._indexes.expired.size_bytes

    @property
    def rulings_count(self) -> int:
        """About how many agents an operator has decided something, whether they are there or not."""
        return len(self._admin)

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
            for piece in _pieces(changes):
                self.apply(piece)
                if self.revision >= target:
                    self.is_ready.set()
                await asyncio.sleep(0)

    def _build(self, revision: int, records: Sequence[KeyValue]) -> None:
        """The state at one revision, in the order it was written, so that what is forgotten by age is met by age."""
        self.revision = revision
        self.history.begin(revision)
        by_age = sorted(records, key=lambda record: (_rank(record.key), record.mod_revision))
        for record in by_age:
            self._put(record)
        self._events = []
        self._taken_changes()  # nobody watches yet

    def apply(self, changes: Sequence[Change]) -> None:
        """Takes whole revisions in, in order without holes, and lets those who wait for them go on."""
        for change in changes:
            assert change.revision == self.revision + 1, f"revision {change.revision} follows {self.revision}: a hole"
            # Leases come before the agents that name them (a registration writes both), and go after them.
            for put in sorted(change.puts, key=lambda put: _rank(put.key)):
                self._put(put)
            for key in sorted(change.deletes, key=lambda key: (-_rank(key), key)):
                self._delete(key, change.revision)
            self.revision = change.revision
            events, self._events = self._events, []
            self.history.append(change.revision, events, self._taken_changes())
        self._wake()

    def _taken_changes(self) -> list[Changed]:
        return [change for part in self._parts for change in part.take_changes()]

    def _wake(self) -> None:
        for _ in range(len(self._waiting)):
            revision, arrival = self._waiting.popleft()
            if arrival.done():
                continue
            if revision <= self.revision:
                arrival.set_result(None)
            else:
                self._waiting.append((revision, arrival))

    def _put(self, put: KeyValue) -> None:
        """Takes one record in.

        Raises:
            StoreFileError: It cannot be read.
        """
        prefix, _, name = put.key.partition(":")
        kind = self._kinds.get(prefix + ":")
        if kind is None:
            raise StoreFileError(
                f"the store holds {put.key!r}, which this version does not know. Use the one that wrote it."
            )
        try:
            kind.put(name, put)
        except DecodeError as error:
            raise StoreFileError(
                f"the record {put.key!r} of revision {put.mod_revision} cannot be read: {error}. "
                "Another program wrote to the store, or it is damaged: restore it from a backup."
            ) from error

    def _delete(self, key: str, revision: int) -> None:
        prefix, _, name = key.partition(":")
        self._kinds[prefix + ":"].delete(name, revision)

    def _put_agent(self, name: str, put: KeyValue) -> None:
        entry = agent_entry(put.value, put.mod_revision, self.leases.get, self._admin.get(name))
        work = self.work(name)
        if work is not None and work.has_turned:
            entry = entry.guarded_by(work.record, work.breaker_revision)
        previous = self._replace(name, entry)
        if previous is not None and previous.agent.uid == entry.agent.uid:
            self._events.append(Event(AGENT_EVENT_TYPE_MODIFIED, entry.agent, previous.agent))
        else:
            replaced = previous.agent if previous is not None else None
            self._events.append(Event(AGENT_EVENT_TYPE_ADDED, entry.agent, None, replaced))

    def _delete_agent(self, name: str, revision: int) -> None:
        previous = self._replace(name, None)
        if previous is not None:
            self._events.append(Event(AGENT_EVENT_TYPE_DELETED, last_of(previous.agent, revision), previous.agent))

    def _break_agent(self, name: str, work: WorkEntry) -> None:
        """The breaker in front of an agent has changed its state."""
        previous = self._agents.get(name)
        if previous is not None:
            guarded = previous.guarded_by(work.record, work.breaker_revision)
            self._replace(name, guarded)
            self._events.append(Event(AGENT_EVENT_TYPE_MODIFIED, guarded.agent, previous.agent))

    def _put_admin(self, name: str, put: KeyValue) -> None:
        admin = AdminEntry(AdminRecord.FromString(put.value), put.mod_revision)
        self._admin[name] = admin
        if admin.record.state == ADMIN_STATE_DRAINING:
            self.to_drain[name] = None
            self.drain_asked.set()
        else:
            self.to_drain.pop(name, None)
        previous = self._agents.get(name)
        if previous is not None:
            ruled = previous.ruled_by(admin)
            self._replace(name, ruled)
            self._events.append(Event(AGENT_EVENT_TYPE_MODIFIED, ruled.agent, previous.agent))

    def _delete_admin(self, name: str, _revision: int) -> None:
        """It is dropped with its agent only, or after it."""
        self._admin.pop(name, None)
        self.to_drain.pop(name, None)

    def _put_answer(self, name: str, put: KeyValue) -> None:
        self.answers.put(names.REQUEST_PREFIX + name, RequestEntry(put.value, put.mod_revision))

    def _delete_answer(self, name: str, _revision: int) -> None:
        self.answers.remove(names.REQUEST_PREFIX + name)

    def _answer_revision(self, name: str) -> int:
        entry = self.answers.get(names.REQUEST_PREFIX + name)
        return entry.mod_revision if entry is not None else 0

    def _put_replica(self, name: str, put: KeyValue) -> None:
        self.replicas[name] = put.mod_revision

    def _replica_revision(self, name: str) -> int:
        return self.replicas.get(name, 0)

    def _delete_replica(self, name: str, _revision: int) -> None:
        self.replicas.pop(name, None)

    def _put_secret(self, name: str, put: KeyValue) -> None:
        self._secrets[name] = put

    def _delete_secret(self, name: str, _revision: int) -> None:
        self._secrets.pop(name, None)

    def _put_lease_record(self, name: str, put: KeyValue) -> None:
        self._put_lease(LeaseEntry(name, lease_record(put.value), put.mod_revision))

    def _put_lease(self, lease: LeaseEntry) -> None:
        self.leases.put(lease)
        if lease.stands:
            self._listener.lease_stands(lease)
            return
        self._listener.lease_ended(lease.name)
        for part in self._parts:
            part.lease_ended(lease.name, lease.mod_revision)
        if lease.record.end.reason == LEASE_END_REASON_RELEASED:  # its agent goes, or is another, at this revision
            return
        for name in sorted(self.agents_of(lease.name)):
            previous = self._agents[name]
            expired = previous.expired_by(lease)
            self._replace(name, expired)
            self._events.append(Event(AGENT_EVENT_TYPE_EXPIRED, expired.agent, previous.agent))

    def _delete_lease(self, name: str, revision: int) -> None:
        self.leases.remove(name)
        self._listener.lease_ended(name)
        for part in self._parts:
            part.lease_ended(name, revision)

    def _replace(self, name: str, entry: AgentEntry | None) -> AgentEntry | None:
        """Puts an agent in the place of the one of its name, and keeps the indexes right. Returns the one before."""
        previous = self._agents.pop(name, None)
        if previous is not None:
            self._indexes.remove(name, previous)
        if entry is not None:
            self._agents[name] = entry
            lease = self.leases.get(entry.agent.lease)
            self._indexes.add(name, lease.name if lease is not None else entry.agent.lease, entry)
        for part in self._parts:
            part.agent_changed(name, entry, previous)
        return previous


def _pieces(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Changes in their order, as many together as make no long pause."""
    piece: list[Change] = []
    size = 0
    for change in changes:
        more = len(change.puts) + len(change.deletes)
        if piece and size + more > APPLIED_AT_ONCE:
            yield piece
            piece, size = [], 0
        piece.append(change)
        size += more
    if piece:
        yield piece


_RANKS = {names.LEASE_PREFIX: 0, names.ADMIN_PREFIX: 1, names.AGENT_PREFIX: 2, names.REQUEST_PREFIX: 3}
"""Kinds of records in the order in which they are met: each after those that its meaning follows from."""


def _rank(key: str) -> int:
    """The rank of a key's kind; those of parts, and others, are met last."""
    return _RANKS.get(key.partition(":")[0] + ":", len(_RANKS))


def _revision_in(entries: Mapping[str, AgentEntry | AdminEntry | KeyValue]) -> Callable[[str], int]:
    """Looks the revision of a record up among the entries of its kind; 0 without one."""

    def mod_revision(name: str) -> int:
        entry = entries.get(name)
        return entry.mod_revision if entry is not None else 0

    return mod_revision
