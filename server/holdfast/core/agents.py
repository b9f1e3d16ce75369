"""Decisions about agents: who may register, and who goes."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core import leases
from holdfast.core.requests import remember, replay
from holdfast.core.state import AgentEntry, LeaseEntry, Plan, Reader, etag_of, fence_of
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness, AgentStatus, BreakerState
from holdfast.registry.v1.agent_registry_service_pb2 import (
    DeregisterAgentRequest,
    DeregisterAgentResponse,
    RegisterAgentRequest,
    RegisterAgentResponse,
)
from holdfast.storage.v1.records_pb2 import AgentRecord
from holdfast.store.interface import Txn

PRIORITY_DEFAULT = 50
"""`coordination_priority` of an agent that tells none: the middle of 1 to 100."""

CONCURRENCY_DEFAULT = 1
"""`max_concurrency` of an agent that tells none."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What RegisterAgent was asked, with what the core must not make up itself."""

    request: RegisterAgentRequest
    now: Timestamp
    epoch: int
    uid: str
    lease_id: str
    replica: str


def register(reader: Reader, command: Registration) -> Plan[RegisterAgentResponse]:
    """Decides RegisterAgent: a new incarnation under a lease that stands, with a greater fence than any before.

    Admin state is the operator's: it survives from one incarnation to the next.

    Raises:
        HoldfastError: AGENT_ALREADY_EXISTS, FENCE_STALE, AGENT_BANNED, LEASE_NOT_FOUND, NOT_OWNER, REQUEST_ID_REUSED,
            INVALID_FIELD.
    """
    request = command.request
    key = names.request_key(request.parent, "RegisterAgent", request.request_id)
    if request.request_id and (first := replay(reader, key, request, RegisterAgentResponse)):
        return Plan(Txn(), lambda _: _at(*first))
    name = names.agent_name(request.parent, request.agent_id)
    _check_request(request, name)
    previous = reader.agent(name)
    if previous is not None:
        _check_succession(previous, request.fence)
    agent = _new_agent(command, name, previous)
    attachment = leases.join(reader, agent) if request.agent.lease else leases.grant_private(agent, command)
    released = _release(reader, previous, agent.lease)
    record = AgentRecord(agent=agent, fence_epoch=command.epoch, update_time=command.now)
    txn = Txn(
        compares=(
            (names.agent_key(name), previous.mod_revision if previous else 0),
            *attachment.compares,
            *released.compares,
        ),
        puts=((names.agent_key(name), record.SerializeToString()), *attachment.puts),
        deletes=released.deletes,
    )
    response = RegisterAgentResponse(agent=agent)
    response.agent.fence = fence_of(command.epoch, 0)
    plan = Plan(txn, lambda revision: _at(response, revision))
    return remember(plan, key, request, response, command.now) if request.request_id else plan


def _at(response: RegisterAgentResponse, revision: int) -> RegisterAgentResponse:
    """A registration's answer with what follows from its revision; its fence holds the epoch's part so far."""
    response.agent.fence += revision
    response.agent.revision = revision
    response.agent.etag = etag_of(revision)
    return response


def _check_request(request: RegisterAgentRequest, name: str) -> None:
    agent = request.agent
    if agent.name and agent.name != name:
        raise invalid_field("agent.name", f"is {agent.name!r}, but parent and agent_id say {name!r}; leave it empty")
    if agent.lease and request.HasField("ttl"):
        raise invalid_field("ttl", f"the agent joins {agent.lease}, which has its own; set one of ttl and agent.lease")
    if agent.lease and names.parent_of(agent.lease) != request.parent:
        raise invalid_field("agent.lease", f"{agent.lease!r} is of another namespace than {request.parent!r}")
    seen: set[str] = set()
    for index, capability in enumerate(agent.capabilities):
        if capability.id in seen:
            raise invalid_field(f"agent.capabilities[{index}].id", f"{capability.id!r} is there twice; each id once")
        seen.add(capability.id)


def _check_succession(previous: AgentEntry, fence: int) -> None:
    """May another incarnation follow this one now?"""
    agent = previous.agent
    if agent.admin_state == AdminState.ADMIN_STATE_BANNED:
        raise HoldfastError(
            Reason.AGENT_BANNED, f"an operator banned {agent.name}; it must be unbanned first.", subject=agent.name
        )
    if fence and fence != agent.fence:
        raise stale_fence(agent, fence)
    if previous.is_live and not fence:
        raise HoldfastError(
            Reason.AGENT_ALREADY_EXISTS,
            f"{agent.name} is LIVE under {agent.lease}; pick another id, present its fence to take over, or wait for "
            "the "
            "lease to end.",
            subject=agent.name,
        )


