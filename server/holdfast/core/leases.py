"""Decisions about leases.

An agent lives exactly as long as the lease it names stands. Ending a lease is one put on one key, and all its agents
expire at that revision, however many they are: nothing else is written, so there is no race and no limit of a
transaction to hit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core import quotas
from holdfast.core.requests import remember, replay
from holdfast.core.state import LeaseEntry, Plan, Reader, fence_of
from holdfast.core.telling import CHANGED_BYTES_MAX
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import RegisterAgentRequest
from holdfast.registry.v1.lease_service_pb2 import (
    GrantLeaseRequest,
    GrantLeaseResponse,
    Lease,
    RevokeLeaseResponse,
)
from holdfast.storage.v1.records_pb2 import (
    LEASE_END_REASON_EXPIRED,
    LEASE_END_REASON_RELEASED,
    LEASE_END_REASON_REVOKED,
    LeaseEnd,
    LeaseEndReason,
    LeaseRecord,
)
from holdfast.store.interface import Txn

AGENTS_BYTES_MAX = CHANGED_BYTES_MAX
"""Most bytes of the agents of one lease, and of all leases ended by one transaction: their end is one revision."""

DATED_BYTES = 20
"""What the revision at which an agent is written adds to it at most: the revision itself, and the etag."""

TTL_MS_DEFAULT = 30_000
"""TTL of a lease for which none is asked: three missed keepalives at the usual third of the TTL."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What GrantLease was asked, with what the core must not make up itself."""

    request: GrantLeaseRequest
    now: Timestamp
    epoch: int
    lease_id: str
    replica: str


class _Granting(Protocol):
    """What the grant of a private lease takes from a registration."""

    @property
    def request(self) -> RegisterAgentRequest: ...
    @property
    def epoch(self) -> int: ...
    @property
    def lease_id(self) -> str: ...
    @property
    def replica(self) -> str: ...


def duration_ms(duration: Duration) -> int:
    """A duration in whole milliseconds, rounded up: a lease is never shorter than asked."""
    return duration.seconds * 1000 - -duration.nanos // 1_000_000


def grant(reader: Reader, command: Grant) -> Plan[GrantLeaseResponse]:
    """Decides GrantLease.

    Raises:
        HoldfastError: REQUEST_ID_REUSED, QUOTA_EXCEEDED.
    """
    request = command.request
    key = names.request_key(request.parent, "GrantLease", request.request_id)
    if request.request_id and (first := replay(reader, key, request, GrantLeaseResponse)):
        return Plan(Txn(), lambda _: _at(*first))
    quotas.check_lease(reader)
    name = names.lease_name(request.parent, command.lease_id)
    ttl_ms = duration_ms(request.ttl) if request.HasField("ttl") else TTL_MS_DEFAULT
    record = LeaseRecord(ttl_ms=ttl_ms, fence_epoch=command.epoch, owner=command.replica)
    response = GrantLeaseResponse(lease=Lease(name=name, fence=fence_of(command.epoch, 0)))
    response.lease.ttl.FromMilliseconds(ttl_ms)
    response.lease.expire_time.FromMilliseconds(command.now.ToMilliseconds() + ttl_ms)
    txn = Txn(
        compares=((names.lease_key(name), 0),),
        puts=((names.lease_key(name), record.SerializeToString()),),
    )
    plan = Plan(txn, lambda revision: _at(response, revision))
    return remember(plan, key, request, response, command.now) if request.request_id else plan


def _at(response: GrantLeaseResponse, revision: int) -> GrantLeaseResponse:
    """A grant's answer with what follows from its revision; its fence holds the epoch's part so far."""
    response.lease.fence += revision
    return response


def grant_private(agent: Agent, command: _Granting) -> Txn:
    """The grant of a lease for one agent alone, which is made to name it."""
    request = command.request
    agent.lease = names.lease_name(request.parent, command.lease_id)
    ttl_ms = duration_ms(request.ttl) if request.HasField("ttl") else TTL_MS_DEFAULT
    record = LeaseRecord(ttl_ms=ttl_ms, fence_epoch=command.epoch, owner=command.replica, private=True)
    key = names.lease_key(agent.lease)
    return Txn(compares=((key, 0),), puts=((key, record.SerializeToString()),))


