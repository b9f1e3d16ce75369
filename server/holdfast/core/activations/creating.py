"""Creating an activation: everything that is left to the service is filled in here, once and for all."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.activation_service_pb2 import (
    Activation,
    CreateActivationRequest,
    CreateActivationResponse,
    RetryPolicy,
)
from holdfast.core.activations.entry import PENDING, ActivationEntry, Reader, shown
from holdfast.core.requests import remember, replay
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.registry.v1.agent_registry_service_pb2 import AgentExclusionReason
from holdfast.storage.v1.activations_pb2 import ActivationAnswer, ActivationRecord, ActivationStateRecord
from holdfast.store.interface import Txn

PRIORITY_DEFAULT = 50
"""The middle of 1 to 100, as an agent's `coordination_priority`."""

DEADLINE_S = 3600
"""How long an activation may take in all, unless told."""

DEADLINE_S_MAX = 30 * 86_400
"""Longest: who asks for more has most likely mixed up seconds and milliseconds."""

HEARTBEAT_TIMEOUT_S = 30
"""How long an owner may say nothing, unless told: that of the original framework (DESIGN 2.2)."""

ATTEMPTS_MAX = 3
INITIAL_BACKOFF_S = 1
MAX_BACKOFF_S = 60
MULTIPLIER = 2.0
MULTIPLIER_MAX = 10.0
"""How it is tried again, unless told: some seconds in all, enough for an agent that restarts."""

UNFINISHED_MAX = 100_000
"""Most activations of a namespace that have not ended."""

UNFINISHED_BYTES_MAX = 512 << 20
"""Most bytes of them (512 MiB), payloads included: 2 000 of the largest."""

ALL_UNFINISHED_MAX = 500_000
"""Most activations of all namespaces that have not ended; some 2 KB each besides payloads."""

ALL_UNFINISHED_BYTES_MAX = 2 << 30
"""Most bytes of them (2 GiB)."""


@dataclass(frozen=True, slots=True)
class Creation:
    """What CreateActivation was asked, with what the core must not make up itself.

    `correlation_id` is the call's, for an activation without one. `exclusions` counts, by their first reason, the
    registered agents that could never do it; None if one could.
    """

    request: CreateActivationRequest
    now: Timestamp
    activation_id: str
    correlation_id: str
    exclusions: Mapping[AgentExclusionReason.ValueType, int] | None = None


def create(reader: Reader, command: Creation) -> Plan[CreateActivationResponse]:
    """Decides CreateActivation.

    Raises:
        HoldfastError: INVALID_FIELD, REQUEST_ID_REUSED, NO_ELIGIBLE_AGENT, SLOTS_EXHAUSTED, QUOTA_EXCEEDED.
    """
    request = command.request
    key = names.request_key(request.parent, "CreateActivation", request.request_id)
    if request.request_id and (first := replay(reader, key, request, ActivationAnswer)):
        answered, revision = first
        again = replace(
            command,
            now=answered.time,
            activation_id=answered.activation_id,
            correlation_id=answered.correlation_id,
        )
        return Plan(Txn(), lambda _: _answer(*_created(again), revision))
    record, state = _created(command)
    name = record.activation.name
    _check_eligible(command)
    _check_room(reader, request.parent, record.ByteSize())
    txn = Txn(
        compares=((names.activation_key(name), 0),),
        puts=(
            (names.activation_key(name), record.SerializeToString()),
            (names.activation_state_key(name), state.SerializeToString()),
        ),
    )
    plan = Plan(txn, lambda revision: _answer(record, state, revision))
    answer = ActivationAnswer(
        activation_id=command.activation_id, time=command.now, correlation_id=command.correlation_id
    )
    return remember(plan, key, request, answer, command.now) if request.request_id else plan


def _answer(record: ActivationRecord, state: ActivationStateRecord, revision: int) -> CreateActivationResponse:
    return CreateActivationResponse(activation=shown(ActivationEntry(record, state, revision, None)))


def _check_eligible(command: Creation) -> None:
    if command.exclusions is None:
        return
    counts = Counter(
        {
            AgentExclusionReason.Name(reason).removeprefix("AGENT_EXCLUSION_REASON_"): count
            for reason, count in command.exclusions.items()
            if count
        }
    )
    agent = command.request.activation.selector.agent
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    told = told or ("it is not registered" if agent else "nobody is registered")
    raise HoldfastError(
        Reason.NO_ELIGIBLE_AGENT,
        f"{agent or 'no agent of ' + command.request.parent} {'cannot' if agent else 'could ever'} do it: {told}. "
        "Widen activation.selector, or register an agent that matches.",
        subject=command.request.parent,
        metadata={reason: str(count) for reason, count in counts.items()},
    )


