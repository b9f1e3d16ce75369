"""The embedded store: one SQLite file, durable when it answers.

One table holds every version of every key, as etcd's does; a NULL value is a deletion. The write-ahead log with
`synchronous=FULL` is synced before a commit returns, so an acknowledged write is on disk. All access happens on one
thread, so no reader keeps the log from being moved into the file.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import structlog

from holdfast.failpoints import Failpoint, hit
from holdfast.failpoints import Failpoint, hit
from holdfast.store.batching import BatchingStore, BatchStats, StoreBrokenError, WriteRefusedError
from holdfast.store.interface import Change, KeyValue, StoreFileError

APPLICATION_ID = 0x48464453
"""Marks the file as ours ("HFDS") in SQLite's header, for us and for file(1)."""

FIRST_VERSION = 1
"""Schema version that `_SCHEMA` makes."""

WAL_BYTES_MAX = 4 << 20
"""Size of the write-ahead log after which it is moved into the file and cut to nothing, as by SQLite's own default of
1 000 pages; it is larger by one batch at most.
"""

MIGRATIONS: tuple[str, ...] = ()
"""What makes of each schema version the next, from version 1 on; all that are due happen in one transaction."""

# Clustered by revision, so that writes append and watchers read in order; the index finds a key's versions.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE version (
  revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE INDEX version_by_key ON version (key, revision);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('epoch', 1), ('compact_revision', 0), ('revision', 0);
PRAGMA application_id = %d;
PRAGMA user_version = %d;
COMMIT;
"""

_SUPERSEDED = """
DELETE FROM version WHERE (revision, key) IN (
  SELECT older.revision, older.key FROM version AS newer
  JOIN version AS older ON older.key = newer.key AND older.revision < newer.revision
  WHERE newer.revision > :old AND newer.revision <= :new)
