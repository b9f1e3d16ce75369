"""The circuit breaker in front of an agent: who fails again and again is left alone for a while.

CLOSED lets all work through. Some failures in a row open it (see `Policy`); OPEN lets none through for `OPEN_S`.
HALF_OPEN lets one through, whose success closes it and whose failure opens it again. It is a record of the agent's:
all replicas share it, and it survives restarts, also those of the agent.

A failure is an attempt that can be tried again, a heartbeat or a lease that was lost, and an assignment that was
ignored. Work that failed for good says nothing of the agent, nor does an assignment that it declined.
"""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.registry.v1.agent_pb2 import (
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_HALF_OPEN,
    BREAKER_STATE_OPEN,
    BreakerState,
)
from holdfast.storage.v1.activations_pb2 import WorkRecord
from holdfast.store.interface import Txn

FAILURES_MAX = 3
"""Failures in a row that open it, unless told: that of the original framework for activations (ANCHORS, last part)."""

OPEN_S = 30
"""How long it stays open; from there, too."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When breakers open: after `failures_max` failures in a row.

    With 0 they never do, and one that is not CLOSED becomes so at the end of its time, or of its trial.
    """

    failures_max: int = FAILURES_MAX

    @property
    def never_opens(self) -> bool:
        """Whether breakers are switched off."""
        return self.failures_max == 0


POLICY_DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class WorkEntry:
    """What an agent is trusted with, as stored; the agent itself may be gone."""

    agent: str
    record: WorkRecord
    mod_revision: int

    @property
    def breaker_revision(self) -> int:
        """Revision at which the breaker changed its state."""
        return self.record.breaker_revision or self.mod_revision

    @property
    def has_turned(self) -> bool:
        """Whether the breaker has ever been anything but CLOSED."""
        return self.record.HasField("breaker_time")


Change = Callable[[WorkRecord], bool]
"""Changes a record; whether the breaker changed its state by that."""


def touched(_record: WorkRecord) -> bool:
    """An assignment: the record is written so that no other assignment is made on the same state."""
    return False


def failed(now: Timestamp, policy: Policy) -> Change:
    """An attempt failed."""

    def change(record: WorkRecord) -> bool:
        record.failures += 1
        if record.breaker_state == BREAKER_STATE_OPEN:
            return False
        if policy.never_opens:
            return record.breaker_state != BREAKER_STATE_CLOSED and _turn(record, BREAKER_STATE_CLOSED, now)
        if record.breaker_state == BREAKER_STATE_HALF_OPEN or record.failures >= policy.failures_max:
            record.retry_time.FromMilliseconds(now.ToMilliseconds() + OPEN_S * 1000)
            return _turn(record, BREAKER_STATE_OPEN, now)
        return False

    return change


def succeeded(now: Timestamp) -> Change:
    """An attempt succeeded, or an operator trusts the agent again."""

    def change(record: WorkRecord) -> bool:
        record.failures = 0
        record.ClearField("retry_time")
        return record.breaker_state != BREAKER_STATE_CLOSED and _turn(record, BREAKER_STATE_CLOSED, now)

    return change


def half_opened(now: Timestamp, policy: Policy) -> Change:
    """The time is over for which it was open."""

    def change(record: WorkRecord) -> bool:
        record.ClearField("retry_time")
        return _turn(record, BREAKER_STATE_CLOSED if policy.never_opens else BREAKER_STATE_HALF_OPEN, now)

    return change


def _turn(record: WorkRecord, state: BreakerState.ValueType, now: Timestamp) -> bool:
    record.breaker_state = state
    record.breaker_time.CopyFrom(now)
    return True


def rewritten(agent: str, entry: WorkEntry | None, change: Change) -> Txn:
    """What changes the record of an agent, unless another changes it before."""
    record = WorkRecord(breaker_state=BREAKER_STATE_CLOSED)
    if entry is not None:
        record.CopyFrom(entry.record)
        record.breaker_revision = entry.breaker_revision
    if change(record):
        record.breaker_revision = 0
    key = names.work_key(agent)
    return Txn(
        compares=((key, entry.mod_revision if entry is not None else 0),), puts=((key, record.SerializeToString()),)
    )


def is_clean(entry: WorkEntry | None) -> bool:
    """Whether a success would change nothing."""
    return entry is None or (entry.record.breaker_state == BREAKER_STATE_CLOSED and not entry.record.failures)