def _check_room(reader: Reader, parent: str, more_bytes: int) -> None:
    count, size_bytes = reader.unfinished(parent)
    if count >= UNFINISHED_MAX or size_bytes + more_bytes > UNFINISHED_BYTES_MAX:
        raise HoldfastError(
            Reason.SLOTS_EXHAUSTED,
            f"{count} activations of {parent} with {size_bytes} bytes have not ended; it may have {UNFINISHED_MAX} "
            f"with {UNFINISHED_BYTES_MAX} bytes. Wait for some, or cancel them.",
            subject=parent,
            metadata={"limit": str(UNFINISHED_MAX), "limit_bytes": str(UNFINISHED_BYTES_MAX)},
        )
    count, size_bytes = reader.all_unfinished
    if count >= ALL_UNFINISHED_MAX or size_bytes + more_bytes > ALL_UNFINISHED_BYTES_MAX:
        raise HoldfastError(
            Reason.QUOTA_EXCEEDED,
            f"{count} activations with {size_bytes} bytes have not ended, and this service holds at most "
            f"{ALL_UNFINISHED_MAX} with {ALL_UNFINISHED_BYTES_MAX} bytes. Wait for some, or cancel them.",
            subject="activations",
            metadata={"limit": str(ALL_UNFINISHED_MAX), "limit_bytes": str(ALL_UNFINISHED_BYTES_MAX)},
        )


def _created(command: Creation) -> tuple[ActivationRecord, ActivationStateRecord]:
    """The records, with everything filled in that was left to us."""
    request, now = command.request, command.now
    activation = Activation()
    activation.CopyFrom(request.activation)
    activation.name = names.activation_name(request.parent, command.activation_id)
    activation.correlation_id = activation.correlation_id or command.correlation_id
    activation.priority = activation.priority or PRIORITY_DEFAULT
    activation.create_time.CopyFrom(now)
    _check_selector(request)
    if not activation.HasField("heartbeat_timeout"):
        activation.heartbeat_timeout.FromSeconds(HEARTBEAT_TIMEOUT_S)
    _fill_in_policy(activation.retry_policy)
    deadline = _deadline(request.activation, now)
    start_deadline = _start_deadline(request.activation, deadline, now)
    activation.deadline.CopyFrom(deadline)
    activation.start_deadline.CopyFrom(start_deadline)
    state = ActivationStateRecord(
        state=PENDING, deadline=deadline, start_deadline=start_deadline, queue_time=now, update_time=now
    )
    return ActivationRecord(activation=activation), state


def _check_selector(request: CreateActivationRequest) -> None:
    agent = request.activation.selector.agent
    if agent and names.parent_of(agent) != request.parent:
        raise invalid_field("activation.selector.agent", f"{agent!r} is of another namespace than {request.parent}")


def _fill_in_policy(policy: RetryPolicy) -> None:
    policy.max_attempts = policy.max_attempts or ATTEMPTS_MAX
    if not policy.HasField("initial_backoff"):
        policy.initial_backoff.CopyFrom(Duration(seconds=INITIAL_BACKOFF_S))
        if policy.HasField("max_backoff") and ms(policy.max_backoff) < INITIAL_BACKOFF_S * 1000:
            policy.initial_backoff.CopyFrom(policy.max_backoff)
    if not policy.HasField("max_backoff"):
        policy.max_backoff.CopyFrom(Duration(seconds=MAX_BACKOFF_S))
        if ms(policy.initial_backoff) > MAX_BACKOFF_S * 1000:
            policy.max_backoff.CopyFrom(policy.initial_backoff)
    if ms(policy.max_backoff) < ms(policy.initial_backoff):
        raise invalid_field(
            "activation.retry_policy.max_backoff",
            f"is {ms(policy.max_backoff)} ms, less than the initial_backoff of {ms(policy.initial_backoff)} ms",
        )
    if not policy.HasField("multiplier"):
        policy.multiplier = MULTIPLIER
    if not 1 <= policy.multiplier <= MULTIPLIER_MAX:  # false of NaN, too
        raise invalid_field(
            "activation.retry_policy.multiplier", f"is {policy.multiplier:g}; it must be from 1 to {MULTIPLIER_MAX:g}"
        )


def ms(duration: Duration) -> int:
    """A duration in whole milliseconds, rounded up."""
    return duration.seconds * 1000 - -duration.nanos // 1_000_000


def _deadline(asked: Activation, now: Timestamp) -> Timestamp:
    if not asked.HasField("deadline"):
        return after(now, DEADLINE_S * 1000)
    return check_deadline("activation.deadline", asked.deadline, now)


def check_deadline(field: str, deadline: Timestamp, now: Timestamp) -> Timestamp:
    """A deadline that is neither past nor too far ahead.

    Raises:
        HoldfastError: INVALID_FIELD about `field`.
    """
    ahead_s = (deadline.ToMilliseconds() - now.ToMilliseconds()) / 1000
    if ahead_s <= 0:
        raise invalid_field(field, f"{deadline.ToJsonString()} is past: it is {now.ToJsonString()} here")
    if ahead_s > DEADLINE_S_MAX:
        raise invalid_field(field, f"is {ahead_s:.0f} s ahead, more than the {DEADLINE_S_MAX} s allowed")
    return deadline


def _start_deadline(asked: Activation, deadline: Timestamp, now: Timestamp) -> Timestamp:
    if not asked.HasField("start_deadline"):
        return deadline
    checked = check_deadline("activation.start_deadline", asked.start_deadline, now)
    if checked.ToNanoseconds() > deadline.ToNanoseconds():
        raise invalid_field(
            "activation.start_deadline",
            f"{checked.ToJsonString()} is later than the deadline, {deadline.ToJsonString()}",
        )
    return checked


def after(time: Timestamp, milliseconds: int) -> Timestamp:
    """A time, later."""
    later = Timestamp()
    later.FromMilliseconds(time.ToMilliseconds() + milliseconds)
    return later
