"""Leases as this replica sees them: those that stand, and those that ended and are still remembered."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set

from holdfast.core.state import LeaseEntry
from holdfast.indexes import Names


class LeaseRecords:
    """All leases at the view's revision."""

    def __init__(self) -> None:
        self._entries: dict[str, LeaseEntry] = {}
        self._ended: dict[str, None] = {}
        self._by_owner: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._standing = 0
        self._names = Names()

    def get(self, name: str) -> LeaseEntry | None:
        """The lease of this name, ended ones included."""
        return self._entries.get(name)

    def mod_revision(self, name: str) -> int:
        """The revision that last wrote its record; 0 without one."""
        entry = self._entries.get(name)
        return entry.mod_revision if entry is not None else 0

    def standing_after(self, parent: str, name: str = "") -> Sequence[str]:
        """Names of the leases of a namespace that stand, in order, from the first greater than `name`."""
        return self._names.after(parent, name)

    @property
    def standing_count(self) -> int:
        """How many leases stand."""
        return self._standing

    @property
    def owners(self) -> Set[str]:
        """The replicas that own leases that stand."""
        return self._by_owner.keys()

    def owned_by(self, replica: str, limit: int) -> Sequence[str]:
        """Names of leases that stand and that a replica owns, at most `limit`."""
        return list(itertools.islice(self._by_owner.get(replica, ()), limit))

    def ended(self) -> Iterator[LeaseEntry]:
        """Leases that ended and are still remembered, the first ended first."""
        return (lease for name in list(self._ended) if (lease := self._entries.get(name)) is not None)

    @property
    def ended_count(self) -> int:
        """How many those are."""
        return len(self._ended)

    def put(self, lease: LeaseEntry) -> None:
        """Takes a lease in, in the place of what it was."""
        self.remove(lease.name)
        self._entries[lease.name] = lease
        if lease.stands:
            self._standing += 1
            self._names.add(lease.name)
            self._by_owner[lease.record.owner][lease.name] = None
        else:
            self._ended[lease.name] = None

    def remove(self, name: str) -> None:
        """Lets a lease go, if it is there."""
        known = self._entries.pop(name, None)
        if known is not None and known.stands:
            self._standing -= 1
            self._names.remove(name)
            owned = self._by_owner[known.record.owner]
            del owned[name]
            if not owned:
                del self._by_owner[known.record.owner]
        self._ended.pop(name, None)
