"""Handoffs as this replica sees them; whether an offer still stands follows from its activation."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.activations import Activations
from holdfast.coordination.v1.handoff_service_pb2 import HANDOFF_STATE_OFFERED
from holdfast.core.handoffs.entry import HandoffEntry
from holdfast.indexes import Names
from holdfast.parts import Kind, Part
from holdfast.storage.v1.handoffs_pb2 import HandoffRecord
from holdfast.store.interface import KeyValue


class DeadlineListener(Protocol):
    """Learns of deadlines as the view does."""

    def set(self, name: str, deadline: Timestamp) -> None:
        """An offer has a deadline from now on."""
        ...

    def clear(self, name: str) -> None:
        """It has none any more."""
        ...


class Handoffs(Part):
    """All handoffs at the view's revision.

    Args:
        activations: What is handed over.
        deadlines: Learns of deadlines.

    Attributes:
        void: Offers that may be CANCELLED without that being written; whoever writes it takes them out.
        ended_bytes: What the records of those that have ended take.
    """

    def __init__(self, activations: Activations, deadlines: DeadlineListener) -> None:
        self.void: dict[str, None] = {}
        self.ended_bytes = 0
        self._activations = activations
        self._deadlines = deadlines
        activations.on_handoff_left = self._activation_left
        self._records: dict[str, tuple[HandoffRecord, int]] = {}
        self._names = Names()
        self._ended: dict[str, int] = {}
        self._offered: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def get(self, name: str) -> HandoffEntry | None:
        """The handoff of this name."""
        known = self._records.get(name)
        if known is None:
            return None
        record, mod_revision = known
        return HandoffEntry(record, mod_revision, self._activations.get(record.handoff.activation))

    def after(self, parent: str, name: str = "", limit: int | None = None) -> list[HandoffEntry]:
        """Handoffs of a namespace in the order of their names, at most `limit`, from the first after `name`."""
        return [entry for each in self._names.after(parent, name)[:limit] if (entry := self.get(each)) is not None]

    def offered_to(self, agent: str) -> list[HandoffEntry]:
        """Offers to an agent that stand, the first made first."""
        there = (self.get(name) for name in self._offered.get(agent, ()))
        return [entry for entry in there if entry is not None and not entry.is_void]

    def _activation_left(self, name: str) -> None:
        """An activation does not wait for this handoff any more, or is lost."""
        known = self._records.get(name)
        if known is not None and known[0].handoff.state == HANDOFF_STATE_OFFERED:
            self._note_void(name, known[0].handoff.to_agent)

    def _note_void(self, name: str, to_agent: str) -> None:
        """Looked at again before anything is written: its activation may just not have been met."""
        self.void[name] = None
        self._activations.changed.set()
        self._activations.ring(to_agent)

    @property
    def ended_count(self) -> int:
        """How many have ended, and are remembered."""
        return len(self._ended)

    def ended(self) -> Iterator[HandoffEntry]:
        """Those, the first ended first."""
        return (entry for name in list(self._ended) if (entry := self.get(name)) is not None)

    def kinds(self) -> Mapping[str, Kind]:
        """Their records."""
        return {names.HANDOFF_PREFIX: Kind(self._put, self._delete, self._revision)}

    def _put(self, name: str, put: KeyValue) -> None:
        record = HandoffRecord.FromString(put.value)
        if name not in self._records:
            self._names.add(name)
        self._records[name] = record, put.mod_revision
        to_agent = record.handoff.to_agent
        if record.handoff.state == HANDOFF_STATE_OFFERED:
            self._offered[to_agent][name] = None
            self._deadlines.set(name, record.handoff.deadline)
            entry = self.get(name)
            if entry is not None and entry.is_void:
                self._note_void(name, to_agent)
        else:
            self._take_out(to_agent, name)
            self.ended_bytes += record.ByteSize() - self._ended.get(name, 0)
            self._ended[name] = record.ByteSize()
        self._activations.ring(to_agent)

    def _take_out(self, to_agent: str, name: str) -> None:
        self._deadlines.clear(name)
        self.void.pop(name, None)
        offered = self._offered.get(to_agent)
        if offered is not None:
            offered.pop(name, None)
            if not offered:
                del self._offered[to_agent]

    def _delete(self, name: str, _revision: int) -> None:
        known = self._records.pop(name, None)
        if known is not None:
            self._names.remove(name)
            self._take_out(known[0].handoff.to_agent, name)
            self.ended_bytes -= self._ended.pop(name, 0)

    def _revision(self, name: str) -> int:
        _, mod_revision = self._records.get(name, (None, 0))
        return mod_revision