def stale_fence(agent: Agent, fence: int) -> HoldfastError:
    """FENCE_STALE: the caller is not the current incarnation."""
    return HoldfastError(
        Reason.FENCE_STALE,
        f"fence {fence} is not that of the current incarnation of {agent.name}, {agent.fence}.",
        subject=agent.name,
        metadata={"current_fence": str(agent.fence)},
    )


def _new_agent(command: Registration, name: str, previous: AgentEntry | None) -> Agent:
    agent = Agent()
    agent.CopyFrom(command.request.agent)
    agent.name = name
    agent.uid = command.uid
    agent.etag = ""
    agent.coordination_priority = agent.coordination_priority or PRIORITY_DEFAULT
    agent.max_concurrency = agent.max_concurrency or CONCURRENCY_DEFAULT
    agent.status = agent.status or AgentStatus.AGENT_STATUS_IDLE
    agent.liveness = AgentLiveness.AGENT_LIVENESS_LIVE
    agent.admin_state = previous.agent.admin_state if previous else AdminState.ADMIN_STATE_ENABLED
    agent.breaker_state = BreakerState.BREAKER_STATE_CLOSED
    agent.create_time.CopyFrom(command.now)
    agent.update_time.CopyFrom(command.now)
    return agent


def _release(reader: Reader, previous: AgentEntry | None, kept_lease: str) -> Txn:
    """What goes with an incarnation: the lease granted for it alone, unless its successor keeps it."""
    if previous is None or previous.agent.lease == kept_lease:
        return Txn()
    lease = reader.lease(previous.agent.lease)
    if lease is None or not lease.record.private:
        return Txn()
    return Txn(compares=(_unchanged(lease),), deletes=(names.lease_key(lease.name),))


def _unchanged(lease: LeaseEntry) -> tuple[str, int]:
    return names.lease_key(lease.name), lease.mod_revision


def deregister(reader: Reader, request: DeregisterAgentRequest) -> Plan[DeregisterAgentResponse]:
    """Decides DeregisterAgent: the agent goes, and with it the lease granted for it alone.

    Raises:
        HoldfastError: AGENT_NOT_FOUND, FENCE_STALE, ETAG_MISMATCH, AGENT_BANNED (a ban would be forgotten with the
        record).
    """
    entry = find(reader, request.name)
    if entry.agent.admin_state == AdminState.ADMIN_STATE_BANNED:
        raise HoldfastError(
            Reason.AGENT_BANNED, f"{request.name} is banned; removing it would lift the ban.", subject=request.name
        )
    if request.fence and request.fence != entry.agent.fence:
        raise stale_fence(entry.agent, request.fence)
    if request.etag and request.etag != entry.agent.etag:
        raise HoldfastError(
            Reason.ETAG_MISMATCH,
            f"etag {request.etag!r} is not that of {request.name}, {entry.agent.etag!r}; read it again.",
            subject=request.name,
        )
    released = _release(reader, entry, "")
    txn = Txn(
        compares=(
            (names.agent_key(request.name), entry.mod_revision),
            *released.compares,
            *_liveness(reader, request, entry),
        ),
        deletes=(names.agent_key(request.name), *released.deletes),
    )
    return Plan(txn, lambda revision: DeregisterAgentResponse(revision=revision))


def _liveness(reader: Reader, request: DeregisterAgentRequest, entry: AgentEntry) -> tuple[tuple[str, int], ...]:
    """An etag covers liveness too, which follows from the lease; a private lease is compared anyway."""
    lease = reader.lease(entry.agent.lease)
    return (_unchanged(lease),) if request.etag and lease is not None and not lease.record.private else ()


def find(reader: Reader, name: str) -> AgentEntry:
    """The agent of this name, expired ones included.

    Raises:
        HoldfastError: AGENT_NOT_FOUND.
    """
    entry = reader.agent(name)
    if entry is None:
        raise HoldfastError(
            Reason.AGENT_NOT_FOUND,
            f"no agent {name!r}: it never registered, was deregistered, or expired more than an hour ago.",
            subject=name,
        )
    return entry
