"""What the embedded engine promises beside what every engine does: one file, trusted or refused, that stays small."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, Reason
from holdfast.failpoints import Failpoint
from holdfast.store import Committed, StoreFileError, Txn
from holdfast.store import sqlite as engine
from holdfast.store.batching import StoreBrokenError
from holdfast.store.sqlite import FIRST_VERSION, MIGRATIONS, WAL_BYTES_MAX, SqliteStore


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
    assert {outcome.reason for outcome in outcomes} == {Reason.STORE_UNAVAILABLE}
    assert (store.revision, store.is_refusing, told) == (1, True, [True])
    await store.probe()
    assert (store.is_refusing, told) == (False, [True, False])
    assert await store.commit(put("small")) == Committed(2)
    assert [found.key for found in (await store.range(""))[1]] == ["before", "small"]
    await store.close()


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
    await store.close()
    again = await opened(tmp_path / "h.db")
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
    monkeypatch.setattr(engine, "MIGRATIONS", (*MIGRATIONS, step, "UPDATE nowhere SET x = 1"))
    with pytest.raises(StoreFileError, match="nowhere"):
        await SqliteStore(tmp_path / "h.db").open()
    monkeypatch.setattr(engine, "MIGRATIONS", (*MIGRATIONS, step))
    for _ in range(2):
        store = await opened(tmp_path / "h.db")
        assert [found.key for found in (await store.range(""))[1]] == ["kept"]
        assert store._connection.execute("SELECT DISTINCT note FROM meta").fetchall() == [("moved",)]
        assert store._connection.execute("PRAGMA user_version").fetchone()[0] == FIRST_VERSION + len(MIGRATIONS) + 1
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


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith((".lock", "-shm"))}


async def written(folder: Path, is_closed: bool) -> dict[str, bytes]:
    """The files of a store with some history, as a server that ended in order, or was killed, leaves them."""
    store = await opened(folder / "h.db")
    for number in range(40):
        await store.commit(put(f"k{number % 11}", f"{number}" * 300))
    if is_closed:
        await store.close()
    files = read_all(folder)
    if not is_closed:
        await store.close()
    return files


def spoiled(data: bytes, kind: str, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    if kind == "cut":
        return data[:at]
    length = rng.choice([1, 16, 4096])
    other = bytes(length) if kind == "zero" else bytes(rng.randrange(256) for _ in range(length))
    return data[:at] + other + data[at + length :]


class Files:
    """What a store that was closed, or was not, leaves: contents by file. No dict, since failures would show it all."""

    def __init__(self, contents: dict[bool, dict[str, bytes]]) -> None:
        self.contents = contents


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folders = {is_closed: tmp_path_factory.mktemp("store") for is_closed in (True, False)}
    return Files({is_closed: asyncio.run(written(folder, is_closed)) for is_closed, folder in folders.items()})


@given(
    seed=st.integers(0, 1 << 32),
    kind=st.sampled_from(["flip", "zero", "cut"]),
    is_closed=st.booleans(),
    in_log=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_damaged_bytes_are_refused_or_harmless(files, tmp_path_factory, seed, kind, is_closed, in_log) -> None:
    """Wherever bytes are lost or changed: refused with the file as it was, or opened at a revision that there was.

    Never anything else. What damage in the log hides is what came last: SQLite reads it up to the first frame that its
    checksum does not fit.
    """
    folder, rng = tmp_path_factory.mktemp("spoiled"), random.Random(seed)
    for name, data in files.contents[is_closed].items():
        is_hit = name.endswith("-wal") == (in_log and not is_closed)
        (folder / name).write_bytes(spoiled(data, kind, rng) if is_hit and data else data)
    path = folder / "h.db"
    before = path.read_bytes()
    outcome = asyncio.run(open_and_read(path))
    if isinstance(outcome, StoreFileError):
        assert str(path) in str(outcome)
        assert path.read_bytes() == before
    elif isinstance(outcome, HoldfastError):
        assert outcome.reason is Reason.STORE_UNAVAILABLE  # damage that only a full read meets
    else:
        assert 0 <= outcome <= 40


async def open_and_read(path: Path) -> int | StoreFileError | HoldfastError:
    """The revision found, or why there is none."""
    store = SqliteStore(path)
    try:
        await store.open()
        await store.range("")
    except (StoreFileError, HoldfastError) as error:
        return error
    finally:
        await store.close()
    return store.revision