def join(reader: Reader, agent: Agent) -> Txn:
    """The condition under which an agent joins the lease it names: that it still stands when the agent is written.

    Raises:
        HoldfastError: LEASE_NOT_FOUND, NOT_OWNER for a lease granted to another agent alone.
    """
    lease = find_standing(reader, agent.lease)
    if lease.record.private and agent.name not in reader.agents_of(lease.name):
        raise HoldfastError(
            Reason.NOT_OWNER,
            f"{lease.name} was granted to another agent alone and ends with it; get one to share from GrantLease.",
            subject=lease.name,
        )
    return Txn(compares=((names.lease_key(lease.name), lease.mod_revision),))


def find_standing(reader: Reader, name: str) -> LeaseEntry:
    """The lease of this name, if it stands.

    Raises:
        HoldfastError: LEASE_NOT_FOUND.
    """
    lease = reader.lease(name)
    if lease is None or not lease.stands:
        raise lease_not_found(name, lease)
    return lease


_HOW = {
    LEASE_END_REASON_EXPIRED: "expired",
    LEASE_END_REASON_REVOKED: "was revoked",
    LEASE_END_REASON_RELEASED: "went with its agent, or its agent left it,",
}


def lease_not_found(name: str, lease: LeaseEntry | None) -> HoldfastError:
    """LEASE_NOT_FOUND about a lease that ended, or one that there is no record of."""
    if lease is None:
        why = "it ended long ago, was never granted, or is of another store"
    else:
        why = f"it {_HOW.get(lease.record.end.reason, 'ended')} at revision {lease.mod_revision}"
    return HoldfastError(
        Reason.LEASE_NOT_FOUND, f"no lease {name[:200]!r} stands: {why}. Register again.", subject=name[:200]
    )


def end(reader: Reader, name: str, reason: LeaseEndReason.ValueType, now: Timestamp) -> Plan[RevokeLeaseResponse]:
    """Decides the end of a lease, asked for or come: its record stays, so that its agents are known as expired.

    Raises:
        HoldfastError: LEASE_NOT_FOUND.
    """
    lease = find_standing(reader, name)
    return Plan(_ended([lease], reason, now), lambda revision: RevokeLeaseResponse(revision=revision))


def release(lease: LeaseEntry, now: Timestamp) -> Txn:
    """What ends a lease granted for one agent alone, which goes, or names another, at the same revision.

    Its record stays, as that of every lease that ended: who kept it a moment ago must not be told that it never was.
    """
    return _ended([lease], LEASE_END_REASON_RELEASED, now)


def expire(reader: Reader, due: Sequence[str], now: Timestamp) -> Plan[int]:
    """Decides the end of leases that have run out: of the first that still stand, as many as fit one revision.

    Answers how many that are; with 0, none of them stands any more.
    """
    ending: list[LeaseEntry] = []
    size_bytes = 0
    for name in due:
        lease = reader.lease(name)
        if lease is None or not lease.stands:
            continue
        # What joins elsewhere may not be known here: such a lease, which is no larger than any, ends alone.
        size_bytes += AGENTS_BYTES_MAX if lease.record.joined_through else reader.agents_bytes(name)
        if ending and size_bytes > AGENTS_BYTES_MAX:
            break
        ending.append(lease)
    return Plan(_ended(ending, LEASE_END_REASON_EXPIRED, now), lambda _: len(ending))


def take_over(reader: Reader, due: Sequence[str], replica: str, condition: tuple[str, int]) -> Plan[None]:
    """Decides that a replica owns these leases from now on, on a condition besides that none has changed.

    The condition names the owner's last beat. Whoever kept a lease before it came to that owner has lost its proof by
    now, as the owner has, unless the lease came after that beat.
    """
    _, beat_revision = condition

    def own(record: LeaseRecord, mod_revision: int) -> None:
        _give(record, replica)
        record.previous_owner_may_keep &= mod_revision > beat_revision

    txn = _rewritten([find_standing(reader, name) for name in due], own)
    return Plan(replace(txn, compares=(condition, *txn.compares)), lambda _: None)


