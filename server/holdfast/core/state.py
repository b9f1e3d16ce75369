"""The state that decisions are made on, and the form a decision takes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core.activations.breaker import WorkEntry
from holdfast.registry.v1.agent_pb2 import (
    ADMIN_STATE_ENABLED,
    AGENT_LIVENESS_EXPIRED,
    AGENT_LIVENESS_LIVE,
    BREAKER_STATE_CLOSED,
    AdminState,
    Agent,
)
from holdfast.storage.v1.activations_pb2 import WorkRecord
from holdfast.storage.v1.records_pb2 import AdminRecord, AgentRecordParts, LeaseRecord, RequestRecord
from holdfast.store.interface import Txn

EPOCH_BITS = 40
"""A fence is `epoch * 2^40 + revision`: a trillion revisions for each of 8 192 epochs stay below 2^53, JSON's limit."""


def fence_of(epoch: int, revision: int) -> int:
    """The fencing number of an ownership taken at a revision of an epoch."""
    return (epoch << EPOCH_BITS) + revision


def fence_parts(fence: int) -> tuple[int, int]:
    """The epoch and the revision of a fence."""
    return fence >> EPOCH_BITS, fence & ((1 << EPOCH_BITS) - 1)


def etag_of(revision: int) -> str:
    """The version of a record last changed at a revision."""
    return f"{revision:x}"


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """A lease as stored. It stands until it has an end; `fence` is its fencing number."""

    name: str
    record: LeaseRecord
    mod_revision: int

    @property
    def stands(self) -> bool:
        """Whether it has not ended."""
        return not self.record.HasField("end")

    @property
    def previous_owner_may_keep(self) -> bool:
        """Whether the replica that kept it before may acknowledge a keepalive yet, not knowing that it has moved."""
        return self.record.previous_owner_may_keep

    @property
    def joined_through(self) -> str:
        """The replica that lets agents join it, and counts them."""
        return self.record.joined_through or self.record.owner

    @property
    def fence(self) -> int:
        """Fencing number of the grant."""
        return fence_of(self.record.fence_epoch, self.record.fence_revision or self.mod_revision)


@dataclass(frozen=True, slots=True)
class AdminEntry:
    """What an operator decided about an agent; there may be no such agent any more."""

    record: AdminRecord
    mod_revision: int


def admin_state_of(admin: AdminEntry | None) -> AdminState.ValueType:
    """The state an entry says; ENABLED without one."""
    return admin.record.state if admin is not None else ADMIN_STATE_ENABLED


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """An agent as clients see it (never changed in place), and the revision of its own record."""

    agent: Agent
    mod_revision: int

    @property
    def is_live(self) -> bool:
        """Whether its lease stands."""
        return self.agent.liveness == AGENT_LIVENESS_LIVE

    def expired_by(self, lease: LeaseEntry) -> "AgentEntry":
        """The same agent once its lease has ended."""
        agent = copy_of(self.agent)
        _expire(agent, lease)
        return AgentEntry(agent, self.mod_revision)

    def guarded_by(self, work: WorkRecord, revision: int) -> "AgentEntry":
        """The same agent once its breaker has changed, at a revision."""
        agent = copy_of(self.agent)
        _guard(agent, work, revision)
        return AgentEntry(agent, self.mod_revision)

    def ruled_by(self, admin: AdminEntry) -> "AgentEntry":
        """The same agent after an operator's decision."""
        agent = copy_of(self.agent)
        _rule(agent, admin)
        return AgentEntry(agent, self.mod_revision)


def copy_of(agent: Agent) -> Agent:
    """A copy that may be changed."""
    copied = Agent()
    copied.CopyFrom(agent)
    return copied


def last_of(agent: Agent, revision: int) -> Agent:
    """An agent as it last was, at the revision of its removal."""
    last = copy_of(agent)
    last.revision = revision
    return last


def agent_entry(
    value: bytes, mod_revision: int, lease_of: Callable[[str], LeaseEntry | None], admin: AdminEntry | None
) -> AgentEntry:
    """What a stored AgentRecord means, with the lease it names and the operator's decision.

    Liveness, admin state, fence, revision and etag follow from those: the revision is that of the latest of the three,
    or of its breaker, which `AgentEntry.guarded_by` adds.
    They are parsed as one message with what the agent said, which takes a third of the time of setting each, and two
    thirds of the memory.

    Raises:
        DecodeError: It cannot be read.
    """
    record = AgentRecordParts.FromString(value)
    agent = Agent.FromString(record.agent)
    fence = fence_of(record.fence_epoch, record.fence_revision or mod_revision)
    time = record.update_time
    agent.MergeFromString(_beginning(fence, mod_revision, time.seconds, time.nanos))
    lease = lease_of(agent.lease)
    if lease is None:  # never written by this version; an agent without a lease must not live for ever
        agent.liveness = AGENT_LIVENESS_EXPIRED
    elif not lease.stands:
        _expire(agent, lease)
    if admin is not None:
        _rule(agent, admin)
    return AgentEntry(agent, mod_revision)


