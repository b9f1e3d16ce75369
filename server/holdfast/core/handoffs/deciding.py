"""Offers, and what becomes of them: the owner stays until the revision in which another is it."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.handoff_service_pb2 import (
    HANDOFF_STATE_ACCEPTED,
    HANDOFF_STATE_CANCELLED,
    HANDOFF_STATE_EXPIRED,
    HANDOFF_STATE_OFFERED,
    HANDOFF_STATE_REJECTED,
    HANDOFF_STATE_WITHDRAWN,
    Handoff,
    HandoffState,
    OfferHandoffRequest,
    OfferHandoffResponse,
)
from holdfast.core.activations import breaker
from holdfast.core.activations.assigning import room
from holdfast.core.activations.creating import after
from holdfast.core.activations.entry import HANDING_OFF, RUNNING, ActivationEntry, following, not_in, state_key
from holdfast.core.activations.entry import check_fence as check_activation_fence
from holdfast.core.activations.owning import Saying, owned
from holdfast.core.finding import check_fence
from holdfast.core.finding import find as find_agent
from holdfast.core.handoffs.entry import HandoffEntry, Reader, closed, find, shown
from holdfast.core.requests import remember, replay
from holdfast.core.state import AgentEntry, Plan, unchanged
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.registry.v1.agent_pb2 import (
    ADMIN_STATE_BANNED,
    ADMIN_STATE_ENABLED,
    BREAKER_STATE_OPEN,
    AdminState,
)
from holdfast.storage.v1.activations_pb2 import ActivationStateRecord
from holdfast.storage.v1.handoffs_pb2 import HandoffRecord
from holdfast.store.interface import Txn

OFFERED_S = 60
"""How long an offer stands, unless told: the recovery time of coordination in the original framework."""

OFFERED_S_MAX = 86_400
"""Longest: work that runs must not hang between two agents for days."""

SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Offer:
    """What OfferHandoff was asked, with what the core must not make up itself. `is_over`: of the activation."""

    request: OfferHandoffRequest
    now: Timestamp
    handoff_id: str
    is_over: bool


def offer(reader: Reader, command: Offer) -> Plan[OfferHandoffResponse]:
    """Decides OfferHandoff: the activation is HANDING_OFF, and its owner goes on.

    Raises:
        HoldfastError: INVALID_FIELD, REQUEST_ID_REUSED, ACTIVATION_NOT_FOUND, ACTIVATION_CLOSED, FENCE_STALE,
            NOT_OWNER, ACTIVATION_STATE_CONFLICT, AGENT_NOT_FOUND, AGENT_BANNED, ADMIN_STATE_CONFLICT, BREAKER_OPEN,
            SLOTS_EXHAUSTED.
    """
    request, now = command.request, command.now
    key = names.request_key(request.parent, "OfferHandoff", request.request_id)
    if request.request_id and (first := replay(reader, key, request, Handoff)):
        offered, revision = first
        return Plan(Txn(), lambda _: OfferHandoffResponse(handoff=_dated(offered, revision)))
    asked = request.handoff
    _check_names(request)
    deadline = _deadline(asked, now)
    activation = owned(reader, Saying(asked.activation, request.fence, now, command.is_over))
    if activation.state.agent != asked.from_agent:
        raise _not_owner(activation.name, activation.state.agent, asked.from_agent)
    if activation.state.state != RUNNING:
        raise not_in(activation, "RUNNING, and not offered to another already")
    _check_taker(reader, find_agent(reader, asked.to_agent))
    handoff = Handoff()
    handoff.CopyFrom(asked)
    handoff.name = names.handoff_name(request.parent, command.handoff_id)
    handoff.state = HANDOFF_STATE_OFFERED
    handoff.deadline.CopyFrom(deadline)
    handoff.from_fence = activation.fence
    handoff.correlation_id = activation.record.activation.correlation_id
    handoff.chain_position = activation.state.handoffs
    handoff.create_time.CopyFrom(now)
    state = following(activation, now)
    state.state, state.handoff = HANDING_OFF, handoff.name
    entry = HandoffEntry(HandoffRecord(handoff=handoff), 0, None)
    txn = _written(reader, entry, activation, state, unchanged(reader, asked.to_agent))
    plan = Plan(txn, lambda revision: OfferHandoffResponse(handoff=_dated(handoff, revision)))
    return remember(plan, key, request, handoff, now) if request.request_id else plan


def _dated(handoff: Handoff, revision: int) -> Handoff:
    handoff.revision = revision
    return handoff


def _check_names(request: OfferHandoffRequest) -> None:
    asked = request.handoff
    for field in ("activation", "from_agent", "to_agent"):
        name = getattr(asked, field)
        if names.parent_of(name) != request.parent:
            raise invalid_field(f"handoff.{field}", f"{name!r} is of another namespace than {request.parent}")
    if asked.to_agent == asked.from_agent:
        raise invalid_field("handoff.to_agent", f"{asked.to_agent!r} has it already; offer it to another")
    if asked.context_sha256 and len(asked.context_sha256) != SHA256_BYTES:
        raise invalid_field(
            "handoff.context_sha256", f"has {len(asked.context_sha256)} bytes; a SHA-256 has {SHA256_BYTES}"
        )


def _deadline(asked: Handoff, now: Timestamp) -> Timestamp:
    if not asked.HasField("deadline"):
        return after(now, OFFERED_S * 1000)
    ahead_s = (asked.deadline.ToMilliseconds() - now.ToMilliseconds()) / 1000
    if ahead_s <= 0:
        raise invalid_field(
            "handoff.deadline", f"{asked.deadline.ToJsonString()} is past: it is {now.ToJsonString()} here"
        )
    if ahead_s > OFFERED_S_MAX:
        raise invalid_field("handoff.deadline", f"is {ahead_s:.0f} s ahead, more than the {OFFERED_S_MAX} s allowed")
    return asked.deadline


def _check_taker(reader: Reader, taker: AgentEntry) -> None:
    """Refuses an agent that may not take work now; what is asked of it otherwise is for the owner to know."""
    agent = taker.agent
    if not taker.is_live:
        raise HoldfastError(
            Reason.AGENT_NOT_FOUND,
            f"{agent.name} is EXPIRED, and takes no work; it must register again.",
            subject=agent.name,
        )
    if agent.admin_state == ADMIN_STATE_BANNED:
        raise HoldfastError(
            Reason.AGENT_BANNED, f"an operator banned {agent.name}; it takes no work.", subject=agent.name
        )
    if agent.admin_state != ADMIN_STATE_ENABLED:
        told = AdminState.Name(agent.admin_state)
        raise HoldfastError(
            Reason.ADMIN_STATE_CONFLICT,
            f"{agent.name} is {told.removeprefix('ADMIN_STATE_')}, and takes no new work.",
            subject=agent.name,
            metadata={"admin_state": told},
        )
    if agent.breaker_state == BREAKER_STATE_OPEN:
        raise HoldfastError(
            Reason.BREAKER_OPEN,
            f"{agent.name} failed again and again, and gets no work for {breaker.OPEN_S} s.",
            subject=agent.name,
            retry_after_s=breaker.OPEN_S,
        )
    held = reader.slots_held(agent.name)
    if not room(taker, held):
        raise HoldfastError(
            Reason.SLOTS_EXHAUSTED,
            f"{agent.name} holds {held} of the {agent.max_concurrency} activations it takes; wait, or offer it to "
            "another.",
            subject=agent.name,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answers an offer, and when.

    `is_over`: its deadline, or that of its activation, has passed, by a clock that does not jump.
    """

    name: str
    agent: str
    agent_fence: int
    now: Timestamp
    is_over: bool


