"""Decisions about agents: who may register, and who goes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core import leases, quotas
from holdfast.core.admin import forgotten
from holdfast.core.finding import check_etag, check_fence, find
from holdfast.core.requests import remember, replay
from holdfast.core.state import (
    AgentEntry,
    Plan,
    Reader,
    admin_state_of,
    copy_of,
    etag_of,
    fence_of,
    unchanged,
)
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.registry.v1.agent_pb2 import (
    ADMIN_STATE_BANNED,
    AGENT_LIVENESS_LIVE,
    AGENT_STATUS_IDLE,
    BREAKER_STATE_CLOSED,
    AdminState,
    Agent,
    BreakerState,
    Capability,
)
from holdfast.registry.v1.agent_registry_service_pb2 import (
    DeregisterAgentRequest,
    DeregisterAgentResponse,
    RegisterAgentRequest,
    RegisterAgentResponse,
)
from holdfast.storage.v1.records_pb2 import AgentRecord, RegistrationAnswer
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

    Admin state is the operator's: it survives from one incarnation to the next, and so does the breaker.

    Raises:
        HoldfastError: AGENT_ALREADY_EXISTS, FENCE_STALE, AGENT_BANNED, LEASE_NOT_FOUND, NOT_OWNER, QUOTA_EXCEEDED,
            REQUEST_ID_REUSED, INVALID_FIELD.
    """
    request = command.request
    key = names.request_key(request.parent, "RegisterAgent", request.request_id)
    if request.request_id and (first := replay(reader, key, request, RegistrationAnswer, RegisterAgentResponse)):
        answered, at = first
        again = _again(command, answered)
        return Plan(Txn(), lambda _: _at(again, at))
    agent, txn = incarnate(reader, command)
    response = RegisterAgentResponse(agent=agent)
    grows = leases.grow(reader, {agent.lease: leases.growth(reader, agent)})
    plan = Plan(txn, lambda revision: _at(response, revision), grows)
    return remember(plan, key, request, _answer(command, agent), command.now) if request.request_id else plan


def _answer(command: Registration, agent: Agent) -> RegistrationAnswer:
    """The answer without what the request says when it is repeated."""
    return RegistrationAnswer(
        uid=command.uid,
        lease_id="" if command.request.agent.lease else command.lease_id,
        epoch=command.epoch,
        admin_state=agent.admin_state,
        breaker_state=agent.breaker_state,
        time=command.now,
    )


def _again(command: Registration, answered: Message) -> RegisterAgentResponse:
    """The first answer, made from the same request; version 0.1.0 kept it as it was."""
    if isinstance(answered, RegisterAgentResponse):
        return answered
    assert isinstance(answered, RegistrationAnswer), answered
    first = replace(command, now=answered.time, epoch=answered.epoch, uid=answered.uid, lease_id=answered.lease_id)
    return RegisterAgentResponse(agent=present_again(first, answered.admin_state, answered.breaker_state))


def present_again(first: Registration, state: AdminState.ValueType, breaker: BreakerState.ValueType) -> Agent:
    """An agent as it was answered when it was registered, from what was asked then."""
    agent = new_agent(first)
    agent.lease = agent.lease or names.lease_name(first.request.parent, first.lease_id)
    return present(agent, first, state, breaker or BREAKER_STATE_CLOSED)


def _at(response: RegisterAgentResponse, revision: int) -> RegisterAgentResponse:
    date(response.agent, revision)
    return response


def incarnate(reader: Reader, command: Registration) -> tuple[Agent, Txn]:
    """A new incarnation as it is answered, but for what `date` fills in, and what is written for it.

    Raises:
        HoldfastError: As `register`, but for what is about the request_id.
    """
    request = command.request
    name = names.agent_name(request.parent, request.agent_id)
    _check_request(request, name)
    previous, admin, work = reader.agent(name), reader.admin(name), reader.work(name)
    _check_succession(name, previous, admin_state_of(admin), request.fence)
    agent = new_agent(command)
    _check_room(reader, agent, previous)
    attachment = leases.join(reader, agent) if request.agent.lease else leases.grant_private(agent, command)
    released = _release(reader, previous, agent.lease, command.now)
    record = AgentRecord(agent=agent, fence_epoch=command.epoch, update_time=command.now)
    txn = Txn(
        compares=(
            (names.agent_key(name), previous.mod_revision if previous else 0),
            (names.admin_key(name), admin.mod_revision if admin else 0),
            *(((names.work_key(name), work.mod_revision),) if work is not None else ()),
            *attachment.compares,
            *released.compares,
        ),
        puts=((names.agent_key(name), record.SerializeToString()), *attachment.puts, *released.puts),
    )
    breaker = work.record.breaker_state if work is not None else BREAKER_STATE_CLOSED
    return present(agent, command, admin_state_of(admin), breaker), txn


def present(agent: Agent, command: Registration, state: AdminState.ValueType, breaker: BreakerState.ValueType) -> Agent:
    """Makes of a new agent what is answered; its fence has the epoch's part."""
    agent.liveness = AGENT_LIVENESS_LIVE
    agent.admin_state = state
    agent.breaker_state = breaker
    agent.update_time.CopyFrom(command.now)
    agent.fence = fence_of(command.epoch, 0)
    return agent


