"""A hold as stored, and as clients see it: a lock, or a leadership."""

from dataclasses import dataclass
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.election_service_pb2 import Leadership
from holdfast.coordination.v1.lock_service_pb2 import (
    LOCK_STATE_DELAYED,
    LOCK_STATE_FREE,
    LOCK_STATE_HELD,
    Lock,
    LockState,
)
from holdfast.core.state import LeaseEntry, fence_of
from holdfast.core.state import Reader as AgentReader
from holdfast.errors import HoldfastError, Reason
from holdfast.storage.v1.holds_pb2 import HoldRecord


@dataclass(frozen=True, slots=True)
class HoldEntry:
    """A hold as stored, with the lease it is bound to; None if that is long forgotten.

    A hold that was given back leaves nothing. One that was lost stays until its delay is over.
    """

    name: str
    record: HoldRecord
    mod_revision: int
    lease: LeaseEntry | None

    @property
    def is_held(self) -> bool:
        """Whether its lease stands, and no operator took it away."""
        return self.lease is not None and self.lease.stands and not self.record.HasField("taken")

    @property
    def state(self) -> LockState.ValueType:
        """HELD; or lost: FREE where it has no delay, else DELAYED for as long as the record is there."""
        if self.is_held:
            return LOCK_STATE_HELD
        return LOCK_STATE_DELAYED if self.record.delay_ms else LOCK_STATE_FREE

    @property
    def fence(self) -> int:
        """Fencing number of this hold."""
        return fence_of(self.record.fence_epoch, self.acquired_at)

    @property
    def acquired_at(self) -> int:
        """Revision at which it began."""
        return self.record.fence_revision or self.mod_revision

    @property
    def changed_at(self) -> int:
        """Revision at which it began, changed its value, or was lost, whichever came last."""
        if self.is_held:
            return self.record.change_revision or self.mod_revision
        if self.record.HasField("taken") or self.lease is None:
            return self.mod_revision
        return self.lease.mod_revision

    @property
    def size_bytes(self) -> int:
        """What its record takes, near enough."""
        return len(self.name) + self.record.ByteSize()


class Reader(AgentReader, Protocol):
    """The state at one revision."""

    def hold(self, name: str) -> HoldEntry | None:
        """The hold of the lock or election of this name, or one lost whose delay is not over."""
        ...

    def holds_of(self, lease: str) -> int:
        """How many holds are bound to a lease."""
        ...

    @property
    def holds_count(self) -> int:
        """How many holds there are, lost ones included."""
        ...

    @property
    def holds_bytes(self) -> int:
        """What they take."""
        ...


def shown_lock(name: str, entry: HoldEntry | None, waiters: int = 0, free_time: Timestamp | None = None) -> Lock:
    """A lock as clients see it; one without a hold is FREE."""
    if entry is None or entry.state == LOCK_STATE_FREE:
        return Lock(name=name, state=LOCK_STATE_FREE, waiters=waiters)
    return Lock(
        name=name,
        state=entry.state,
        holder=entry.record.holder,
        lease=entry.record.lease,
        fence=entry.fence,
        waiters=waiters,
        free_time=free_time if entry.state == LOCK_STATE_DELAYED else None,
        acquire_time=entry.record.acquire_time,
        revision=entry.acquired_at if entry.is_held else entry.changed_at,
    )


def shown_leadership(name: str, entry: HoldEntry | None) -> Leadership:
    """Who leads an election as clients see it: nobody, unless the leadership is held."""
    if entry is None or not entry.is_held:
        return Leadership(election=name)
    return Leadership(
        election=name,
        leader=entry.record.holder,
        lease=entry.record.lease,
        fence=entry.fence,
        value=entry.record.value,
        elect_time=entry.record.acquire_time,
        revision=entry.changed_at,
    )


def check_held(name: str, entry: HoldEntry | None, fence: int) -> HoldEntry:
    """The hold that a fence is of, if it is held.

    Raises:
        HoldfastError: FENCE_STALE.
    """
    if entry is not None and entry.is_held and entry.fence == fence:
        return entry
    current = entry.fence if entry is not None and entry.is_held else 0
    raise HoldfastError(
        Reason.FENCE_STALE,
        f"fence {fence} is not that of {name}: {_standing(entry)}. Stop what you do under it.",
        subject=name,
        metadata={"current_fence": str(current)},
    )


def lock_held(name: str, entry: HoldEntry | None) -> HoldfastError:
    """LOCK_HELD: who has what the caller cannot have now. Without a hold it is others who wait before the caller."""
    return HoldfastError(
        Reason.LOCK_HELD,
        f"{name} is not to be had: {_standing(entry) if entry is not None else 'others wait in line for it'}. "
        f"{'Campaign' if names.collection_of(name) == 'elections' else 'Ask'} with a longer wait, or later.",
        subject=name,
    )


def _standing(entry: HoldEntry | None) -> str:
    if entry is None or entry.state == LOCK_STATE_FREE:
        return "nobody holds it"
    record = entry.record
    if entry.is_held:
        return f"{record.holder!r} holds it with fence {entry.fence}, under {record.lease}"
    how = "an operator took it away" if record.HasField("taken") else f"{record.lease} ended"
    return f"{record.holder!r} lost it at revision {entry.changed_at}, since {how}, and its delay is not over"