@lru_cache(maxsize=64)
def _beginning(fence: int, revision: int, seconds: int, nanos: int) -> bytes:
    """What follows from the record alone, serialised: the same for all that one revision registers."""
    return Agent(
        fence=fence,
        revision=revision,
        etag=etag_of(revision),
        update_time=Timestamp(seconds=seconds, nanos=nanos),
        liveness=AGENT_LIVENESS_LIVE,
        admin_state=ADMIN_STATE_ENABLED,
        breaker_state=BREAKER_STATE_CLOSED,
    ).SerializeToString()


@lru_cache(maxsize=4096)
def lease_record(value: bytes) -> LeaseRecord:
    """A stored LeaseRecord, never changed in place: leases that say the same, as those of most agents do, share one.

    Raises:
        DecodeError: It cannot be read.
    """
    return LeaseRecord.FromString(value)


def _expire(agent: Agent, lease: LeaseEntry) -> None:
    agent.liveness = AGENT_LIVENESS_EXPIRED
    _touch(agent, lease.mod_revision, lease.record.end.time)


def _rule(agent: Agent, admin: AdminEntry) -> None:
    agent.admin_state = admin.record.state
    _touch(agent, admin.mod_revision, admin.record.time)


def _guard(agent: Agent, work: WorkRecord, revision: int) -> None:
    agent.breaker_state = work.breaker_state
    _touch(agent, revision, work.breaker_time)


def _touch(agent: Agent, revision: int, time: Timestamp) -> None:
    """Says that an agent changed at a revision, unless it has changed since."""
    if revision > agent.revision:
        agent.revision = revision
        agent.etag = etag_of(revision)
        agent.update_time.CopyFrom(time)


@dataclass(frozen=True, slots=True)
class RequestEntry:
    """The answer to an earlier request, serialised; `mod_revision` is the revision that request was committed at."""

    value: bytes
    mod_revision: int

    @property
    def record(self) -> RequestRecord:
        """The answer; parsed for each call, since most are never asked for and bytes take the least memory."""
        return RequestRecord.FromString(self.value)


class Reader(Protocol):
    """The state at one revision."""

    def agent(self, name: str) -> AgentEntry | None:
        """The agent of this name, expired ones included."""
        ...

    def admin(self, name: str) -> AdminEntry | None:
        """What an operator decided about the agent of this name, whether it is there or not."""
        ...

    def slots_held(self, name: str) -> int:
        """How many pieces of work the agent of this name holds."""
        ...

    def work(self, agent: str) -> WorkEntry | None:
        """What the agent of this name is trusted with; None before its first assignment."""
        ...

    def lease(self, name: str) -> LeaseEntry | None:
        """The lease of this name, ended ones included."""
        ...

    def agents_of(self, lease: str) -> Collection[str]:
        """Names of the agents that name this lease."""
        ...

    def agents_bytes(self, lease: str) -> int:
        """Bytes of the agents that name this lease, those on their way into it included."""
        ...

    def secret(self, name: str) -> bytes:
        """What only replicas know under this name; empty if it was not needed yet."""
        ...

    def request(self, key: str) -> RequestEntry | None:
        """The answer kept under a request's key."""
        ...

    @property
    def live_count(self) -> int:
        """How many agents are LIVE."""
        ...

    @property
    def live_bytes(self) -> int:
        """Bytes of the agents that are LIVE."""
        ...

    @property
    def leases_standing(self) -> int:
        """How many leases stand."""
        ...

    @property
    def rulings_count(self) -> int:
        """About how many agents an operator has decided something, whether they are there or not."""
        ...


def unchanged(reader: Reader, name: str) -> tuple[tuple[str, int], ...]:
    """The comparisons that hold as long as an agent is what the reader says: its record, its lease, its admin state."""
    entry, admin = reader.agent(name), reader.admin(name)
    lease = reader.lease(entry.agent.lease) if entry is not None else None
    return (
        (names.agent_key(name), entry.mod_revision if entry is not None else 0),
        (names.admin_key(name), admin.mod_revision if admin is not None else 0),
        *(((names.lease_key(lease.name), lease.mod_revision),) if lease is not None else ()),
    )


Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Answer]):
    """A decision: what to write, and the answer once it is written at a revision.

    With an empty transaction the answer holds as it is. `grows` says how many bytes more the agents of leases take.
    """

    txn: Txn
    answer: Callable[[int], Answer]
    grows: tuple[tuple[str, int], ...] = ()
