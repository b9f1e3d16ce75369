"""Group commit: what all engines of one process share.

Transactions that arrive while a write is under way are decided and written together, in the order they came, so one
fsync serves many callers. Decisions happen on the event loop against a map of key to revision in memory; only the
write itself happens elsewhere (the engine's thread), one batch at a time. Nothing in memory moves before the engine
reports the batch durable, so a failed write needs no undoing, and watchers never see what a crash could take back.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from holdfast.store.interface import Change, Committed, Conflict, KeyValue, Txn
from holdfast.store.recent import RecentChanges
from holdfast.store.refusals import compacted, future, overloaded, unavailable

QUEUE_MAX = 10_000
"""Most transactions that wait for a write; more are refused with OVERLOADED."""

QUEUE_BYTES_MAX = 64 << 20
"""Most bytes that wait for a write, and one transaction; more are refused with OVERLOADED."""

BATCH_BYTES_MAX = 16 << 20
"""Bytes after which a batch takes no more in, so that neither a write nor the engine's log is without bound."""

GATHER_S = 0.0005
"""A wait for company; another follows as long as somebody came. Callers that were answered together come back one after
the other, as fast as the server reads them. At 32 callers: batches of 25 instead of 3, and 30 % more calls for each CPU
second, most of it saved where gRPC sends many answers at once.
"""

GATHER_S_MAX = 0.010
"""Longest wait for company, however many still come."""

HISTORY_PAGE = 1024
"""Revisions read back from the engine at a time."""

COMPACTED_AT_ONCE = 250
"""Revisions compacted without a pause, some 10 ms with their fsync: writes wait for no more than that."""


@dataclass(slots=True)
class BatchStats:
    """What happened to one batch, for metrics."""

    size: int
    seconds: float
    failed: bool


@dataclass(slots=True)
class _Waiting:
    txn: Txn
    size_bytes: int
    outcome: asyncio.Future[Committed | Conflict]


@dataclass(slots=True)
class _Batch:
    """Transactions decided in order, each seeing those before it. `mod_revisions` is 0 for a key that is deleted."""

    changes: list[Change] = field(default_factory=list)
    outcomes: list[tuple[_Waiting, Committed | Conflict]] = field(default_factory=list)
    mod_revisions: dict[str, int] = field(default_factory=dict)


class WriteRefusedError(Exception):
    """The engine could not write: nothing happened, and a later write may succeed. The disk is full, most often."""


class StoreBrokenError(Exception):
    """The engine failed, and nobody knows what of a write is durable: it may have happened, whole, or not at all.

    There is no going on from here. A kernel that failed to sync may drop what was not written and report success the
    next time (https://wiki.postgresql.org/wiki/Fsync_Errors), so only a new process can tell: it shows nothing that it
    found before it has written that again and synced it.
    """


