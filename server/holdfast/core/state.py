"""The state that decisions are made on, and the form a decision takes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from holdfast.registry.v1.agent_pb2 import Agent, AgentLiveness
from holdfast.storage.v1.records_pb2 import AgentRecord, LeaseRecord, RequestRecord
from holdfast.store.interface import Txn

EPOCH_BITS = 40
"""A fence is `epoch * 2^40 + revision`: a trillion revisions for each of 8 192 epochs stay below 2^53, JSON's limit."""


def fence_of(epoch: int, revision: int) -> int:
    """The fencing number of an ownership taken at a revision of an epoch."""
    return (epoch << EPOCH_BITS) + revision


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
    def fence(self) -> int:
        """Fencing number of the grant."""
        return fence_of(self.record.fence_epoch, self.record.fence_revision or self.mod_revision)


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """An agent as clients see it (never changed in place), and the revision of its own record."""

    agent: Agent
    mod_revision: int

    @property
    def is_live(self) -> bool:
        """Whether its lease stands."""
        return self.agent.liveness == AgentLiveness.AGENT_LIVENESS_LIVE

    def expired_by(self, lease: LeaseEntry) -> "AgentEntry":
        """The same agent once its lease has ended."""
        agent = Agent()
        agent.CopyFrom(self.agent)
        _expire(agent, lease)
        return AgentEntry(agent, self.mod_revision)


def agent_entry(record: AgentRecord, mod_revision: int, lease: LeaseEntry | None) -> AgentEntry:
    """What a stored record means, with the lease it names: liveness, fence, revision and etag follow from revisions.

    Takes the record over: its `agent` is filled in.
    """
    agent = record.agent
    agent.fence = fence_of(record.fence_epoch, record.fence_revision or mod_revision)
    agent.revision = mod_revision
    agent.etag = etag_of(mod_revision)
    agent.update_time.CopyFrom(record.update_time)
    agent.liveness = AgentLiveness.AGENT_LIVENESS_LIVE
    if lease is None:  # never written by this version; an agent without a lease must not live for ever
        agent.liveness = AgentLiveness.AGENT_LIVENESS_EXPIRED
    elif not lease.stands:
        _expire(agent, lease)
    return AgentEntry(agent, mod_revision)


def _expire(agent: Agent, lease: LeaseEntry) -> None:
    agent.liveness = AgentLiveness.AGENT_LIVENESS_EXPIRED
    agent.revision = max(agent.revision, lease.mod_revision)
    agent.etag = etag_of(agent.revision)
    agent.update_time.CopyFrom(lease.record.end.time)


@dataclass(frozen=True, slots=True)
class RequestEntry:
    """The answer to an earlier request; `mod_revision` is the revision that request was committed at."""

    record: RequestRecord
    mod_revision: int


class Reader(Protocol):
    """The state at one revision."""

    def agent(self, name: str) -> AgentEntry | None:
        """The agent of this name, expired ones included."""
        ...

    def lease(self, name: str) -> LeaseEntry | None:
        """The lease of this name, ended ones included."""
        ...

    def agents_of(self, lease: str) -> Collection[str]:
        """Names of the agents that name this lease."""
        ...

    def request(self, key: str) -> RequestEntry | None:
        """The answer kept under a request's key."""
        ...


Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Answer]):
    """A decision: what to write, and the answer once it is written at a revision.

    With an empty transaction the answer holds as it is.
    """

    txn: Txn
    answer: Callable[[int], Answer]
