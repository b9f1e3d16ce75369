"""What the embedded engine promises beside what every engine does: one file, trusted or refused, that stays small."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, Reason
from holdfast.failpoints import Failpoint
from holdfast.store import Committed, KeyValue, StoreFileError, Txn, sqlite_file
from holdfast.store import sqlite as engine
from holdfast.store.batching import StoreBrokenError
from holdfast.store.sqlite import WAL_BYTES_MAX, SqliteStore
from holdfast.store.sqlite_file import FIRST_VERSION, MIGRATIONS
from holdfast.store.sqlite_log import log_of


def put(key: str, value: str = "v") -> Txn:
    return Txn(puts=((key, value.encode()),))


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    return store


async def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    """S3: all callers of the batch are told, nothing is left of it, and once there is room the store goes on."""
    store = await opened(tmp_path / "h.db")
    told: list[bool] = []
    store.on_refusing = told.append
    assert await store.commit(put("before")) == Committed(1)
    connection = store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite answers SQLITE_FULL, as on a full disk
    outcomes = await asyncio.gather(
        *(store.commit(put(f"big{n}", "x" * 20_000)) for n in range(3)), return_exceptions=True
    )
    reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, HoldfastError)}
    assert reasons == {Reason.STORE_UNAVAILABLE}
    assert not any(isinstance(outcome, Committed) for outcome in outcomes)
    assert (store.revision, store.is_refusing, told) == (1, True, [True])
    await store.probe()
    assert (store.is_refusing, told) == (False, [True, False])
    assert await store.commit(put("small")) == Committed(2)
    assert [found.key for found in (await store.range(""))[1]] == ["before", "small"]
    await store.close()


def as_a_new_process_finds_it(folder: Path) -> Path:
    """A copy of the store's files: this process keeps the originals locked to its end."""
    (folder / "copy").mkdir()
    for name in ("h.db", "h.db-wal"):
        (folder / "copy" / name).write_bytes((folder / name).read_bytes())
    return folder / "copy" / "h.db"


async def test_a_write_of_unknown_outcome_is_the_end(tmp_path: Path) -> None:
    """S3: after a sync that failed nothing is promised any more, whatever the disk says; a new process finds out."""

    class LandsAndFails(SqliteStore):
        fails = False

        def _write_rows(self, rows, revision):
            super()._write_rows(rows, revision)
            if self.fails:
                raise sqlite3.OperationalError("disk I/O error")

    store = LandsAndFails(tmp_path / "h.db")
    await store.open()
    ended = asyncio.create_task(store.broken())
    await store.commit(put("before"))
    store.fails = True
    with pytest.raises(HoldfastError, match="disk I/O error"):
        await store.commit(put("landed"))
    store.fails = False
    with pytest.raises(HoldfastError, match="disk I/O error") as refused:
        await store.commit(put("later"))
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    with pytest.raises(StoreBrokenError):
        await ended
    assert store.revision == 1, "nobody is shown what nobody knows"
    size_bytes = (tmp_path / "h.db-wal").stat().st_size
    await store.close()
    assert (tmp_path / "h.db-wal").stat().st_size == size_bytes, "the log was moved by a process that trusts nothing"
    again = await opened(as_a_new_process_finds_it(tmp_path))
    assert again.revision == 2
    await again.close()


async def test_the_log_is_moved_into_the_file_before_it_grows(tmp_path: Path) -> None:
    """Ten times its bound is written; the log never has more than the bound and one batch."""
    store = await opened(tmp_path / "h.db")
    largest = 0
    for number in range(160):
        await store.commit(put(f"k{number % 7}", "x" * 250_000))
        largest = max(largest, (tmp_path / "h.db-wal").stat().st_size)
    assert WAL_BYTES_MAX / 2 < largest < WAL_BYTES_MAX + 500_000
    await store.close()


