"""Locks and leaderships as this replica sees them, put together from their records and the leases they are bound to."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from holdfast import names
from holdfast.core.holds.entry import HoldEntry
from holdfast.core.state import LeaseEntry
from holdfast.indexes import Names
from holdfast.parts import Kind, Part
from holdfast.storage.v1.holds_pb2 import HoldRecord
from holdfast.store.interface import KeyValue
from holdfast.topics import Changed

LEADERSHIP_BYTES = 1 << 10
"""What a change of a leadership takes in memory besides the record before."""


class HoldListener(Protocol):
    """Learns of holds as the view does."""

    def hold_changed(self, name: str, entry: HoldEntry | None) -> None:
        """A hold began, was told of anew, was lost, or is gone (None)."""
        ...

    def lease_ended(self, name: str) -> None:
        """A lease ended: what would be held under it will not be."""
        ...


class Holds(Part):
    """All holds at the view's revision; lost ones until their delay is over.

    Attributes:
        listener: Told of changes, once there is one.
        size_bytes: What all of them take.
        on_lost: Called with each that is lost.
    """

    def __init__(self, lease_of: Callable[[str], LeaseEntry | None]) -> None:
        self.listener: HoldListener | None = None
        self.size_bytes = 0
        self.on_lost: Callable[[HoldEntry], None] = lambda _entry: None
        self._lease_of = lease_of
        self._records: dict[str, tuple[HoldRecord, int]] = {}
        self._by_lease: defaultdict[str, set[str]] = defaultdict(set)
        self._lost: set[str] = set()
        self._counts = Counter[str]()
        self._names = Names()
        self._led: dict[str, HoldEntry] = {}
        self._touched: dict[str, HoldEntry | None] = {}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def lost_count(self) -> int:
        """How many are lost, and their delay is not over."""
        return len(self._lost)

    def held_count(self, collection: str) -> int:
        """How many are held of `locks`, or of `elections`."""
        lost = sum(1 for name in self._lost if names.collection_of(name) == collection)
        return self._counts[collection] - lost

    def get(self, name: str) -> HoldEntry | None:
        """The hold of this name; it stays as it is when others change."""
        record = self._records.get(name)
        return HoldEntry(name, *record, self._lease_of(record[0].lease)) if record is not None else None

    def of_lease(self, lease: str) -> int:
        """How many are bound to a lease."""
        return len(self._by_lease.get(lease, ()))

    def locks_after(self, parent: str, name: str = "") -> Sequence[str]:
        """Names of the locks of a namespace that have a hold, in order, from the first greater than `name`."""
        return self._names.after(parent, name)

    def take_changes(self) -> Sequence[Changed]:
        """Leaderships that began, told something else, or ended; each under its election's name as the topic."""
        touched, self._touched = self._touched, {}
        return [
            Changed(name, name, before, now, LEADERSHIP_BYTES + (before.size_bytes if before is not None else 0))
            for name, before in touched.items()
            if _is_other(before, now := self._led.get(name))
        ]

    def kinds(self) -> Mapping[str, Kind]:
        """A record for each hold."""
        kind = Kind(self._put, self._delete, self._revision)
        return {names.LOCK_PREFIX: kind, names.ELECTION_PREFIX: kind}

    def lease_ended(self, name: str, revision: int) -> None:  # noqa: ARG002 - holds look at the lease itself
        """Everything held under it is lost."""
        for held in sorted(self._by_lease.get(name, ())):
            if held not in self._lost:
                self._note(held)
        if self.listener is not None:
            self.listener.lease_ended(name)

    def _put(self, name: str, put: KeyValue) -> None:
        record = HoldRecord.FromString(put.value)
        self._forget(name)
        self._records[name] = record, put.mod_revision
        self._by_lease[record.lease].add(name)
        self._counts[names.collection_of(name)] += 1
        if names.collection_of(name) == "locks":
            self._names.add(name)
        self.size_bytes += HoldEntry(name, record, put.mod_revision, None).size_bytes
        self._note(name)

    def _delete(self, name: str, _revision: int) -> None:
        self._forget(name)
        self._note(name)

    def _revision(self, name: str) -> int:
        return self._records[name][1] if name in self._records else 0

    def _forget(self, name: str) -> None:
        entry = self.get(name)
        if entry is None:
            return
        self.size_bytes -= entry.size_bytes
        del self._records[name]
        self._lost.discard(name)
        self._by_lease[entry.record.lease].discard(name)
        if not self._by_lease[entry.record.lease]:
            del self._by_lease[entry.record.lease]
        self._counts[names.collection_of(name)] -= 1
        if names.collection_of(name) == "locks":
            self._names.remove(name)

    def _note(self, name: str) -> None:
        entry = self.get(name)
        if entry is not None and not entry.is_held:
            self._lost.add(name)
            self.on_lost(entry)
        if names.collection_of(name) == "elections":
            self._touched.setdefault(name, self._led.pop(name, None))
            if entry is not None and entry.is_held:
                self._led[name] = entry
        if self.listener is not None:
            self.listener.hold_changed(name, entry)


def _is_other(before: HoldEntry | None, now: HoldEntry | None) -> bool:
    """Whether observers see a difference; that somebody was told of a leadership anew is none."""
    if before is None or now is None:
        return before is not now
    return (before.fence, before.changed_at) != (now.fence, now.changed_at)
