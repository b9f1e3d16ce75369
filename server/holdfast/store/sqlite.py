"""The embedded store: one SQLite file, durable when it answers.

One table holds every version of every key, as etcd's does; a NULL value is a deletion. The write-ahead log with
`synchronous=FULL` is synced before a commit returns, so an acknowledged write is on disk. All access happens on one
thread, and nobody else may open the file, so no reader keeps the log from being moved into it.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import structlog

from holdfast.failpoints import Failpoint, hit
from holdfast.store.batching import BatchingStore, BatchStats, StoreBrokenError, WriteRefusedError
from holdfast.store.interface import Change, KeyValue
from holdfast.store.sqlite_file import (
    DamagedError,
    check,
    checksum_of,
    lock,
    meta_checksum_of,
    open_file,
    transaction,
)
from holdfast.store.sqlite_log import log_of

WAL_BYTES_MAX = 4 << 20
"""Size of the write-ahead log after which it is moved into the file and cut to nothing, as by SQLite's own default of
1 000 pages; it is larger by one batch at most.
"""

PAGE_BYTES_MAX = 8 << 20
"""Bytes of changes after which one reading ends, at the end of a revision: late watchers must not fill the memory."""

COMPACTED_AT_ONCE = 2_000
"""Versions that compaction looks at without a pause, and those of one revision more."""

_SUPERSEDED = """
DELETE FROM version WHERE (revision, key) IN (
  SELECT older.revision, older.key FROM version AS newer
  JOIN version AS older ON older.key = newer.key AND older.revision < newer.revision
  WHERE newer.revision > :old AND newer.revision <= :new)
