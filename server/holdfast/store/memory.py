"""The store for tests and trials: everything is gone when the process ends."""

import bisect
from collections.abc import Callable, Sequence

from holdfast.store.batching import BatchingStore, BatchStats
from holdfast.store.interface import Change, KeyValue


class MemoryStore(BatchingStore):
    """The semantics of every engine, and no durability."""

    def __init__(self, on_batch: Callable[[BatchStats], None] | None = None) -> None:
        super().__init__(on_batch)
        self._versions: dict[str, list[tuple[int, bytes | None]]] = {}
        self._changes: list[Change] = []

    async def open(self) -> None:
        """There is nothing to open."""

    async def _write(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for put in change.puts:
                self._versions.setdefault(put.key, []).append((change.revision, put.value))
            for key in change.deletes:
                self._versions.setdefault(key, []).append((change.revision, None))
        self._changes.extend(changes)

    async def _probe(self) -> None:
        """Memory always takes more."""

    async def _changes_after(self, revision: int, limit: int) -> list[Change]:
        first = bisect.bisect_right(self._changes, revision, key=lambda change: change.revision)
        return self._changes[first : first + limit]

    async def _read_range(self, prefix: str, revision: int) -> list[KeyValue]:
        found = []
        for key in sorted(key for key in self._versions if key.startswith(prefix)):
            written = [version for version in self._versions[key] if version[0] <= revision]
            if written and written[-1][1] is not None:
                found.append(KeyValue(key, written[-1][1], written[-1][0]))
        return found

    async def _forget(self, before: int) -> None:
        for key, versions in list(self._versions.items()):
            older = [version for version in versions if version[0] <= before]
            kept = [version for version in older[-1:] if version[1] is not None] + versions[len(older) :]
            if kept:
                self._versions[key] = kept
            else:
                del self._versions[key]
        self._changes = await self._changes_after(before, len(self._changes))

    async def _shut(self) -> None:
        self._versions.clear()