async def test_a_checkpoint_passes_both_its_failpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Failpoint] = []
    monkeypatch.setattr(engine, "hit", seen.append)
    monkeypatch.setattr(engine, "WAL_BYTES_MAX", 1)
    store = await opened(tmp_path / "h.db")
    await store.commit(put("k"))
    assert seen == [
        Failpoint.BEFORE_BEGIN,
        Failpoint.AFTER_BEGIN,
        Failpoint.BEFORE_COMMIT,
        Failpoint.AFTER_COMMIT,
        Failpoint.BEFORE_CHECKPOINT,
        Failpoint.AFTER_CHECKPOINT,
    ]
    await store.close()


async def test_compaction_lets_writes_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history is compacted in steps; a write that comes meanwhile waits for one of them at most."""
    monkeypatch.setattr("holdfast.store.batching.COMPACTED_AT_ONCE", 10)
    store = await opened(tmp_path / "h.db")
    for number in range(200):
        await store.commit(put("k", str(number)))
    compacting = asyncio.create_task(store.compact(200))
    await store.commit(put("other"))
    assert store.compact_revision < 200
    await compacting
    assert store.compact_revision == 200
    assert [found.value for found in (await store.range("k"))[1]] == [b"199"]
    await store.close()


async def test_an_older_file_is_brought_up_to_date_or_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps that are due happen together: one that fails leaves the schema, and what is in it, as it was."""
    store = await opened(tmp_path / "h.db")
    await store.commit(put("kept"))
    await store.close()
    step = "ALTER TABLE meta ADD COLUMN note TEXT; UPDATE meta SET note = 'moved'"
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, step, "UPDATE nowhere SET x = 1"))
    with pytest.raises(StoreFileError, match="nowhere"):
        await SqliteStore(tmp_path / "h.db").open()
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, step))
    for _ in range(2):
        store = await opened(tmp_path / "h.db")
        assert [found.key for found in (await store.range(""))[1]] == ["kept"]
        assert store._connection.execute("SELECT DISTINCT note FROM meta").fetchall() == [("moved",)]
        assert store._connection.execute("PRAGMA user_version").fetchone()[0] == FIRST_VERSION + len(MIGRATIONS) + 1
        await store.close()


def of_the_first_schema(path: Path, rows: Sequence[tuple[int, str, bytes | None]]) -> dict[Path, bytes]:
    """Leaves a file of schema 1 with history from revision 2 to 4, as a kill does, its log not empty; its files."""
    original = path.with_name("original.db")
    with closing(sqlite3.connect(original, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(sqlite_file._SCHEMA % (sqlite_file.APPLICATION_ID, FIRST_VERSION))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.executemany("INSERT INTO version VALUES (?, ?, ?)", rows)
        database.execute("UPDATE meta SET value = 4 WHERE name = 'revision'")
        database.execute("UPDATE meta SET value = 1 WHERE name = 'compact_revision'")
        files = {path: original.read_bytes(), log_of(path): log_of(original).read_bytes()}
    for file, data in files.items():
        file.write_bytes(data)
    return files


async def test_a_file_of_the_first_schema_is_given_checksums(tmp_path: Path) -> None:
    """From 1 to 2: what was in it is there, with history, and damage is found from then on."""
    path = tmp_path / "h.db"
    of_the_first_schema(path, [(2, "a", b"x"), (3, "b", b""), (4, "a", None)])
    store = await opened(path)
    assert (store.revision, store.compact_revision) == (4, 1)
    assert await store.range("", 3) == (3, [KeyValue("a", b"x", 2), KeyValue("b", b"", 3)])
    assert await store.range("") == (4, [KeyValue("b", b"", 3)])
    assert await store.commit(Txn(compares=(("b", 3), ("a", 0)), puts=(("b", b"2"),))) == Committed(5)
    store._connection.execute("UPDATE version SET value = x'79' WHERE revision = 2")
    await store.close()
    with pytest.raises(StoreFileError, match="'a' as of revision 2 is not as it was written"):
        await opened(path)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(2, "a", b"x"), (4, "a", None)], "revision 4 follows 2"),
        ([(2, "a", b"x"), (3, "b", b"")], "ends at revision 3, and should end at 4"),
    ],
    ids=["hole", "end missing"],
)
async def test_an_older_file_that_cannot_be_trusted_is_left_as_it_was(
    tmp_path: Path, rows: Sequence[tuple[int, str, bytes | None]], why: str
) -> None:
    """Byte for byte, and again: new checksums must not vouch for what was never checked."""
    files = of_the_first_schema(tmp_path / "h.db", rows)
    for _ in range(2):
        with pytest.raises(StoreFileError, match=why):
            await opened(tmp_path / "h.db")
        assert {file: file.read_bytes() for file in files} == files


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = of_the_first_schema(tmp_path / "h.db", [(2, "a", b"x"), (3, "b", b""), (4, "a", None)])
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, "UPDATE nowhere SET x = 1"))
    with pytest.raises(StoreFileError, match="nowhere"):
        await opened(tmp_path / "h.db")
    assert {file: file.read_bytes() for file in files} == files