"""

_RANGE = """
SELECT key, value, max(revision) FROM version
WHERE key >= :low AND (:high IS NULL OR key < :high) AND revision <= :revision
GROUP BY key HAVING value IS NOT NULL ORDER BY key
"""

T = TypeVar("T")

log = structlog.get_logger()


class SqliteStore(BatchingStore):
    """The store in one file at `path`, beside which SQLite keeps its log and the store a lock. `open` it first."""

    def __init__(self, path: Path, on_batch: Callable[[BatchStats], None] | None = None) -> None:
        super().__init__(on_batch)
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
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
        self._lock_file = _lock(self._path)
        try:
            if self._path.exists() and self._path.stat().st_size:
                _inspect(self._path)
            self._connect()
            self._load()
        except sqlite3.Error as error:
            raise StoreFileError(_cannot_open(self._path, error)) from error

    def _connect(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        if _is_new(database):
            database.executescript(_SCHEMA % (APPLICATION_ID, FIRST_VERSION))
        _migrate(database)

    def _load(self) -> None:
        meta = dict(self._connection.execute("SELECT name, value FROM meta"))
        self._epoch, self._compact_revision = meta["epoch"], meta["compact_revision"]
        self._revision = meta["revision"]
        live = "SELECT key, max(revision), value IS NULL FROM version GROUP BY key"
        self._mod_revisions = {
            key: revision for key, revision, is_gone in self._connection.execute(live) if not is_gone
        }

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._database is not None, "the store is used before open or after close"
        return self._database

    def _write_rows(self, rows: Sequence[tuple[int, str, bytes | None]], revision: int) -> None:
        hit(Failpoint.BEFORE_BEGIN)
        with _transaction(self._connection) as database:
            hit(Failpoint.AFTER_BEGIN)
            database.executemany("INSERT INTO version (revision, key, value) VALUES (?, ?, ?)", rows)
            database.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
            hit(Failpoint.BEFORE_COMMIT)
        hit(Failpoint.AFTER_COMMIT)
        self._bound_log()

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

    def _rewrite_epoch(self) -> None:
        with _transaction(self._connection) as database:
            database.execute("UPDATE meta SET value = value WHERE name = 'epoch'")

    def _select_changes(self, after: int, limit: int) -> list[Change]:
        rows = self._connection.execute(
            "SELECT revision, key, value FROM version WHERE revision > ? AND revision <= ? ORDER BY revision",
            (after, after + limit),
        )
        return list(_changes(rows))

    def _select_range(self, prefix: str, revision: int) -> list[KeyValue]:
        low_high = {"low": prefix, "high": _after_prefix(prefix), "revision": revision}
        return [KeyValue(*row) for row in self._connection.execute(_RANGE, low_high)]

    def _delete_superseded(self, before: int) -> None:
        span = {"old": self._compact_revision, "new": before}
        with _transaction(self._connection) as database:
            database.execute(_SUPERSEDED, span)
            database.execute("DELETE FROM version WHERE revision > :old AND revision <= :new AND value IS NULL", span)
            database.execute("UPDATE meta SET value = :new WHERE name = 'compact_revision'", {"new": before})
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
        except sqlite3.Error as error:
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
        rows: list[tuple[int, str, bytes | None]] = []
        for change in changes:
            rows += [(change.revision, put.key, put.value) for put in change.puts]
            rows += [(change.revision, key, None) for key in change.deletes]
        await self._attempt_write(self._write_rows, rows, changes[-1].revision)

    async def _probe(self) -> None:
        await self._attempt_write(self._rewrite_epoch)

    async def _changes_after(self, revision: int, limit: int) -> list[Change]:
        return await self._attempt(self._select_changes, revision, limit)

    async def _read_range(self, prefix: str, revision: int) -> list[KeyValue]:
        return await self._attempt(self._select_range, prefix, revision)

    async def _forget(self, before: int) -> None:
        await self._attempt_write(self._delete_superseded, before)

    async def _shut(self) -> None:
        await self._run(self._disconnect)
        self._thread.shutdown()


def _lock(path: Path) -> int:
    """Takes the lock beside the store against a second server; the kernel frees it however we end."""
    if not path.parent.is_dir():
        raise StoreFileError(
            f"{path}: its folder does not exist. Make it, or name another place with --store sqlite:PATH."
        )
    try:
        lock_file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreFileError(
            f"{path}.lock: {error.strerror}. The server must be able to write beside its store."
        ) from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_file)
        raise StoreFileError(f"{path}: another server is using this store. Stop it, or name another file.") from error
    return lock_file


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commits at the end of the block, durably; an exception rolls everything back."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of the module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _inspect(path: Path) -> None:
    """Refuses a file that is not ours, newer or damaged, through a connection that cannot change it.

    Raises:
        StoreFileError: Why.
    """
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if _is_new(database):
            return
        _refuse_unknown(database, path)
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreFileError(
                f"{path}: the store is damaged: {found}. Restore it from a backup; it was left as it is."
            )
    finally:
        database.close()


def _migrate(database: sqlite3.Connection) -> None:
    """Brings an older schema up to date, all or nothing."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    due = MIGRATIONS[version - FIRST_VERSION :]
    if not due:
        return
    with _transaction(database):
        for step in due:
            for statement in step.split(";"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {version + len(due)}")


def _is_new(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)


def _refuse_unknown(database: sqlite3.Connection, path: Path) -> None:
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreFileError(
            f"{path}: a SQLite file, but no Holdfast store. Name another file with --store sqlite:PATH."
        )
    version = database.execute("PRAGMA user_version").fetchone()[0]
    known = FIRST_VERSION + len(MIGRATIONS)
    if version > known:
        raise StoreFileError(
            f"{path}: the store has schema {version}, this server knows up to {known}. "
            "Use the newer server that wrote it."
        )


def _cannot_open(path: Path, error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"{path}: the store cannot be opened: {error}. Check that the path is a file this user can write."
    return f"{path}: no Holdfast store, or a damaged one: {error}. Restore it from a backup; it was left as it is."


def _changes(rows: Iterator[tuple[int, str, bytes | None]] | sqlite3.Cursor) -> Iterator[Change]:
    for revision, versions in groupby(rows, key=lambda row: row[0]):
        written = [(key, value) for _, key, value in versions]
        yield Change(
            revision,
            tuple(KeyValue(key, value, revision) for key, value in written if value is not None),
            tuple(key for key, value in written if value is None),
        )


def _after_prefix(prefix: str) -> str | None:
    """The smallest string greater than all that start with `prefix`; None where there is none."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None