def accept(reader: Reader, answer: Answer, epoch: int) -> Plan[Handoff]:
    """Decides AcceptHandoff: in this revision the activation has another owner, under a greater fence.

    Raises:
        HoldfastError: HANDOFF_NOT_FOUND, HANDOFF_CLOSED, NOT_OWNER, AGENT_NOT_FOUND, FENCE_STALE, AGENT_BANNED,
            ADMIN_STATE_CONFLICT, BREAKER_OPEN, SLOTS_EXHAUSTED.
    """
    entry, activation = _answered(reader, answer)
    agent, now = answer.agent, answer.now
    taker = find_agent(reader, agent)
    _check_taker(reader, taker)
    state = following(activation, now)
    state.state, state.handoff = RUNNING, ""
    state.agent, state.agent_uid = agent, taker.agent.uid
    state.fence_revision, state.fence_epoch = 0, epoch
    state.handoffs += 1
    touched = breaker.rewritten(agent, reader.work(agent), breaker.touched)
    done = _over(entry, HANDOFF_STATE_ACCEPTED, "", now)
    done.record.fence_epoch = epoch
    txn = _written(reader, done, activation, state, (*unchanged(reader, agent), *touched.compares), touched.puts)
    return Plan(txn, lambda revision: shown(HandoffEntry(done.record, revision, None)))


def reject(reader: Reader, answer: Answer, reason: str) -> Plan[Handoff]:
    """Decides RejectHandoff: the owner stays, under the same fence.

    Raises:
        HoldfastError: HANDOFF_NOT_FOUND, HANDOFF_CLOSED, NOT_OWNER, AGENT_NOT_FOUND, FENCE_STALE.
    """
    entry, activation = _answered(reader, answer)
    return _kept(reader, entry, activation, HANDOFF_STATE_REJECTED, reason, answer.now)