async def test_nobody_else_can_open_the_file_of_a_store(tmp_path: Path) -> None:
    """A reader from elsewhere would keep the log from being cut, and a writer would change what is in memory here."""
    store = await opened(tmp_path / "h.db")
    await store.commit(put("k"))
    other = sqlite3.connect(tmp_path / "h.db", timeout=0)
    with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT count(*) FROM version")
    await store.close()


async def test_two_stores_cannot_share_a_file(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "h.db")
    await first.open()
    with pytest.raises(StoreFileError, match="another server is using this store"):
        await SqliteStore(tmp_path / "h.db").open()
    await first.close()
    second = SqliteStore(tmp_path / "h.db")
    await second.open()
    await second.close()


def newer(path: Path) -> str:
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {FIRST_VERSION + len(MIGRATIONS) + 1}")
    database.close()
    return f"schema {FIRST_VERSION + len(MIGRATIONS) + 1}"


def foreign(path: Path) -> str:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE someone_elses (x)")
    database.close()
    return "no Holdfast store"


def no_database(path: Path) -> str:
    path.write_text("These are my notes, please do not overwrite them.\n" * 100)
    return "no Holdfast store"


def torn(path: Path) -> str:
    data = bytearray(path.read_bytes())
    data[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    path.write_bytes(data)
    return "damaged|malformed"


async def test_large_revisions_are_compacted_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is how many versions a step looks at: a batch writes thousands at one revision."""
    monkeypatch.setattr(engine, "COMPACTED_AT_ONCE", 50)
    store = await opened(tmp_path / "h.db")
    for number in range(12):
        await store.commit(Txn(puts=tuple((f"k{key}", f"{number}".encode()) for key in range(20))))
    steps: list[int] = []
    forget = store._forget

    async def recorded(before: int) -> None:
        steps.append(before)
        await forget(before)

    monkeypatch.setattr(store, "_forget", recorded)
    await store.compact(11)
    assert steps == [3, 6, 9, 11]
    assert [found.value for found in (await store.range("", 11))[1]] == [b"10"] * 20
    await store.close()


@pytest.mark.parametrize("spoil", [newer, foreign, no_database, torn])
async def test_a_file_that_cannot_be_trusted_is_refused_and_left_alone(tmp_path: Path, spoil) -> None:
    path = tmp_path / "h.db"
    store = SqliteStore(path)
    await store.open()
    await asyncio.gather(*(store.commit(put(f"key{n}", "x" * 500)) for n in range(100)))
    await store.close()
    expected = spoil(path)
    before = path.read_bytes()
    with pytest.raises(StoreFileError, match=expected):
        await SqliteStore(path).open()
    assert path.read_bytes() == before
