"""How a hold ends or changes: given back, taken away, its delay over; and who has it next, in the same revision."""

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.lock_service_pb2 import LOCK_STATE_FREE
from holdfast.core.holds.acquiring import Acquisition, check_bytes, copy_of, granted, rewritten
from holdfast.core.holds.entry import HoldEntry, Reader, check_held
from holdfast.core.leases import find_standing
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason
from holdfast.store.interface import Txn

Ended = Plan[HoldEntry | None]
"""Answers with the hold that there is next; None if it is free."""


def release(
    reader: Reader, name: str, fence: int, following: Acquisition | None, now: Timestamp
) -> Plan[tuple[HoldEntry | None, int]]:
    """Decides that a holder gives its hold back. Answers with the hold that `following` has next, and the revision.

    Raises:
        HoldfastError: FENCE_STALE.
    """
    plan = _passed_on(reader, check_held(name, reader.hold(name), fence), following, now)
    return Plan(plan.txn, lambda revision: (plan.answer(revision), revision))


def take_back(reader: Reader, command: Acquisition, following: Acquisition | None, now: Timestamp) -> Ended:
    """Decides what becomes of the hold of a caller who had gone before it was told.

    Nothing, if it has none, or somebody else was told of it since. What was kept for its request_id goes as well.
    """
    entry = reader.hold(command.name)
    if entry is None or not entry.is_held or entry.record.claim != command.claim:
        return Plan(Txn(), lambda _: entry)
    plan = _passed_on(reader, entry, following, now)
    return replace(plan, txn=replace(plan.txn, deletes=(*plan.txn.deletes, command.key))) if command.key else plan


def end_delay(
    reader: Reader, name: str, following: Acquisition | None, now: Timestamp, *, is_over: bool
) -> Plan[HoldEntry | None]:
    """Decides what the passing of a delay does. There may be nothing left to do; others may be faster."""
    entry = reader.hold(name)
    if entry is None or entry.is_held or not is_over:
        return Plan(Txn(), lambda _: entry)
    return _passed_on(reader, entry, following, now)


def _passed_on(reader: Reader, entry: HoldEntry, following: Acquisition | None, now: Timestamp) -> Ended:
    """What ends a hold, and gives it to who is next.

    One that is held must have a lease that stands yet: otherwise it was lost before, and its delay counts.
    """
    plan: Ended
    if following is not None:
        plan = granted(following, entry, find_standing(reader, following.lease), now)
    else:
        key = names.hold_key(entry.name)
        plan = Plan(Txn(compares=((key, entry.mod_revision),), deletes=(key,)), lambda _: None)
    if entry.is_held and entry.lease is not None:
        own = (names.lease_key(entry.lease.name), entry.lease.mod_revision)
        compares = tuple(dict.fromkeys((*plan.txn.compares, own)))
        plan = replace(plan, txn=replace(plan.txn, compares=compares))
    return plan


def force(reader: Reader, name: str, reason: str, now: Timestamp) -> Plan[HoldEntry]:
    """Decides ForceReleaseLock; one that is lost already stays as it is.

    Raises:
        HoldfastError: LOCK_NOT_FOUND.
    """
    entry = reader.hold(name)
    if entry is None or (not entry.is_held and entry.state == LOCK_STATE_FREE):
        raise HoldfastError(
            Reason.LOCK_NOT_FOUND, f"nobody holds {name}; ListLocks says which locks are held.", subject=name
        )
    if not entry.is_held:
        return Plan(Txn(), lambda _: entry)
    record = copy_of(entry)
    record.taken.reason = reason
    record.taken.time.CopyFrom(now)
    return Plan(rewritten(entry, record), lambda revision: HoldEntry(name, record, revision, entry.lease))


def proclaim(reader: Reader, name: str, fence: int, value: bytes) -> Plan[HoldEntry]:
    """Decides ProclaimLeader.

    Raises:
        HoldfastError: FENCE_STALE, QUOTA_EXCEEDED.
    """
    entry = check_held(name, reader.hold(name), fence)
    check_bytes(reader, len(value) - len(entry.record.value))
    record = copy_of(entry)
    record.value = value
    record.change_revision = 0
    return Plan(rewritten(entry, record), lambda revision: HoldEntry(name, record, revision, entry.lease))