"""

_RANGE = """
SELECT max(revision), key, value, checksum FROM version
WHERE key >= :low AND key < :high AND revision <= :revision
GROUP BY key HAVING value IS NOT NULL ORDER BY key
"""

_EVERYTHING = "SELECT revision, key, value, checksum FROM version WHERE revision <= ? ORDER BY revision"
"""In the order of the file, which is three times as fast as by key."""

_CHANGES = """
SELECT revision, key, value, checksum FROM version WHERE revision > ? AND revision <= ? ORDER BY revision
"""

Version = tuple[int, str, bytes | None, int]
"""Revision, key, value (None: deleted) and checksum."""

T = TypeVar("T")

log = structlog.get_logger()


class SqliteStore(BatchingStore):
    """The store in one file at `path`, beside which SQLite keeps its log and the store a lock. `open` it first.

    Links are followed once, here: SQLite keeps its log beside what they lead to, and everyone must mean that file.
    """

    def __init__(self, path: Path, on_batch: Callable[[BatchStats], None] | None = None) -> None:
        super().__init__(on_batch)
        self._path = Path(os.path.realpath(path))
        self._log = log_of(self._path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._lock_file: int | None = None
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Opens the file, made anew if there is none.

        Raises:
            StoreFileError: The file is foreign, damaged, of a newer version, in use, or cannot be opened. It is
                left as it was.
        """
        try:
            await self._run(self._open)
        except BaseException:
            await self._run(self._disconnect)
            raise

    # On the store's thread.

    def _open(self) -> None:
        self._lock_file = lock(self._path)
        self._database, content = open_file(self._path)
        self._epoch, self._compact_revision = content.epoch, content.compact_revision
        self._revision, self._mod_revisions = content.revision, content.mod_revisions

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._database is not None, "the store is used before open or after close"
        return self._database

    def _write_rows(self, rows: Sequence[Version], revision: int) -> None:
        hit(Failpoint.BEFORE_BEGIN)
        with transaction(self._connection) as database:
            hit(Failpoint.AFTER_BEGIN)
            database.executemany("INSERT INTO version (revision, key, value, checksum) VALUES (?, ?, ?, ?)", rows)
            self._write_meta(revision=revision)
            hit(Failpoint.BEFORE_COMMIT)
        hit(Failpoint.AFTER_COMMIT)
        self._bound_log()

    def _write_meta(self, **changed: int) -> None:
        """Changes some of the numbers that stand for the whole, in the transaction that is open."""
        meta = dict(self._connection.execute("SELECT name, value FROM meta")) | changed
        checksum = meta_checksum_of(meta["epoch"], meta["compact_revision"], meta["revision"])
        rows = [(value, name) for name, value in (changed | {"checksum": checksum}).items()]
        self._connection.executemany("UPDATE meta SET value = ? WHERE name = ?", rows)

    def _bound_log(self) -> None:
        """Moves the log into the file once it is large. The file is synced before the log is cut."""
        if self._log.stat().st_size < WAL_BYTES_MAX:
            return
        hit(Failpoint.BEFORE_CHECKPOINT)
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            if _primary(error) != sqlite3.SQLITE_FULL:
                raise
            log.warning("checkpoint_refused", path=str(self._path), error=str(error))  # the log holds everything
        hit(Failpoint.AFTER_CHECKPOINT)

    def _rewrite_meta(self) -> None:
        with transaction(self._connection):
            self._write_meta()

    def _select_changes(self, after: int, limit: int) -> list[Change]:
        found: list[Change] = []
        size_bytes = 0
        for change in _changes(_checked(self._connection.execute(_CHANGES, (after, after + limit)))):
            found.append(change)
            size_bytes += change.size_bytes
            if size_bytes >= PAGE_BYTES_MAX:
                break
        return found

    def _select_range(self, prefix: str, revision: int) -> list[KeyValue]:
        if not prefix:
            return self._select_everything(revision)
        span = {"low": prefix, "high": _after_prefix(prefix), "revision": revision}
        rows = _checked(self._connection.execute(_RANGE, span))
        return [KeyValue(key, value, at) for at, key, value, _ in rows if value is not None]

    def _select_everything(self, revision: int) -> list[KeyValue]:
        found: dict[str, KeyValue] = {}
        for at, key, value, _ in _checked(self._connection.execute(_EVERYTHING, (revision,))):
            if value is None:
                found.pop(key, None)
            else:
                found[key] = KeyValue(key, value, at)
        return [found[key] for key in sorted(found)]

    def _select_revision(self, after: int, versions: int) -> int | None:
        """The revision that is so many versions further, if there is one."""
        row = self._connection.execute(
            "SELECT revision FROM version WHERE revision > ? ORDER BY revision, key LIMIT 1 OFFSET ?", (after, versions)
        ).fetchone()
        return None if row is None else int(row[0])

    def _delete_superseded(self, before: int) -> None:
        with transaction(self._connection) as database:
            compacted = database.execute("SELECT value FROM meta WHERE name = 'compact_revision'").fetchone()[0]
            span = {"old": compacted, "new": before}
            database.execute(_SUPERSEDED, span)
            database.execute("DELETE FROM version WHERE revision > :old AND revision <= :new AND value IS NULL", span)
            self._write_meta(compact_revision=before)
        self._bound_log()

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    # On the event loop.

    async def _run(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def _attempt(self, call: Callable[..., T], *args: object) -> T:
        try:
            return await self._run(call, *args)
        except (sqlite3.Error, DamagedError) as error:
            raise StoreBrokenError(f"{self._path}: {error}") from error

    async def _attempt_write(self, call: Callable[..., T], *args: object) -> T:
        try:
            return await self._run(call, *args)
        except sqlite3.Error as error:
            why = f"{self._path}: {error}"
            if _primary(error) == sqlite3.SQLITE_FULL and not self._connection.in_transaction:
                raise WriteRefusedError(f"{why}; nothing was written. Make room on its disk") from error
            raise StoreBrokenError(why) from error

    async def _write(self, changes: Sequence[Change]) -> None:
        await self._attempt_write(self._write_rows, list(_rows(changes)), changes[-1].revision)

    async def _probe(self) -> None:
        await self._attempt_write(self._rewrite_meta)

    async def _changes_after(self, revision: int, limit: int) -> list[Change]:
        return await self._attempt(self._select_changes, revision, limit)

    async def _read_range(self, prefix: str, revision: int) -> list[KeyValue]:
        return await self._attempt(self._select_range, prefix, revision)

    async def _compacted_at_once(self, after: int) -> int:
        by_count = await super()._compacted_at_once(after)
        by_versions = await self._attempt(self._select_revision, after, COMPACTED_AT_ONCE)
        return by_count if by_versions is None else min(by_count, by_versions)

    async def _forget(self, before: int) -> None:
        await self._attempt_write(self._delete_superseded, before)

    async def _shut(self) -> None:
        await self._run(self._disconnect)
        self._thread.shutdown()


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of the module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _rows(changes: Sequence[Change]) -> Iterator[Version]:
    for change in changes:
        for put in change.puts:
            yield change.revision, put.key, put.value, checksum_of(change.revision, put.key, put.value)
        for key in change.deletes:
            yield change.revision, key, None, checksum_of(change.revision, key, None)


def _checked(rows: sqlite3.Cursor) -> Iterator[Version]:
    for row in rows:
        check(*row)
        yield row


def _changes(rows: Iterator[Version]) -> Iterator[Change]:
    for revision, versions in groupby(rows, key=lambda row: row[0]):
        written = [(key, value) for _, key, value, _ in versions]
        yield Change(
            revision,
            tuple(KeyValue(key, value, revision) for key, value in written if value is not None),
            tuple(key for key, value in written if value is None),
        )


def _after_prefix(prefix: str) -> str:
    """The smallest string greater than all that start with `prefix`, which is not empty."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
