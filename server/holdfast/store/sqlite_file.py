"""The file of the embedded store: its lock, its schema, and whether what is in it can be trusted.

SQLite finds damage in the structure of its own file only. Every version carries a checksum, so that a value, key or
revision that the disk changed is found, too, and history without holes tells of versions that went missing.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from holdfast.store.interface import StoreFileError
from holdfast.store.sqlite_log import log_of, settle

APPLICATION_ID = 0x48464453
"""Marks the file as ours ("HFDS") in SQLite's header, for us and for file(1)."""

FIRST_VERSION = 1
"""Schema version that `_SCHEMA` makes."""

MIGRATIONS: tuple[str, ...] = (
    # To 2: checksums.
    """
    ALTER TABLE version ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    UPDATE version SET checksum = checksum_of(revision, key, value);
    INSERT INTO meta SELECT 'checksum', meta_checksum_of(epoch.value, compact.value, newest.value)
      FROM meta AS epoch, meta AS compact, meta AS newest
      WHERE epoch.name = 'epoch' AND compact.name = 'compact_revision' AND newest.name = 'revision'
    """,
)
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


class DamagedError(Exception):
    """What was read is not what was written."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a store must know of its file to begin."""

    epoch: int
    compact_revision: int
    revision: int
    mod_revisions: dict[str, int]


def open_file(path: Path) -> tuple[sqlite3.Connection, Content]:
    """Opens the file of a store whose lock is held, made anew if there is none, and brought up to date if it is older.

    What it returns is durable, whoever wrote it. The log is settled once the file is known to be ours, and before it is
    read, so that what is read is what is on the disk.

    Raises:
        StoreFileError: It cannot be trusted, or not be opened; it was left as it is.
    """
    try:
        if not path.exists() or not path.stat().st_size:
            _create(path)
        _recognise(path)
        settle(path)
        found = _inspect(path)
        database = _connect(path)
        try:
            return database, found or _read(database)
        except BaseException:
            database.close()
            raise
    except DamagedError as error:
        raise StoreFileError(
            f"{path}: the store is damaged: {error}. Restore it from a backup; it was left as it is."
        ) from error
    except sqlite3.Error as error:
        raise StoreFileError(_cannot_open(path, error)) from error
    except UnicodeDecodeError as error:  # SQLite quotes what it cannot make sense of in its messages
        raise StoreFileError(
            f"{path}: the store is damaged: SQLite speaks of what is no text. Restore it from a backup; it was left as "
            "it is."
        ) from error
    except OSError as error:
        raise StoreFileError(
            f"{path}: nobody knows whether what is in it is on its disk: {error}. Check that the disk works and has "
            "room, and that this user can write to the store and its folder; it was left as it is."
        ) from error


def lock(path: Path) -> int:
    """Takes the lock beside the store against a second server; the kernel frees it however we end.

    Raises:
        StoreFileError: It is taken, or cannot be made.
    """
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
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commits at the end of the block, durably; an exception rolls everything back."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def checksum_of(revision: int, key: str, value: bytes | None) -> int:
    """Of one version, its revision and key included: one that strayed is as wrong as one that changed."""
    if value is None:
        return crc32(f"{revision}!{key}".encode())
    return crc32(value, crc32(f"{revision}:{key}".encode()))


def meta_checksum_of(epoch: int, compact_revision: int, revision: int) -> int:
    """Of the numbers that stand for the whole file."""
    return crc32(f"{epoch}:{compact_revision}:{revision}".encode())


def check(revision: int, key: str, value: bytes | None, checksum: int) -> None:
    """Refuses a version that is not as it was written.

    Raises:
        DamagedError: Names the version.
    """
    if checksum != checksum_of(revision, key, value):
        raise DamagedError(f"{key!r} as of revision {revision} is not as it was written")


