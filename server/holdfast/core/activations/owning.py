"""What the owner of an activation says: each call carries its fence, and counts only while its lease stands."""

from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1.activation_service_pb2 import (
    Activation,
    ActivationFailure,
    ActivationProgress,
    CompleteActivationRequest,
    DeclineActivationRequest,
    FailActivationRequest,
)
from holdfast.core.activations import breaker
from holdfast.core.activations.creating import after
from holdfast.core.activations.entry import (
    ASSIGNED,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    WORKED_ON,
    ActivationEntry,
    Reader,
    check_fence,
    closed,
    ended,
    find,
    following,
    not_in,
    shown,
    state_key,
    unowned,
)
from holdfast.core.activations.retrying import pause_ms, tried_again
from holdfast.core.state import Plan, unchanged
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_BANNED
from holdfast.storage.v1.activations_pb2 import ActivationStateRecord
from holdfast.store.interface import Txn


@dataclass(frozen=True, slots=True)
class Saying:
    """Who says it, and when. `is_over`: the deadline has passed, by a clock that does not jump."""

    name: str
    fence: int
    now: Timestamp
    is_over: bool = False


def accept(reader: Reader, saying: Saying) -> Plan[Activation]:
    """Decides AcceptActivation: work begins. Said again, it changes nothing.

    Raises:
        HoldfastError: As `owned`.
    """
    entry = owned(reader, saying)
    if entry.state.state in WORKED_ON:
        answer = shown(entry, is_brief=True)
        return Plan(Txn(), lambda _: answer)
    state = following(entry, saying.now)
    state.state = RUNNING
    state.ClearField("declined")
    state.ClearField("progress")
    if not state.HasField("start_time"):
        state.start_time.CopyFrom(saying.now)
    return written(reader, entry, state)


def decline(reader: Reader, request: DeclineActivationRequest, saying: Saying) -> Plan[Activation]:
    """Decides DeclineActivation: another agent gets it; this one is asked again only after a pause.

    Raises:
        HoldfastError: As `owned`; ACTIVATION_STATE_CONFLICT once work has begun.
    """
    entry = owned(reader, saying)
    if entry.state.state != ASSIGNED:
        raise not_in(entry, "ASSIGNED; FailActivation gives up work that has begun")
    return written(reader, entry, given_back(entry, "DECLINED", request.reason, saying.now))


def given_back(entry: ActivationEntry, reason: str, message: str, now: Timestamp) -> ActivationStateRecord:
    """PENDING again after an assignment that came to nothing: it costs no attempt, and its agent is left alone."""
    agent = entry.state.agent
    state = following(entry, now)
    _blame(state, agent, ActivationFailure(reason=reason, message=message, retryable=True), now)
    unowned(state, PENDING)
    if agent not in state.declined:
        state.declined.append(agent)
    state.attempt -= 1
    state.retry_time.CopyFrom(after(now, pause_ms(entry.record.activation.retry_policy, len(state.declined))))
    return state


def touch(reader: Reader, saying: Saying, progress: ActivationProgress | None) -> Plan[Activation]:
    """Decides HeartbeatActivation where it must be written: others wait `heartbeat_timeout` from this record on.

    Raises:
        HoldfastError: As `check_working`.
    """
    entry = check_working(reader, saying)
    state = following(entry, saying.now)
    if progress is not None:
        state.progress.CopyFrom(progress)
        state.progress.time.CopyFrom(saying.now)
    return written(reader, entry, state)


def check_working(reader: Reader, saying: Saying) -> ActivationEntry:
    """The activation, if it is worked on under this fence.

    Raises:
        HoldfastError: As `owned`; ACTIVATION_STATE_CONFLICT before it is accepted.
    """
    entry = owned(reader, saying)
    if entry.state.state not in WORKED_ON:
        raise not_in(entry, "RUNNING; AcceptActivation first")
    return entry


def complete(reader: Reader, request: CompleteActivationRequest, saying: Saying) -> Plan[Activation]:
    """Decides CompleteActivation.

    Raises:
        HoldfastError: As `check_working`.
    """
    entry = check_working(reader, saying)
    state = following(entry, saying.now)
    ended(state, SUCCEEDED, saying.now)
    state.result = request.result
    state.ClearField("failure")
    work = reader.work(entry.state.agent)
    if breaker.is_clean(work):
        return written(reader, entry, state)
    return written(reader, entry, state, breaker.rewritten(entry.state.agent, work, breaker.succeeded(saying.now)))


def fail(reader: Reader, request: FailActivationRequest, saying: Saying) -> Plan[Activation]:
    """Decides FailActivation: for good, or tried again while attempts are left.

    Raises:
        HoldfastError: As `check_working`.
    """
    entry = check_working(reader, saying)
    agent = entry.state.agent
    if request.failure.retryable:
        state = tried_again(entry, request.failure, saying.now)
        work = breaker.rewritten(agent, reader.work(agent), breaker.failed(saying.now, reader.breaker_policy))
        return written(reader, entry, state, work)
    state = following(entry, saying.now)
    _blame(state, agent, request.failure, saying.now)
    ended(state, FAILED, saying.now)
    return written(reader, entry, state)


def _blame(state: ActivationStateRecord, agent: str, failure: ActivationFailure, now: Timestamp) -> None:
    state.failure.CopyFrom(failure)
    state.failure.agent = agent
    state.failure.attempt = state.attempt
    state.failure.time.CopyFrom(now)


def owned(reader: Reader, saying: Saying) -> ActivationEntry:
    """The activation, if the fence is its owner's, who may work.

    Raises:
        HoldfastError: ACTIVATION_NOT_FOUND, ACTIVATION_CLOSED, FENCE_STALE, AGENT_BANNED.
    """
    entry = find(reader, saying.name)
    if entry.has_ended:
        raise closed(entry)
    check_fence(entry, saying.fence)
    admin = reader.admin(entry.state.agent)
    if admin is not None and admin.record.state == ADMIN_STATE_BANNED:
        raise HoldfastError(
            Reason.AGENT_BANNED,
            f"an operator banned {entry.state.agent}; {entry.name} goes to another agent.",
            subject=entry.state.agent,
        )
    if saying.is_over:
        raise HoldfastError(
            Reason.ACTIVATION_CLOSED,
            f"the deadline of {entry.name}, {entry.state.deadline.ToJsonString()}, has passed.",
            subject=entry.name,
        )
    return entry


def written(
    reader: Reader, entry: ActivationEntry, state: ActivationStateRecord, beside: Txn | None = None
) -> Plan[Activation]:
    """What writes a new state, as long as its owner is what the reader says: its end is the end of its fence."""
    beside = beside or Txn()
    owner = unchanged(reader, entry.state.agent) if entry.state.agent else ()
    txn = Txn(
        compares=tuple(dict(((state_key(entry), entry.mod_revision), *owner, *beside.compares)).items()),
        puts=((state_key(entry), state.SerializeToString()), *beside.puts),
    )
    return Plan(txn, lambda revision: shown(replace(entry, state=state, mod_revision=revision), is_brief=True))