class BatchingStore(ABC):
    """The store of one process over an engine that writes batches of changes.

    Engines give `open`, `_write`, `_probe`, `_changes_after`, `_read_range`, `_forget` and `_shut`, all of which
    may take their time.

    Attributes:
        on_refusing: Called with True when writes begin to be refused, and with False when one succeeds again.
    """

    is_shared = False

    def __init__(self, on_batch: Callable[[BatchStats], None] | None = None) -> None:
        self.on_refusing: Callable[[bool], None] = lambda _is_refusing: None
        self._on_batch = on_batch or (lambda _stats: None)
        self._mod_revisions: dict[str, int] = {}
        self._revision = 0
        self._compact_revision = 0
        self._epoch = 1
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._recent = RecentChanges()
        self._advanced = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._last_batch = 1
        self._is_refusing = False
        self._broken: asyncio.Future[None] | None = None
        self._end: StoreBrokenError | None = None
        self._closed = False

    # What engines provide.

    @abstractmethod
    async def open(self) -> None:
        """See Store: sets the epoch, the revisions and the revision of each key."""

    @abstractmethod
    async def _write(self, changes: Sequence[Change]) -> None:
        """Makes the changes durable, all or none. Raises WriteRefusedError or StoreBrokenError."""

    @abstractmethod
    async def _probe(self) -> None:
        """Writes durably, and changes nothing. Raises WriteRefusedError or StoreBrokenError."""

    @abstractmethod
    async def _changes_after(self, revision: int, limit: int) -> list[Change]:
        """At most `limit` durable changes after a revision, in order. Raises StoreBrokenError."""

    @abstractmethod
    async def _read_range(self, prefix: str, revision: int) -> list[KeyValue]:
        """The keys below a prefix as they were at a revision, in order. Raises StoreBrokenError."""

    @abstractmethod
    async def _forget(self, before: int) -> None:
        """Drops what was overwritten or deleted up to a revision. Raises WriteRefusedError or StoreBrokenError."""

    @abstractmethod
    async def _shut(self) -> None:
        """Lets go of files and threads."""

    # The interface.

    @property
    def epoch(self) -> int:
        """See Store."""
        return self._epoch

    @property
    def revision(self) -> int:
        """See Store."""
        return self._revision

    @property
    def compact_revision(self) -> int:
        """See Store."""
        return self._compact_revision

    async def current_revision(self) -> int:
        """See Store: with one process, the revision it knows is the newest."""
        return self._revision

    @property
    def is_refusing(self) -> bool:
        """Whether the last write was refused, and none has succeeded since."""
        return self._is_refusing

    async def probe(self) -> None:
        """Finds out whether writes are still refused, by one that changes nothing."""
        try:
            await self._probe()
        except (WriteRefusedError, StoreBrokenError) as error:
            self._note(error)
        else:
            self._set_refusing(False)

    @property
    def failure(self) -> StoreBrokenError | None:
        """Why nothing can be promised any more, if so."""
        return self._end

    async def broken(self) -> None:
        """Returns never; raises StoreBrokenError once nobody knows what is durable: the process must end then."""
        if self._broken is None:
            self._broken = asyncio.get_running_loop().create_future()
        if self._end is not None:
            raise self._end
        await asyncio.shield(self._broken)

    def commit(self, txn: Txn) -> asyncio.Future[Committed | Conflict]:
        """See Store."""
        if self._closed:
            raise unavailable("it is closed")
        if self._end is not None:
            raise unavailable(str(self._end))
        if len(self._queue) >= QUEUE_MAX or self._queue_bytes >= QUEUE_BYTES_MAX:
            raise overloaded(len(self._queue), self._queue_bytes)
        txn.check()
        outcome: asyncio.Future[Committed | Conflict] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(txn, txn.size_bytes, outcome)
        self._queue.append(waiting)
        self._queue_bytes += waiting.size_bytes
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_queue())
        return outcome

    async def range(self, prefix: str, revision: int = 0) -> tuple[int, list[KeyValue]]:
        """See Store."""
        at = revision or self._revision
        if at < self._compact_revision:
            raise compacted(at, self._compact_revision)
        if at > self._revision:
            raise future(at, self._revision)
        try:
            return at, await self._read_range(prefix, at)
        except StoreBrokenError as error:
            raise unavailable(str(error)) from error

    async def watch(self, from_revision: int) -> AsyncGenerator[Sequence[Change], None]:
        """See Store. Watchers share one log of recent changes, so a slow one costs no memory."""
        position = from_revision - 1
        while True:
            if position < self._compact_revision:
                raise compacted(from_revision, self._compact_revision)
            if position >= self._revision:
                await self._advanced.wait()
                continue
            changes = await self._read_changes(position)
            position = changes[-1].revision
            yield changes

    async def compact(self, revision: int) -> None:
        """See Store. In steps, between which others are written."""
        if revision > self._revision:
            raise future(revision, self._revision)
        while self._compact_revision < revision:
            try:
                await self._compact_piece(self._compact_revision, revision)
            except (WriteRefusedError, StoreBrokenError) as error:
                self._note(error)
                raise unavailable(str(error)) from error

    async def _compact_piece(self, after: int, before: int) -> None:
        step = min(before, await self._compacted_at_once(after))
        if after != self._compact_revision:  # somebody else compacts as well
            return
        self._compact_revision = step  # before it is so: a read that comes meanwhile would find half of it
        try:
            await self._forget(step)
        except WriteRefusedError:
            self._compact_revision = after
            raise

    async def close(self) -> None:
        """See Store. What is broken is left alone: closing a file may write to it. The process must end."""
        self._closed = True
        if self._writer is not None:
            await self._writer
        if self._end is None:
            await self._shut()

    async def _compacted_at_once(self, after: int) -> int:
        """The revision up to which compaction goes on from one without a pause."""
        return after + COMPACTED_AT_ONCE

    # Writing.

    async def _write_queue(self) -> None:
        """Writes batch after batch until nobody waits."""
        try:
            while self._queue:
                await self._gather()
                await self._write_batch()
        finally:
            self._writer = None

    async def _gather(self) -> None:
        """Waits for company while it comes, if the batch before had some: a lone caller never waits."""
        if self._last_batch == 1:
            await asyncio.sleep(0)
            return
        clock, there = asyncio.get_running_loop().time, 0
        until_s = clock() + GATHER_S_MAX
        while there < len(self._queue) and clock() < until_s:
            there = len(self._queue)
            await asyncio.sleep(GATHER_S)

    async def _write_batch(self) -> None:
        waiting = self._next_batch()
        self._last_batch = len(waiting)
        started_s = time.perf_counter()
        try:
            batch = self._decide(waiting)
            if batch.changes:
                await self._write(batch.changes)
                self._set_refusing(False)
        except (WriteRefusedError, StoreBrokenError) as error:
            self._on_batch(BatchStats(len(waiting), time.perf_counter() - started_s, failed=True))
            self._note(error)
            while self._end is not None and self._queue:
                waiting += self._next_batch()
            self._fail(waiting, error)
            return
        except Exception as error:  # a defect: nobody may be left waiting for it
            broken = StoreBrokenError(f"internal error: {error!r}")
            self._note(broken)
            self._fail(waiting, broken)
            raise
        self._on_batch(BatchStats(len(waiting), time.perf_counter() - started_s, failed=False))
        self._apply(batch.changes, batch.mod_revisions)
        for waited, outcome in batch.outcomes:
            if not waited.outcome.done():
                waited.outcome.set_result(outcome)

    def _next_batch(self) -> list[_Waiting]:
        """Takes those who waited longest, as many as fit and at least one."""
        taken: list[_Waiting] = []
        size_bytes = 0
        while self._queue and (not taken or size_bytes + self._queue[0].size_bytes <= BATCH_BYTES_MAX):
            taken.append(self._queue.popleft())
            size_bytes += taken[-1].size_bytes
        self._queue_bytes -= size_bytes
        return taken

    def _note(self, error: WriteRefusedError | StoreBrokenError) -> None:
        """Remembers what a failure means for later writes."""
        if isinstance(error, WriteRefusedError):
            self._set_refusing(True)
            return
        self._end = self._end or error
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(self._end)
            self._broken.exception()  # whoever waits raises it

    def _set_refusing(self, is_refusing: bool) -> None:
        if is_refusing != self._is_refusing:
            self._is_refusing = is_refusing
            self.on_refusing(is_refusing)

    def _fail(self, waiting: Sequence[_Waiting], error: Exception) -> None:
        for waited in waiting:
            if not waited.outcome.done():
                waited.outcome.set_exception(unavailable(str(error)))

    def _decide(self, waiting: Sequence[_Waiting]) -> _Batch:
        batch = _Batch()
        revision, there, written = self._revision, self._mod_revisions, batch.mod_revisions
        for waited in waiting:
            txn = waited.txn
            if any(written.get(key, there.get(key, 0)) != expected for key, expected in txn.compares):
                batch.outcomes.append((waited, Conflict(revision)))
                continue
            deletes = tuple(key for key in txn.deletes if written.get(key, there.get(key, 0)))
            if txn.puts or deletes:
                revision += 1
                puts = tuple(KeyValue(key, value, revision) for key, value in txn.puts)
                batch.changes.append(Change(revision, puts, deletes))
                written.update((key, revision) for key, _ in txn.puts)
                written.update((key, 0) for key in deletes)
            batch.outcomes.append((waited, Committed(revision)))
        return batch

    def _apply(self, changes: Sequence[Change], mod_revisions: dict[str, int]) -> None:
        if not changes:
            return
        for key, revision in mod_revisions.items():
            if revision:
                self._mod_revisions[key] = revision
            else:
                self._mod_revisions.pop(key, None)
        self._recent.extend(changes)
        self._revision = changes[-1].revision
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()  # before those who wrote are told, so that a view has it when they look

    # Watching.

    async def _read_changes(self, after: int) -> Sequence[Change]:
        """At least one change after a revision that is not the newest."""
        if recent := self._recent.after(after, HISTORY_PAGE):
            return recent
        try:
            changes = await self._changes_after(after, HISTORY_PAGE)
        except StoreBrokenError as error:
            raise unavailable(str(error)) from error
        known = [change for change in changes if change.revision <= self._revision]
        if not known or known[0].revision != after + 1:  # a compaction came in between
            raise compacted(after + 1, self._compact_revision)
        return known