def _create(path: Path) -> None:
    """Whole or not at all, so that a kill in the middle leaves no file that would have to be explained.

    Its name is not durable before the file is settled.
    """
    log = log_of(path)
    if log.exists() and log.stat().st_size:
        raise StoreFileError(
            f"{path}: the file is missing or empty, and its log {log} is there. Put back the file that belongs to it, "
            "or move the log away to begin anew."
        )
    draft = path.with_name(f"{path.name}.new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    _connect(draft).close()
    draft.replace(path)


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that is alone with its file: a reader from elsewhere could keep the log from ever being cut."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        if _is_new(database):
            database.executescript(_SCHEMA % (APPLICATION_ID, FIRST_VERSION))
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection) -> None:
    """Brings an older schema up to date, all or nothing."""
    due = _due(database)
    if not due:
        return
    database.create_function("checksum_of", 3, checksum_of, deterministic=True)
    database.create_function("meta_checksum_of", 3, meta_checksum_of, deterministic=True)
    with transaction(database):
        for step in due:
            for statement in step.split(";"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {FIRST_VERSION + len(MIGRATIONS)}")


def _due(database: sqlite3.Connection) -> tuple[str, ...]:
    """What is to be done to bring its schema up to date."""
    return MIGRATIONS[int(database.execute("PRAGMA user_version").fetchone()[0]) - FIRST_VERSION :]


@contextmanager
def _reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot change the file."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        yield database


def _recognise(path: Path) -> None:
    """Looks at no more than whose file it is.

    Raises:
        StoreFileError: It is not ours, or newer.
        DamagedError: It cannot be trusted.
    """
    with _reader(path) as database:
        if not _is_new(database):
            _refuse_unknown(database, path)


def _inspect(path: Path) -> Content | None:
    """Reads the whole file, as it will be once it is up to date; None if there is nothing in it.

    An older one is brought up to date in memory first, so that whatever may go wrong does before the file is touched:
    new checksums would vouch for what was never checked.

    Raises:
        DamagedError: It cannot be trusted.
    """
    with _reader(path) as database:
        if _is_new(database):
            return None
        found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise DamagedError(str(found))
        if not _due(database):
            return _read(database)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            database.backup(copy)
            _migrate(copy)
            return _read(copy)


def _read(database: sqlite3.Connection) -> Content:
    """Everything once, in the order it was written."""
    meta = dict(database.execute("SELECT name, value FROM meta"))
    content = Content(meta.get("epoch", -1), meta.get("compact_revision", -1), meta.get("revision", -1), {})
    if meta.get("checksum") != meta_checksum_of(content.epoch, content.compact_revision, content.revision):
        raise DamagedError("the numbers that stand for the whole are not as they were written")
    last = _take_in(database, content)
    if last != content.revision:
        raise DamagedError(f"its history ends at revision {last}, and should end at {content.revision}")
    return content


def _take_in(database: sqlite3.Connection, content: Content) -> int:
    """Fills the revisions of keys; returns the newest revision found."""
    last, mod_revisions = content.compact_revision, content.mod_revisions
    for revision, key, value, checksum in database.execute(
        "SELECT revision, key, value, checksum FROM version ORDER BY revision"
    ):
        check(revision, key, value, checksum)
        if value is None:
            mod_revisions.pop(key, None)
        else:
            mod_revisions[key] = revision
        if revision > last:
            if revision != last + 1:
                raise DamagedError(f"revision {revision} follows {last}: what was between is missing")
            last = revision
    return last


def _is_new(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)


def _refuse_unknown(database: sqlite3.Connection, path: Path) -> None:
    """Refuses what is no store, or none that we know."""
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreFileError(
            f"{path}: a SQLite file, but no Holdfast store. Name another file with --store sqlite:PATH."
        )
    version, known = int(database.execute("PRAGMA user_version").fetchone()[0]), FIRST_VERSION + len(MIGRATIONS)
    if version > known:
        raise StoreFileError(
            f"{path}: the store has schema {version}, this server knows up to {known}. "
            "Use the newer server that wrote it."
        )
    if version < FIRST_VERSION:
        raise DamagedError(f"it has schema {version}, which there never was")


def _cannot_open(path: Path, error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"{path}: the store cannot be opened: {error}. Check that the path is a file this user can write."
    return f"{path}: no Holdfast store, or a damaged one: {error}. Restore it from a backup; it was left as it is."
