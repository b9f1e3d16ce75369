"""An activation as stored, as it is owned, and as clients see it."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.activation_service_pb2 import (
    ACTIVATION_STATE_ASSIGNED,
    ACTIVATION_STATE_BACKOFF,
    ACTIVATION_STATE_CANCELLED,
    ACTIVATION_STATE_DEAD_LETTERED,
    ACTIVATION_STATE_FAILED,
    ACTIVATION_STATE_HANDING_OFF,
    ACTIVATION_STATE_PENDING,
    ACTIVATION_STATE_RUNNING,
    ACTIVATION_STATE_SUCCEEDED,
    ACTIVATION_STATE_TIMED_OUT,
    Activation,
    ActivationState,
)
from holdfast.core.activations.breaker import Policy
from holdfast.core.state import AgentEntry, etag_of, fence_of
from holdfast.core.state import Reader as AgentReader
from holdfast.errors import HoldfastError, Reason
from holdfast.storage.v1.activations_pb2 import ActivationRecord, ActivationStateRecord

State: TypeAlias = ActivationState.ValueType

PENDING, ASSIGNED, RUNNING, HANDING_OFF, BACKOFF = (
    ACTIVATION_STATE_PENDING,
    ACTIVATION_STATE_ASSIGNED,
    ACTIVATION_STATE_RUNNING,
    ACTIVATION_STATE_HANDING_OFF,
    ACTIVATION_STATE_BACKOFF,
)
SUCCEEDED, FAILED, DEAD_LETTERED, CANCELLED, TIMED_OUT = (
    ACTIVATION_STATE_SUCCEEDED,
    ACTIVATION_STATE_FAILED,
    ACTIVATION_STATE_DEAD_LETTERED,
    ACTIVATION_STATE_CANCELLED,
    ACTIVATION_STATE_TIMED_OUT,
)

OWNED = frozenset({ASSIGNED, RUNNING, HANDING_OFF})
"""States in which an agent has it."""

WORKED_ON = frozenset({RUNNING, HANDING_OFF})
"""States in which an agent has begun."""

ENDED = frozenset({SUCCEEDED, FAILED, DEAD_LETTERED, CANCELLED, TIMED_OUT})
"""States that are final, but that RequeueActivation leads out of DEAD_LETTERED."""


COPIED_BYTES_MAX = 16 << 10
"""Largest payload that is copied with the rest and dropped: field by field, the rest takes 15 µs instead of 1."""


@dataclass(frozen=True, slots=True)
class ActivationEntry:
    """An activation as stored, with the agent it names as its owner, as that is at the same revision."""

    record: ActivationRecord
    state: ActivationStateRecord
    mod_revision: int
    owner: AgentEntry | None

    @property
    def name(self) -> str:
        """Its resource name."""
        return self.record.activation.name

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end."""
        return self.state.state in ENDED

    @property
    def is_lost(self) -> bool:
        """Whether its owner's incarnation ended: from that revision on nobody owns it, whatever its record says."""
        return self.state.state in OWNED and not lives(self.owner, self.state.agent_uid)

    @property
    def current(self) -> State:
        """Where it stands: BACKOFF once its owner is gone."""
        return BACKOFF if self.is_lost else self.state.state

    @property
    def fence(self) -> int:
        """Fencing number of its owner; 0 while nobody owns it."""
        if self.state.state not in OWNED or self.is_lost:
            return 0
        return fence_of(self.state.fence_epoch, self.state.fence_revision or self.mod_revision)

    @property
    def end_time(self) -> Timestamp:
        """When it ended."""
        return self.state.end_time

    @property
    def size_bytes(self) -> int:
        """What its records take, near enough."""
        return self.record.ByteSize() + self.state.ByteSize()


def lives(owner: AgentEntry | None, uid: str) -> bool:
    """Whether an agent is there, LIVE, and of this incarnation."""
    return owner is not None and owner.is_live and owner.agent.uid == uid


class Reader(AgentReader, Protocol):
    """The state at one revision."""

    def activation(self, name: str) -> ActivationEntry | None:
        """The activation of this name."""
        ...

    @property
    def breaker_policy(self) -> Policy:
        """When breakers open, as this service was told."""
        ...

    def unfinished(self, parent: str) -> tuple[int, int]:
        """How many activations of a namespace have not ended, and the bytes of their records."""
        ...

    @property
    def all_unfinished(self) -> tuple[int, int]:
        """As many of all namespaces, and their bytes."""
        ...