def date(agent: Agent, revision: int) -> None:
    """Fills in what follows from the revision at which an incarnation begins."""
    agent.fence += revision
    agent.revision = revision
    agent.etag = etag_of(revision)


def _check_request(request: RegisterAgentRequest, name: str) -> None:
    agent = request.agent
    if agent.name and agent.name != name:
        raise invalid_field("agent.name", f"is {agent.name!r}, but parent and agent_id say {name!r}; leave it empty")
    if agent.lease and request.HasField("ttl"):
        raise invalid_field("ttl", f"the agent joins {agent.lease}, which has its own; set one of ttl and agent.lease")
    if agent.lease and names.parent_of(agent.lease) != request.parent:
        raise invalid_field("agent.lease", f"{agent.lease!r} is of another namespace than {request.parent!r}")
    check_capabilities(agent.capabilities)


def check_capabilities(capabilities: Iterable[Capability]) -> None:
    """Refuses two capabilities of one id.

    Raises:
        HoldfastError: INVALID_FIELD about `agent.capabilities[…].id`.
    """
    seen: set[str] = set()
    for index, capability in enumerate(capabilities):
        if capability.id in seen:
            raise invalid_field(f"agent.capabilities[{index}].id", f"{capability.id!r} is there twice; each id once")
        seen.add(capability.id)


def _check_succession(name: str, previous: AgentEntry | None, state: AdminState.ValueType, fence: int) -> None:
    """May another incarnation follow this one now?"""
    if state == ADMIN_STATE_BANNED:
        raise HoldfastError(Reason.AGENT_BANNED, f"an operator banned {name}; it must be unbanned first.", subject=name)
    if previous is None and fence:
        raise HoldfastError(
            Reason.FENCE_STALE,
            f"fence {fence} is of no incarnation: there is no {name} any more. Register without a fence.",
            subject=name,
        )
    if previous is None:
        return
    check_fence(previous.agent, fence)
    if previous.is_live and not fence:
        raise HoldfastError(
            Reason.AGENT_ALREADY_EXISTS,
            f"{name} is LIVE under {previous.agent.lease}; pick another id, present its fence to take over, or wait "
            "for the lease to end.",
            subject=name,
        )


def _check_room(reader: Reader, agent: Agent, previous: AgentEntry | None) -> None:
    """Refuses an incarnation, or a lease of its own, for which there is no room; its predecessor makes some."""
    quotas.check_agent(reader, agent, previous)
    before = reader.lease(previous.agent.lease) if previous is not None else None
    if not agent.lease and not (before is not None and before.stands and before.record.private):
        quotas.check_lease(reader)


def new_agent(command: Registration) -> Agent:
    """The agent as it is stored, but for a lease of its own: what follows from revisions is left out."""
    agent = copy_of(command.request.agent)
    agent.name = names.agent_name(command.request.parent, command.request.agent_id)
    agent.uid = command.uid
    agent.etag = ""
    fill_in(agent)
    agent.breaker_state = BREAKER_STATE_CLOSED
    agent.create_time.CopyFrom(command.now)
    return agent


def fill_in(agent: Agent) -> None:
    """Puts the defaults where an agent tells nothing."""
    agent.coordination_priority = agent.coordination_priority or PRIORITY_DEFAULT
    agent.max_concurrency = agent.max_concurrency or CONCURRENCY_DEFAULT
    agent.status = agent.status or AGENT_STATUS_IDLE


def _release(reader: Reader, previous: AgentEntry | None, kept_lease: str, now: Timestamp) -> Txn:
    """What goes with an incarnation: the lease granted for it alone, unless it ended or the successor keeps it."""
    if previous is None or previous.agent.lease == kept_lease:
        return Txn()
    lease = reader.lease(previous.agent.lease)
    return leases.release(lease, now) if lease is not None and lease.stands and lease.record.private else Txn()


def deregister(reader: Reader, request: DeregisterAgentRequest, now: Timestamp) -> Plan[DeregisterAgentResponse]:
    """Decides DeregisterAgent: the agent goes, and with it the lease granted for it alone. A ban stays.

    Raises:
        HoldfastError: AGENT_NOT_FOUND, FENCE_STALE, ETAG_MISMATCH.
    """
    entry = find(reader, request.name)
    check_fence(entry.agent, request.fence)
    check_etag(entry.agent, request.etag)
    released, dropped = _release(reader, entry, "", now), forgotten(reader, request.name)
    # An etag covers liveness and admin state, too.
    seen = unchanged(reader, request.name) if request.etag else ((names.agent_key(request.name), entry.mod_revision),)
    txn = Txn(
        compares=tuple(dict([*seen, *released.compares, *dropped.compares]).items()),
        puts=released.puts,
        deletes=(names.agent_key(request.name), *dropped.deletes),
    )
    return Plan(txn, lambda revision: DeregisterAgentResponse(revision=revision))