def withdraw(reader: Reader, name: str, fence: int, reason: str, now: Timestamp, *, is_over: bool) -> Plan[Handoff]:
    """Decides WithdrawHandoff, by the owner. `is_over` as of an `Answer`.

    Raises:
        HoldfastError: HANDOFF_NOT_FOUND, HANDOFF_CLOSED, FENCE_STALE.
    """
    entry, activation = _offered(reader, name, is_over=is_over)
    check_activation_fence(activation, fence)
    return _kept(reader, entry, activation, HANDOFF_STATE_WITHDRAWN, reason, now)


def expire(reader: Reader, name: str, now: Timestamp, *, is_over: bool) -> Plan[bool]:
    """Decides what the passing of an offer's deadline does. Answers whether anything; others may have been faster."""
    entry = reader.handoff(name)
    if not is_over or entry is None or entry.current != HANDOFF_STATE_OFFERED or entry.activation is None:
        return Plan(Txn(), lambda _: False)
    txn = _kept(reader, entry, entry.activation, HANDOFF_STATE_EXPIRED, "nobody answered in time", now).txn
    return Plan(txn, lambda _: True)


def cancel_void(reader: Reader, name: str, now: Timestamp) -> Plan[bool]:
    """Writes down that an offer is CANCELLED, which follows from its activation already."""
    entry = reader.handoff(name)
    if entry is None or not entry.is_void:
        return Plan(Txn(), lambda _: False)
    done = _over(entry, HANDOFF_STATE_CANCELLED, "the activation ended, or its owner lost it", now)
    key = names.handoff_key(name)
    txn = Txn(compares=((key, entry.mod_revision),), puts=((key, done.record.SerializeToString()),))
    return Plan(txn, lambda _: True)


def _offered(reader: Reader, name: str, *, is_over: bool) -> tuple[HandoffEntry, ActivationEntry]:
    """An offer that stands, and its activation."""
    entry = find(reader, name)
    if entry.current != HANDOFF_STATE_OFFERED or entry.activation is None:
        raise closed(entry)
    if is_over:
        deadline = entry.record.handoff.deadline.ToJsonString()
        raise closed(entry, f"ended by its deadline, {deadline}, or by that of {entry.activation.name}")
    return entry, entry.activation


def _answered(reader: Reader, answer: Answer) -> tuple[HandoffEntry, ActivationEntry]:
    """An offer that stands, answered by the agent it was made to."""
    entry, activation = _offered(reader, answer.name, is_over=answer.is_over)
    to_agent = entry.record.handoff.to_agent
    if answer.agent != to_agent:
        raise _not_owner(answer.name, to_agent, answer.agent)
    check_fence(find_agent(reader, answer.agent).agent, answer.agent_fence)
    return entry, activation


def _not_owner(name: str, owner: str, who: str) -> HoldfastError:
    return HoldfastError(Reason.NOT_OWNER, f"{name} is {owner}'s, and not for {who} to decide on.", subject=name)


def _kept(
    reader: Reader,
    entry: HandoffEntry,
    activation: ActivationEntry,
    into: HandoffState.ValueType,
    reason: str,
    now: Timestamp,
) -> Plan[Handoff]:
    """The end of an offer after which the owner is who it was."""
    state = following(activation, now)
    state.state, state.handoff = RUNNING, ""
    done = _over(entry, into, reason, now)
    txn = _written(reader, done, activation, state)
    return Plan(txn, lambda revision: shown(HandoffEntry(done.record, revision, None)))


def _over(entry: HandoffEntry, into: HandoffState.ValueType, reason: str, now: Timestamp) -> HandoffEntry:
    record = HandoffRecord()
    record.CopyFrom(entry.record)
    record.handoff.state, record.handoff.end_reason = into, reason
    record.handoff.end_time.CopyFrom(now)
    return HandoffEntry(record, entry.mod_revision, entry.activation)


def _written(
    reader: Reader,
    entry: HandoffEntry,
    activation: ActivationEntry,
    state: ActivationStateRecord,
    compares: tuple[tuple[str, int], ...] = (),
    puts: tuple[tuple[str, bytes], ...] = (),
) -> Txn:
    """What writes a handoff and its activation together, as long as the owner is what the reader says."""
    key = names.handoff_key(entry.name)
    owner = unchanged(reader, activation.state.agent)
    own = ((key, entry.mod_revision), (state_key(activation), activation.mod_revision))
    return Txn(
        compares=tuple(dict((*own, *owner, *compares)).items()),
        puts=((key, entry.record.SerializeToString()), (state_key(activation), state.SerializeToString()), *puts),
    )
