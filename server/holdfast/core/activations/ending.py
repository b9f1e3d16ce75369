"""What happens to an activation without its owner: cancelled, requeued, out of time, its owner silent or gone."""

from collections.abc import Sequence
from enum import StrEnum, unique

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1.activation_service_pb2 import (
    Activation,
    ActivationFailure,
    RequeueActivationRequest,
)
from holdfast.core.activations import breaker
from holdfast.core.activations.creating import after, check_deadline
from holdfast.core.activations.entry import (
    ASSIGNED,
    BACKOFF,
    CANCELLED,
    DEAD_LETTERED,
    PENDING,
    TIMED_OUT,
    WORKED_ON,
    ActivationEntry,
    Reader,
    State,
    closed,
    ended,
    find,
    following,
    not_in,
    state_key,
)
from holdfast.core.activations.owning import given_back, written
from holdfast.core.activations.retrying import tried_again
from holdfast.core.state import Plan, unchanged
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_BANNED, BREAKER_STATE_OPEN
from holdfast.storage.v1.activations_pb2 import ActivationStateRecord
from holdfast.store.interface import Txn

LOST_TOGETHER_MAX = 50
"""Most activations of a lost owner that are written together; some 40 KB each at most, mostly one."""


@unique
class Timer(StrEnum):
    """What a time can end, by which an activation, or an agent's breaker, waits for it."""

    END = "end"
    """The deadline."""
    START = "start"
    """The deadline to have been started."""
    RETRY = "retry"
    """The end of a backoff, or of the pause after it was declined."""
    SILENCE = "silence"
    """The owner said nothing for too long."""
    BREAKER = "breaker"
    """An agent's breaker has been open for long enough."""


def cancel(reader: Reader, name: str, reason: str, now: Timestamp) -> Plan[Activation]:
    """Decides CancelActivation.

    Raises:
        HoldfastError: ACTIVATION_NOT_FOUND, ACTIVATION_CLOSED.
    """
    entry = find(reader, name)
    if entry.has_ended:
        raise closed(entry)
    return written(reader, entry, _over(entry, CANCELLED, "CANCELLED", reason, now))


def requeue(reader: Reader, request: RequeueActivationRequest, now: Timestamp) -> Plan[Activation]:
    """Decides RequeueActivation: as new, in the order of now. Fences go on growing, since they are revisions.

    Raises:
        HoldfastError: ACTIVATION_NOT_FOUND, ACTIVATION_CLOSED, ACTIVATION_STATE_CONFLICT, INVALID_FIELD.
    """
    entry = find(reader, request.name)
    if entry.state.state != DEAD_LETTERED:
        raise closed(entry) if entry.has_ended else not_in(entry, "DEAD_LETTERED")
    first = entry.record.activation
    span_ms = first.deadline.ToMilliseconds() - first.create_time.ToMilliseconds()
    start_ms = first.start_deadline.ToMilliseconds() - first.create_time.ToMilliseconds()
    deadline = after(now, span_ms)
    if request.HasField("deadline"):
        deadline = check_deadline("deadline", request.deadline, now)
    start_deadline = min(after(now, start_ms), deadline, key=Timestamp.ToNanoseconds)
    state = ActivationStateRecord(
        state=PENDING,
        agent=entry.state.agent,
        failure=entry.state.failure,
        handoffs=entry.state.handoffs,
        deadline=deadline,
        start_deadline=start_deadline,
        queue_time=now,
        update_time=now,
    )
    return written(reader, entry, state)


def pass_time(reader: Reader, timer: Timer, name: str, now: Timestamp) -> Plan[bool]:
    """Decides what the passing of a time does. Answers whether anything; others may have been faster."""
    if timer is Timer.BREAKER:
        return _half_open(reader, name, now)
    entry = reader.activation(name)
    if entry is None or entry.has_ended:
        return _nothing()
    match timer:
        case Timer.END:
            return _done(reader, entry, _over(entry, TIMED_OUT, "DEADLINE", "it has not ended in time", now))
        case Timer.START if not entry.state.HasField("start_time"):
            why = "it has not been started in time"
            return _done(reader, entry, _over(entry, TIMED_OUT, "START_DEADLINE", why, now))
        case Timer.RETRY if entry.state.state in (BACKOFF, PENDING):
            state = following(entry, now)
            state.state = PENDING
            state.ClearField("retry_time")
            state.ClearField("declined")
            return _done(reader, entry, state)
        case Timer.SILENCE if not entry.is_lost:
            return _silenced(reader, entry, now)
        case _:
            return _nothing()


