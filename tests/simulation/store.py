"""A store that crashes, stalls and refuses, over a disk that keeps exactly what was written to it."""

import asyncio
import contextvars
import functools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.store.batching import BatchingStore, StoreBrokenError, WriteRefusedError
from holdfast.store.interface import Change, Committed, Conflict, KeyValue, Txn
from holdfast.store.memory import MemoryStore
from holdfast.store.refusals import unavailable
from simulation.loop import NODE, Pausable

WRITE_S_MAX = 0.01
"""Longest write, when nothing is wrong."""

SLOW = 0.03
"""Share of the news from a shared store that takes long."""

NEWS_S_MAX = 5.0
"""Longest way of such news."""

REPLY_LOST = 0.01
"""Share of the answers to commits that never come back from a shared store."""


class Observer(Protocol):
    """Told of what happens in a store."""

    def written(self, changes: Sequence[Change]) -> None:
        """This reached the disk."""

    def committed(self, txn: Txn, *, is_known: bool) -> None:
        """A replica's transaction was committed, and it knows, or its answer was lost."""


@dataclass(slots=True)
class Disk:
    """What survives a crash."""

    versions: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    compact_revision: int = 0


class SimulatedStore(MemoryStore):
    """The product's group commit over a disk.

    Args:
        disk: What it opens.
        rng: How long writes take.
        observer: Told of what happens.
        is_shared: Whether replicas share it; then it belongs to none of them.
    """

    def __init__(self, disk: Disk, rng: random.Random, observer: Observer, *, is_shared: bool) -> None:
        super().__init__()
        self.is_shared = is_shared  # type: ignore[misc]
        self.is_refusing_writes = False
        self.breaks_next: bool | None = None
        self.cut_off: set[Pausable | None] = set()
        self.on_broken: Callable[[], None] = lambda: None
        self._disk = disk
        self._rng = rng
        self._observer = observer
        self._context = contextvars.copy_context() if is_shared else None
        self._is_dead = False
        self._load()

    def _load(self) -> None:
        self._versions, self._changes = self._disk.versions, self._disk.changes
        self._compact_revision = self._disk.compact_revision
        self._revision = self._changes[-1].revision if self._changes else self._compact_revision
        self._durable = self._revision
        for key, versions in self._versions.items():
            if versions[-1][1] is not None:
                self._mod_revisions[key] = versions[-1][0]

    def crash(self) -> None:
        """Nothing reaches the disk any more."""
        self._is_dead = True
        if self._writer is not None:
            self._writer.cancel()

    def commit(self, txn: Txn) -> "asyncio.Future[Committed | Conflict]":
        """See Store."""
        if self._context is None:
            return super().commit(txn)
        self._check()
        committing = self._context.run(BatchingStore.commit, self, txn)
        answer: asyncio.Future[Committed | Conflict] = asyncio.get_running_loop().create_future()
        committing.add_done_callback(functools.partial(self._answer, txn, answer))
        return answer

    def _answer(
        self,
        txn: Txn,
        answer: "asyncio.Future[Committed | Conflict]",
        committing: "asyncio.Future[Committed | Conflict]",
    ) -> None:
        """The way back to the replica that asked, whose context this runs in; it may have been cut off meanwhile."""
        error = committing.exception()
        is_lost = NODE.get() in self.cut_off or self._rng.random() < REPLY_LOST
        if error is None and isinstance(committing.result(), Committed):
            self._observer.committed(txn, is_known=not is_lost)
        if answer.done():
            return
        if is_lost:
            answer.set_exception(unavailable("its answer was lost"))
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(committing.result())

    async def range(self, prefix: str, revision: int = 0) -> tuple[int, list[KeyValue]]:
        """See Store."""
        await self._reachable()
        return await super().range(prefix, revision)

    async def compact(self, revision: int) -> None:
        """See Store."""
        self._check()
        await super().compact(revision)

    async def watch(self, from_revision: int) -> AsyncIterator[Sequence[Change]]:
        """See Store. Where it is shared, news takes its time, and now and then a long time."""
        async for changes in super().watch(from_revision):
            if self.is_shared:
                is_slow = self._rng.random() < SLOW
                await asyncio.sleep(self._rng.uniform(0, NEWS_S_MAX if is_slow else WRITE_S_MAX))
                await self._reachable()
            yield changes

    async def current_revision(self) -> int:
        """See Store."""
        await self._reachable()
        return await super().current_revision()

    def _check(self) -> None:
        if NODE.get() in self.cut_off:
            raise unavailable("it cannot be reached")

    async def _reachable(self) -> None:
        while NODE.get() in self.cut_off:  # noqa: ASYNC110 - virtual time, and links set no event
            await asyncio.sleep(0.1)

    async def _write(self, changes: Sequence[Change]) -> None:
        await asyncio.sleep(self._rng.uniform(0, WRITE_S_MAX))
        if self._is_dead or self.is_refusing_writes:
            raise WriteRefusedError("the disk is full")
        breaks, self.breaks_next = self.breaks_next, None
        if breaks is not False:
            for change in changes:
                self._durable += 1
                assert change.revision == self._durable, f"revision {change.revision} is written as {self._durable}"
            await super()._write(changes)
            self._observer.written(changes)
        if breaks is not None:
            self.on_broken()
            raise StoreBrokenError("the disk failed to sync")
        await asyncio.sleep(self._rng.uniform(0, WRITE_S_MAX))

    async def _forget(self, before: int) -> None:
        await super()._forget(before)
        self._disk.changes, self._disk.compact_revision = self._changes, before

    async def _shut(self) -> None:
        """The disk stays."""