def find(reader: Reader, name: str) -> ActivationEntry:
    """The activation of this name.

    Raises:
        HoldfastError: ACTIVATION_NOT_FOUND.
    """
    entry = reader.activation(name)
    if entry is None:
        raise HoldfastError(
            Reason.ACTIVATION_NOT_FOUND,
            f"there is no activation {name!r}: it was never created, or ended long ago.",
            subject=name,
        )
    return entry


def shown(entry: ActivationEntry, *, is_brief: bool = False) -> Activation:
    """The activation as clients see it; a brief one lacks payload and result."""
    activation, state = Activation(), entry.state
    if is_brief:
        _copy_without_payload(entry.record.activation, activation)
    else:
        activation.CopyFrom(entry.record.activation)
        activation.result = state.result
    activation.state = entry.current
    activation.agent = state.agent
    activation.attempt = state.attempt
    activation.fence = entry.fence
    activation.handoffs = state.handoffs
    activation.deadline.CopyFrom(state.deadline)
    activation.start_deadline.CopyFrom(state.start_deadline)
    activation.update_time.CopyFrom(state.update_time)
    if state.HasField("progress"):
        activation.progress.CopyFrom(state.progress)
    if state.HasField("failure"):
        activation.failure.CopyFrom(state.failure)
    if state.state == BACKOFF:
        activation.retry_time.CopyFrom(state.retry_time)
    revision = entry.mod_revision
    if entry.is_lost and entry.owner is not None:
        revision = max(revision, entry.owner.agent.revision)
        activation.update_time.CopyFrom(entry.owner.agent.update_time)
    return dated(activation, revision)


def _copy_without_payload(whole: Activation, brief: Activation) -> None:
    if len(whole.payload) <= COPIED_BYTES_MAX:
        brief.CopyFrom(whole)
        brief.ClearField("payload")
        return
    for field, value in whole.ListFields():
        if field.name == "payload":
            continue
        if field.message_type is not None:
            getattr(brief, field.name).CopyFrom(value)
        else:
            setattr(brief, field.name, value)


def dated(activation: Activation, revision: int) -> Activation:
    """An activation with what follows from the revision that changed it last."""
    activation.revision = revision
    activation.etag = etag_of(revision)
    return activation


def following(entry: ActivationEntry, now: Timestamp) -> ActivationStateRecord:
    """The state to change into the next one: the same owner, under the same fence."""
    state = ActivationStateRecord()
    state.CopyFrom(entry.state)
    if state.state in OWNED:
        state.fence_revision = state.fence_revision or entry.mod_revision
    state.update_time.CopyFrom(now)
    return state


def unowned(state: ActivationStateRecord, into: State) -> None:
    """Takes the activation from its owner, whose name stays for the record."""
    state.state = into
    state.fence_revision = state.fence_epoch = 0
    state.ClearField("agent_uid")
    state.ClearField("handoff")
    state.ClearField("retry_time")


def ended(state: ActivationStateRecord, into: State, now: Timestamp) -> None:
    """Brings it to its end."""
    unowned(state, into)
    state.end_time.CopyFrom(now)
    state.ClearField("declined")


def state_key(entry: ActivationEntry) -> str:
    """Store key of where it stands."""
    return names.activation_state_key(entry.name)


def closed(entry: ActivationEntry) -> HoldfastError:
    """ACTIVATION_CLOSED."""
    return HoldfastError(
        Reason.ACTIVATION_CLOSED,
        f"{entry.name} ended at revision {entry.mod_revision} and is {state_name(entry.state.state)}.",
        subject=entry.name,
        metadata={"state": ActivationState.Name(entry.state.state)},
    )


def not_in(entry: ActivationEntry, needed: str) -> HoldfastError:
    """ACTIVATION_STATE_CONFLICT: it has not ended, and is not where the call needs it."""
    return HoldfastError(
        Reason.ACTIVATION_STATE_CONFLICT,
        f"{entry.name} is {state_name(entry.current)}; the call is for one that is {needed}.",
        subject=entry.name,
        metadata={"state": ActivationState.Name(entry.current)},
    )


def state_name(state: State) -> str:
    """A state as people read it."""
    return ActivationState.Name(state).removeprefix("ACTIVATION_STATE_")


def check_fence(entry: ActivationEntry, fence: int) -> None:
    """Refuses a fence that is not of the current owner.

    Raises:
        HoldfastError: FENCE_STALE.
    """
    if entry.fence == 0 or fence != entry.fence:
        told = f"{entry.fence}, that of {entry.state.agent}" if entry.fence else "0: nobody owns it"
        raise HoldfastError(
            Reason.FENCE_STALE,
            f"fence {fence} is not the current one of {entry.name}, {told}.",
            subject=entry.name,
            metadata={"current_fence": str(entry.fence), "state": ActivationState.Name(entry.current)},
        )