def _silenced(reader: Reader, entry: ActivationEntry, now: Timestamp) -> Plan[bool]:
    agent = entry.state.agent
    failed = breaker.rewritten(agent, reader.work(agent), breaker.failed(now, reader.breaker_policy))
    if entry.state.state == ASSIGNED:
        why = "its agent did not begin within heartbeat_timeout"
        return _done(reader, entry, given_back(entry, "NOT_STARTED", why, now), failed)
    if entry.state.state in WORKED_ON:
        failure = ActivationFailure(
            reason="HEARTBEAT_LOST", message="its agent said nothing for longer than heartbeat_timeout"
        )
        return _done(reader, entry, tried_again(entry, failure, now), failed)
    return _nothing()


def _half_open(reader: Reader, agent: str, now: Timestamp) -> Plan[bool]:
    work = reader.work(agent)
    if work is None or work.record.breaker_state != BREAKER_STATE_OPEN:
        return _nothing()
    return Plan(breaker.rewritten(agent, work, breaker.half_opened(now, reader.breaker_policy)), lambda _: True)


def lose(reader: Reader, agent: str, held: Sequence[str], now: Timestamp) -> Plan[int]:
    """Decides what becomes of activations whose owner's incarnation ended, or whom an operator banned.

    That nobody owns them follows from the end of the lease already; here the attempt is counted, and its failure kept.
    For the breaker it is one failure, however many there were, and none if the agent was deregistered. Answers how
    many it was.
    """
    admin = reader.admin(agent)
    is_banned = admin is not None and admin.record.state == ADMIN_STATE_BANNED
    entries = [entry for name in held if (entry := reader.activation(name)) and _is_going(entry, agent, is_banned)]
    entries = entries[:LOST_TOGETHER_MAX]
    if not entries:
        return Plan(Txn(), lambda _: 0)
    compares, puts = list(unchanged(reader, agent)), list[tuple[str, bytes]]()
    for entry in entries:
        reason = "LEASE_LOST" if entry.is_lost else "AGENT_BANNED"
        message = "its agent's lease ended" if entry.is_lost else "an operator banned its agent"
        state = tried_again(entry, ActivationFailure(reason=reason, message=message), now)
        compares.append((state_key(entry), entry.mod_revision))
        puts.append((state_key(entry), state.SerializeToString()))
    if reader.agent(agent) is not None:
        failed = breaker.rewritten(agent, reader.work(agent), breaker.failed(now, reader.breaker_policy))
        compares += failed.compares
        puts += failed.puts
    return Plan(Txn(compares=tuple(compares), puts=tuple(puts)), lambda _: len(entries))


def _is_going(entry: ActivationEntry, agent: str, is_banned: bool) -> bool:
    return entry.state.agent == agent and (entry.is_lost or (is_banned and entry.fence != 0))


def _over(entry: ActivationEntry, into: State, reason: str, message: str, now: Timestamp) -> ActivationStateRecord:
    """The state at its end, with the reason as the last failure."""
    state = following(entry, now)
    state.failure.CopyFrom(
        ActivationFailure(reason=reason, message=message, agent=state.agent, attempt=state.attempt, time=now)
    )
    ended(state, into, now)
    return state


def _done(
    reader: Reader, entry: ActivationEntry, state: ActivationStateRecord, beside: Txn | None = None
) -> Plan[bool]:
    return Plan(written(reader, entry, state, beside).txn, lambda _: True)


def _nothing() -> Plan[bool]:
    return Plan(Txn(), lambda _: False)
