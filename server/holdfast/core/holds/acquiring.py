"""Acquiring a lock, or the leadership of an election."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.election_service_pb2 import CampaignRequest
from holdfast.coordination.v1.lock_service_pb2 import LOCK_STATE_FREE, AcquireLockRequest
from holdfast.core.holds.entry import HoldEntry, Reader, lock_held
from holdfast.core.leases import find_standing
from holdfast.core.requests import remember, replay
from holdfast.core.state import LeaseEntry, Plan, fence_of
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.storage.v1.holds_pb2 import HoldAnswer, HoldRecord
from holdfast.store.interface import Txn

DELAY_MS_DEFAULT = 1_000
"""How long nobody gets what was lost, unless told: time for what the holder had under way to arrive (etcd has none,
Consul 15 s; fences are what protects, this only makes refusals rare)."""

HOLDS_MAX = 100_000
"""Most locks and leaderships at a time."""

HOLDS_BYTES_MAX = 256 << 20
"""Most bytes of them (256 MiB), the values of leaders included."""

LEASE_HOLDS_MAX = 1_000
"""Most of them bound to one lease: their end is one revision, told at once."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What AcquireLock or Campaign was asked, with what the core must not make up itself.

    `claim` is an id of the call's own. `key` is that of the answer to its request_id; empty without one.
    """

    name: str
    holder: str
    lease: str
    request: AcquireLockRequest | CampaignRequest
    claim: str
    epoch: int
    key: str = ""
    delay_ms: int = DELAY_MS_DEFAULT

    @property
    def value(self) -> bytes:
        """What a candidate would tell; a lock tells nothing."""
        return self.request.value if isinstance(self.request, CampaignRequest) else b""

    @property
    def size_bytes(self) -> int:
        """What it takes, near enough."""
        return 2 * self.request.ByteSize()


@dataclass(frozen=True, slots=True)
class Turn:
    """What an attempt rests on that the store does not know.

    Attributes:
        is_first: Whether nobody waits before the caller.
        is_delay_over: Whether the delay of a hold that was lost has passed, by a clock that does not jump.
        may_wait: Whether the caller waits on if it does not get it now.
    """

    is_first: bool
    is_delay_over: bool
    may_wait: bool


def check_lease(name: str, lease: str) -> None:
    """Refuses a lease of another namespace than the lock or election.

    Raises:
        HoldfastError: INVALID_FIELD about `lease`.
    """
    if names.parent_of(lease) != names.parent_of(name):
        raise invalid_field("lease", f"{lease!r} is of another namespace than {name}; grant one there")


def acquire(reader: Reader, command: Acquisition, turn: Turn, now: Timestamp) -> Plan[HoldEntry | None]:
    """Decides one attempt of AcquireLock or Campaign; None means: not now, wait on.

    Whoever holds it already gets the hold it has. A call that came before, by its request_id, gets the hold it got
    then, as long as that is held.

    Raises:
        HoldfastError: LOCK_HELD for one that does not wait on, LEASE_NOT_FOUND, QUOTA_EXCEEDED, REQUEST_ID_REUSED,
            FENCE_STALE for a request that is repeated after its hold ended.
    """
    entry = reader.hold(command.name)
    if entry is not None and entry.is_held and entry.record.claim == command.claim:
        return Plan(Txn(), lambda _: entry)
    if command.key and (first := replay(reader, command.key, command.request, HoldAnswer)):
        return _shared(_held_still(entry, command, *first))
    lease = find_standing(reader, command.lease)
    if entry is not None and entry.is_held and _is_by(entry, command):
        return _remembered(_shared(entry), command, _answer_of(entry), now)
    is_free = entry is None or entry.state == LOCK_STATE_FREE or (not entry.is_held and turn.is_delay_over)
    if is_free and turn.is_first:
        _check_room(reader, command, entry)
        return granted(command, entry, lease, now)
    if not turn.may_wait:
        raise lock_held(command.name, None if is_free else entry)
    return Plan(Txn(), lambda _: None)


def may_be_granted(reader: Reader, command: Acquisition) -> bool:
    """Whether nothing but the present hold keeps one who waits from it."""
    lease = reader.lease(command.lease)
    return (
        lease is not None
        and lease.stands
        and reader.holds_of(command.lease) < LEASE_HOLDS_MAX
        and not (command.key and reader.request(command.key))
    )


def granted(command: Acquisition, before: HoldEntry | None, lease: LeaseEntry, now: Timestamp) -> Plan[HoldEntry]:
    """What gives a hold, in the place of the one before, unless that or the lease has changed."""
    record = HoldRecord(
        holder=command.holder,
        lease=command.lease,
        fence_epoch=command.epoch,
        delay_ms=command.delay_ms,
        value=command.value,
        acquire_time=now,
        claim=command.claim,
    )
    key = names.hold_key(command.name)
    txn = Txn(
        compares=(
            (key, before.mod_revision if before is not None else 0),
            (names.lease_key(lease.name), lease.mod_revision),
        ),
        puts=((key, record.SerializeToString()),),
    )
    plan = Plan(txn, lambda revision: HoldEntry(command.name, record, revision, lease))
    return _remembered(plan, command, HoldAnswer(fence_epoch=command.epoch), now)


def rewritten(entry: HoldEntry, record: HoldRecord) -> Txn:
    """What changes the record of a hold that is held, unless that or its lease has changed."""
    assert entry.lease is not None, "what is held has a lease"
    key = names.hold_key(entry.name)
    return Txn(
        compares=((key, entry.mod_revision), (names.lease_key(entry.lease.name), entry.lease.mod_revision)),
        puts=((key, record.SerializeToString()),),
    )


def copy_of(entry: HoldEntry) -> HoldRecord:
    """The record of a hold to be written anew, with what would follow from its revision filled in."""
    record = HoldRecord()
    record.CopyFrom(entry.record)
    record.fence_revision = entry.acquired_at
    record.change_revision = entry.record.change_revision or entry.mod_revision
    return record


def _shared(entry: HoldEntry) -> Plan[HoldEntry]:
    """Tells one more call of a hold that there is.

    Written, so that nobody takes it back any more from one of several calls that it was told to.
    """
    record = copy_of(entry)
    record.ClearField("claim")
    return Plan(rewritten(entry, record), lambda revision: HoldEntry(entry.name, record, revision, entry.lease))


def _is_by(entry: HoldEntry, command: Acquisition) -> bool:
    return (entry.record.holder, entry.record.lease) == (command.holder, command.lease)


def _held_still(entry: HoldEntry | None, command: Acquisition, answer: HoldAnswer, revision: int) -> HoldEntry:
    fence = fence_of(answer.fence_epoch, answer.fence_revision or revision)
    if entry is not None and entry.is_held and entry.fence == fence:
        return entry
    raise HoldfastError(
        Reason.FENCE_STALE,
        f"request_id {command.key.rsplit('/', 1)[1]!r} got {command.name} with fence {fence}, and that hold has ended. "
        "Stop what you do under it; use a fresh request_id to acquire it again.",
        subject=command.name,
        metadata={"current_fence": str(entry.fence if entry is not None and entry.is_held else 0)},
    )


def _answer_of(entry: HoldEntry) -> HoldAnswer:
    return HoldAnswer(fence_epoch=entry.record.fence_epoch, fence_revision=entry.acquired_at)


def _remembered(plan: Plan[HoldEntry], command: Acquisition, answer: HoldAnswer, now: Timestamp) -> Plan[HoldEntry]:
    return remember(plan, command.key, command.request, answer, now) if command.key else plan


def _check_room(reader: Reader, command: Acquisition, before: HoldEntry | None) -> None:
    if reader.holds_of(command.lease) >= LEASE_HOLDS_MAX:
        raise HoldfastError(
            Reason.QUOTA_EXCEEDED,
            f"{command.lease} has {LEASE_HOLDS_MAX} locks and leaderships, the most that can end together; give some "
            "back, or use several leases.",
            subject=command.lease,
        )
    if before is None and reader.holds_count >= HOLDS_MAX:
        raise HoldfastError(
            Reason.QUOTA_EXCEEDED,
            f"there are {reader.holds_count} locks and leaderships, and this service holds at most {HOLDS_MAX}; give "
            "some back.",
            subject="locks",
        )
    check_bytes(reader, len(command.value))


def check_bytes(reader: Reader, more_bytes: int) -> None:
    """Refuses what would take too many bytes.

    Raises:
        HoldfastError: QUOTA_EXCEEDED.
    """
    if reader.holds_bytes + more_bytes > HOLDS_BYTES_MAX:
        raise HoldfastError(
            Reason.QUOTA_EXCEEDED,
            f"locks and leaderships would take more than {HOLDS_BYTES_MAX} bytes; give some back, or tell less.",
            subject="locks",
        )
