"""A handoff as stored, and as clients see it."""

from dataclasses import dataclass
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1.handoff_service_pb2 import (
    HANDOFF_STATE_ACCEPTED,
    HANDOFF_STATE_CANCELLED,
    HANDOFF_STATE_OFFERED,
    Handoff,
    HandoffState,
)
from holdfast.core.activations.entry import ActivationEntry
from holdfast.core.activations.entry import Reader as ActivationReader
from holdfast.core.state import fence_of
from holdfast.errors import HoldfastError, Reason
from holdfast.storage.v1.handoffs_pb2 import HandoffRecord


@dataclass(frozen=True, slots=True)
class HandoffEntry:
    """A handoff as stored, with its activation as that is at the same revision."""

    record: HandoffRecord
    mod_revision: int
    activation: ActivationEntry | None

    @property
    def name(self) -> str:
        """Its resource name."""
        return self.record.handoff.name

    @property
    def is_void(self) -> bool:
        """Whether its activation ended, or its owner lost it: from that revision on it is CANCELLED."""
        waits = self.activation is not None and not self.activation.is_lost
        return self.record.handoff.state == HANDOFF_STATE_OFFERED and not (
            waits and self.activation is not None and self.activation.state.handoff == self.name
        )

    @property
    def current(self) -> HandoffState.ValueType:
        """Where it stands."""
        return HANDOFF_STATE_CANCELLED if self.is_void else self.record.handoff.state

    @property
    def end_time(self) -> Timestamp:
        """When it ended."""
        return self.record.handoff.end_time

    @property
    def size_bytes(self) -> int:
        """What its record takes."""
        return self.record.ByteSize()


class Reader(ActivationReader, Protocol):
    """The state at one revision."""

    def handoff(self, name: str) -> HandoffEntry | None:
        """The handoff of this name."""
        ...


def find(reader: Reader, name: str) -> HandoffEntry:
    """The handoff of this name.

    Raises:
        HoldfastError: HANDOFF_NOT_FOUND.
    """
    entry = reader.handoff(name)
    if entry is None:
        raise HoldfastError(
            Reason.HANDOFF_NOT_FOUND,
            f"there is no handoff {name!r}: it was never offered, or ended long ago.",
            subject=name,
        )
    return entry


def shown(entry: HandoffEntry) -> Handoff:
    """The handoff as clients see it."""
    handoff = Handoff()
    handoff.CopyFrom(entry.record.handoff)
    handoff.revision = entry.mod_revision
    if entry.is_void:
        handoff.state = HANDOFF_STATE_CANCELLED
        if entry.activation is not None:
            handoff.revision = max(handoff.revision, entry.activation.mod_revision)
    if handoff.state == HANDOFF_STATE_ACCEPTED:
        handoff.fence = fence_of(entry.record.fence_epoch, entry.mod_revision)
    return handoff


def closed(entry: HandoffEntry, why: str = "") -> HoldfastError:
    """HANDOFF_CLOSED."""
    state = HandoffState.Name(entry.current)
    told = why or f"is {state.removeprefix('HANDOFF_STATE_')}"
    return HoldfastError(Reason.HANDOFF_CLOSED, f"{entry.name} {told}.", subject=entry.name, metadata={"state": state})
