"""What a store promises: etcd's model, and nothing that etcd lacks.

Every transaction that changes something gets exactly one new revision, one more than the last. Keys remember the
revision that last wrote them. History can be watched from any revision that has not been compacted.

How an engine over etcd keeps these promises, as far as tests/integration/store shows that etcd allows it:

- A transaction of etcd takes 128 operations and 1.5 MB. A larger one of ours is staged: its puts are written first,
  under keys that no view reads, then one transaction makes the comparisons and flips the one key that lists them.
  Views take it in at that revision. Comparisons beyond 128 are staged as well: what they name carries an intent until
  the flip.
- The revisions of staging are etcd's own, and so are those of whoever else writes to the same etcd. They are counted
  and change nothing: the engine watches everything, and passes them on as changes without content. A watch of the
  records alone would show holes. etcd counts from 1, which is one more than here.
- etcd makes one revision of one transaction whatever the number of its keys, and none for a comparison that fails or
  for the deletion of a key that is not there, as `commit` says.
- A watch of etcd may split one revision in fragments and says so; the engine puts them together.
- A watch from before the compacted revision is ended by etcd with that revision: REVISION_COMPACTED here. etcd still
  tells what is left of the compacted revision itself, which is not whole, and not passed on.
- Keys carry no lease of etcd's: leases are records like others, ended by a transaction.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

OPERATIONS_MAX = 65_536
"""Most compares, puts and deletes of one transaction, each: five for each agent of the largest batch, and some."""

TXN_BYTES_MAX = 16 << 20
"""Most bytes of the keys and values that one transaction puts: five times the largest batch."""


class StoreFileError(Exception):
    """What the store should open cannot be used: foreign, damaged, newer, or in use. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Txn:
    """Puts and deletes that happen together if each compared key was last written at its revision (0: is absent)."""

    compares: tuple[tuple[str, int], ...] = ()
    puts: tuple[tuple[str, bytes], ...] = ()
    deletes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it could not change anything."""
        return not self.puts and not self.deletes

    @property
    def size_bytes(self) -> int:
        """What the keys and values it puts take."""
        return sum(len(key) + len(value) for key, value in self.puts)

    def check(self) -> None:
        """Refuses what no engine takes.

        Raises:
            ValueError: A key is put twice, deleted twice, or put and deleted, or the transaction is beyond
                `OPERATIONS_MAX` or `TXN_BYTES_MAX`.
        """
        operations = max(len(self.compares), len(self.puts), len(self.deletes))
        if operations > OPERATIONS_MAX:
            raise ValueError(f"a transaction of {operations} operations, more than {OPERATIONS_MAX}; split it")
        if self.size_bytes > TXN_BYTES_MAX:
            raise ValueError(f"a transaction of {self.size_bytes} bytes, more than {TXN_BYTES_MAX}; split it")
        puts = dict(self.puts)
        is_once = len(puts) == len(self.puts) and len(set(self.deletes)) == len(self.deletes)
        if not is_once or not puts.keys().isdisjoint(self.deletes):
            raise ValueError(
                f"a transaction changes {self._most_changed()!r} more than once; put or delete each key once"
            )

    def _most_changed(self) -> str:
        return Counter([*(key for key, _ in self.puts), *self.deletes]).most_common(1)[0][0][:500]


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction is durable. `revision` is its own, or the current one if it changed nothing."""

    revision: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """A comparison did not hold at `revision`; nothing happened."""

    revision: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key, its value and the revision that last wrote it."""

    key: str
    value: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that happened at one revision."""

    revision: int
    puts: tuple[KeyValue, ...]
    deletes: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """What its keys and values take."""
        return sum(len(put.key) + len(put.value) for put in self.puts) + sum(map(len, self.deletes))


class Store(Protocol):
    """A revisioned key space. Every method belongs to one event loop."""

    async def open(self) -> None:
        """Makes it ready; nothing else may be called before.

        Raises:
            StoreFileError: It cannot be used; nothing was changed.
        """
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes write to it, too: leases then have owners that take over from each other."""
        ...

    @property
    def epoch(self) -> int:
        """Counts up with each restore or change of engine, so that fences continue to grow. At least 1."""
        ...

    @property
    def revision(self) -> int:
        """The newest revision this replica knows of; 0 in an empty store."""
        ...

    @property
    def compact_revision(self) -> int:
        """History up to here may be gone; the state at this revision and every change after it is there."""
        ...

    async def current_revision(self) -> int:
        """The newest revision of all replicas, at some moment after the call began."""
        ...

    def commit(self, txn: Txn) -> Awaitable[Committed | Conflict]:
        """Applies a transaction; when it returns, the outcome is on disk.

        Raises:
            HoldfastError: STORE_UNAVAILABLE if it is not known to be durable (whole or not at all), OVERLOADED if too
                many wait.
            ValueError: See `Txn.check`.
        """
        ...

    async def range(self, prefix: str, revision: int = 0) -> tuple[int, list[KeyValue]]:
        """The keys that start with `prefix`, in order, as they were at `revision` (0: now), and that revision.

        Raises:
            HoldfastError: REVISION_COMPACTED or REVISION_FUTURE.
        """
        ...

    def watch(self, from_revision: int) -> AsyncIterator[Sequence[Change]]:
        """Every change from `from_revision` on, durable ones only, in order, without holes, several at a time.

        Raises:
            HoldfastError: REVISION_COMPACTED, at the start or when the watcher falls behind a compaction.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forgets the history before `revision`; keys keep the value they had there.

        Raises:
            HoldfastError: REVISION_FUTURE.
        """
        ...

    async def close(self) -> None:
        """Finishes what is under way and lets go of files. Later commits are refused."""
        ...