def move(reader: Reader, asked: Sequence[str], replica: str) -> Plan[None]:
    """Decides that leases are kept by the replica that their holder came to: those that stand and are elsewhere."""
    found = (reader.lease(name) for name in asked)
    moving = [lease for lease in found if lease and lease.stands and lease.record.owner != replica]

    def own(record: LeaseRecord, _: int) -> None:
        _give(record, replica)
        record.previous_owner_may_keep = True

    return Plan(_rewritten(moving, own), lambda _: None)


def _give(record: LeaseRecord, replica: str) -> None:
    """Gives a lease another owner; its holder stays."""
    record.owner = replica
    record.joined_through = ""


def _ended(ending: Sequence[LeaseEntry], reason: LeaseEndReason.ValueType, now: Timestamp) -> Txn:
    """What ends these leases, unless one of them has changed."""
    end = LeaseEnd(reason=reason, time=now)
    return _rewritten(ending, lambda record, _: record.end.CopyFrom(end))


def _rewritten(some: Sequence[LeaseEntry], change: Callable[[LeaseRecord, int], None]) -> Txn:
    """What changes the records of leases, each given with its revision, unless one has changed. Their fences stay."""
    compares: list[tuple[str, int]] = []
    puts: list[tuple[str, bytes]] = []
    for lease in some:
        key = names.lease_key(lease.name)
        record = LeaseRecord()
        record.CopyFrom(lease.record)
        record.fence_revision = record.fence_revision or lease.mod_revision
        change(record, lease.mod_revision)
        compares.append((key, lease.mod_revision))
        puts.append((key, record.SerializeToString()))
    return Txn(compares=tuple(compares), puts=tuple(puts))


def growth(reader: Reader, agent: Agent) -> int:
    """How many bytes more the agents of a lease are with this one, in the place of the one of its name.

    0 for a lease that is granted with the agent: nobody else can join it.
    """
    if reader.lease(agent.lease) is None:
        return 0
    previous = reader.agent(agent.name)
    is_there = previous is not None and previous.agent.lease == agent.lease
    return agent.ByteSize() + DATED_BYTES - (previous.agent.ByteSize() if previous is not None and is_there else 0)


def grow(reader: Reader, more_bytes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """What `Plan.grows` says of leases whose agents become larger.

    Those who join at the same moment do not see each other's agents in the store, nor do they fail by them; so what is
    on its way is counted by the one replica that lets agents join.

    Raises:
        HoldfastError: QUOTA_EXCEEDED: they would become too large.
    """
    grown = tuple((lease, more) for lease, more in more_bytes.items() if more > 0)
    for lease, more in grown:
        _check_room(reader, lease, more)
    return grown


def joined_elsewhere(reader: Reader, asked: Sequence[str], replica: str) -> Sequence[LeaseEntry]:
    """Those of these leases that stand, and that another replica lets agents join. A private one is nobody else's."""
    found = (reader.lease(name) for name in asked)
    return [
        lease
        for lease in found
        if lease and lease.stands and not lease.record.private and lease.joined_through != replica
    ]


def join_through(reader: Reader, asked: Sequence[str], replica: str) -> Plan[None]:
    """Decides that this replica lets agents join leases from now on. What others are about to write fails by that.

    Their owner stays, and with it their deadlines.
    """

    def count(record: LeaseRecord, _: int) -> None:
        record.joined_through = replica if replica != record.owner else ""

    return Plan(_rewritten(joined_elsewhere(reader, asked, replica), count), lambda _: None)


def _check_room(reader: Reader, lease: str, more_bytes: int) -> None:
    size_bytes = reader.agents_bytes(lease) + more_bytes
    if size_bytes > AGENTS_BYTES_MAX:
        raise HoldfastError(
            Reason.QUOTA_EXCEEDED,
            f"the agents of {lease} would have {size_bytes} bytes, more than the {AGENTS_BYTES_MAX} that can "
            "end together; spread them over several leases.",
            subject=lease,
        )
