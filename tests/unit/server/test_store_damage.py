"""Bytes of the store's files that were lost or changed: refused, or harmless, and never passed on."""

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.store import KeyValue, StoreFileError, Txn
from holdfast.store.sqlite import SqliteStore

WRITES = 60
COMPACTED = 20


class Left:
    """What servers leave behind: files by how they ended, and what was true at each revision.

    No dataclass, since failures would show all of it.
    """

    def __init__(self, files: dict[str, dict[str, bytes]], states: dict[int, list[KeyValue]]) -> None:
        self.files = files
        self.states = states


def read_all(folder: Path) -> dict[str, bytes]:
    """File and log; an empty log is none."""
    paths = [path for path in folder.iterdir() if path.name in ("h.db", "h.db-wal") and path.stat().st_size]
    return {path.name: path.read_bytes() for path in paths}


async def leave(folder: Path) -> Left:
    """A store with some history, as its files are when it is killed and when it is closed."""
    store = SqliteStore(folder / "h.db")
    await store.open()
    files, states, model = {}, {}, {}
    for number in range(1, WRITES + 1):
        key, gone = f"agent:{number % 11}", f"agent:{(number + 5) % 11}"
        value = f"{number}".encode() * 200
        outcome = await store.commit(Txn(puts=((key, value),), deletes=(gone,) if number % 7 == 0 else ()))
        model[key] = KeyValue(key, value, outcome.revision)
        if number % 7 == 0:
            model.pop(gone, None)
        states[outcome.revision] = [model[key] for key in sorted(model)]
        if number == COMPACTED + 5:
            await store.compact(COMPACTED)
        if number == WRITES // 2:
            files["killed-in-a-checkpoint"] = await killed_in_a_checkpoint(store, folder)
    files["killed"] = read_all(folder)
    await store.close()
    files["closed"] = read_all(folder)
    return Left(files, states)


async def killed_in_a_checkpoint(store: SqliteStore, folder: Path) -> dict[str, bytes]:
    """Everything is in the file, and the log is there still."""
    await store._run(lambda: store._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())
    return read_all(folder)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    found = asyncio.run(leave(tmp_path_factory.mktemp("store")))
    assert {end: sorted(files) for end, files in found.files.items()} == {
        "killed-in-a-checkpoint": ["h.db", "h.db-wal"],
        "killed": ["h.db", "h.db-wal"],
        "closed": ["h.db"],
    }
    return found


def spoil(data: bytes, kind: str, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    if kind == "cut":
        return data[:at]
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    length = rng.choice([16, 512, 4096])
    at = at // length * length
    other = bytes(length) if kind == "zero" else rng.randbytes(length)
    return (data[:at] + other + data[at + length :])[: len(data)]


ENDS = st.sampled_from(["killed-in-a-checkpoint", "killed", "closed"])
KINDS = st.sampled_from(["bit", "noise", "zero", "cut"])


@given(seed=st.integers(0, 1 << 32), kind=KINDS, end=ENDS, in_log=st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_refused_or_harmless(left, tmp_path_factory, seed, kind, end, in_log) -> None:
    """Refused, with the files as they were; or opened with exactly what was true at some revision. Never else.

    What damage in the log hides is what came last: SQLite reads it up to the first frame that its checksum does
    not fit. Damage in the file hides nothing.
    """
    folder, rng = tmp_path_factory.mktemp("spoiled"), random.Random(seed)
    hit = "h.db-wal" if in_log and "h.db-wal" in left.files[end] else "h.db"
    for name, data in left.files[end].items():
        (folder / name).write_bytes(spoil(data, kind, rng) if name == hit else data)
    before = read_all(folder)
    outcome = asyncio.run(open_and_read(folder / "h.db"))
    if isinstance(outcome, StoreFileError):
        assert str(folder / "h.db") in str(outcome)
        assert read_all(folder) == before
        return
    revision, found = outcome
    assert found == left.states.get(revision, []), f"revision {revision} was never like this"
    if hit == "h.db":
        assert revision == max(left.states) or end == "killed-in-a-checkpoint" or not before


async def open_and_read(path: Path) -> tuple[int, list[KeyValue]] | StoreFileError:
    """Revision and state found, or why there is none."""
    store = SqliteStore(path)
    try:
        await store.open()
        return await store.range("")
    except StoreFileError as error:
        return error
    finally:
        await store.close()


@pytest.mark.parametrize("end", ["killed-in-a-checkpoint", "killed", "closed"])
async def test_what_is_not_damaged_is_not_refused(left: Left, tmp_path: Path, end: str) -> None:
    """The twin of the above."""
    for name, data in left.files[end].items():
        (tmp_path / name).write_bytes(data)
    revision = WRITES // 2 if end == "killed-in-a-checkpoint" else WRITES
    assert await open_and_read(tmp_path / "h.db") == (revision, left.states[revision])


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_log_without_its_file_is_not_written_over(left: Left, tmp_path: Path, is_empty: bool) -> None:
    """Somebody moved the file and forgot the log: the log has what was acknowledged last."""
    (tmp_path / "h.db-wal").write_bytes(left.files["killed"]["h.db-wal"])
    if is_empty:
        (tmp_path / "h.db").touch()
    outcome = await open_and_read(tmp_path / "h.db")
    assert "h.db-wal" in str(outcome)
    assert read_all(tmp_path)["h.db-wal"] == left.files["killed"]["h.db-wal"]
