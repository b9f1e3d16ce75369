"""What a store found when it was opened is on the disk before anyone is shown it, or it does not open."""

import errno
import os
from pathlib import Path

import pytest

from holdfast.store import StoreFileError, Txn
from holdfast.store.sqlite import SqliteStore

PUT = Txn(puts=(("k", b"v"),))

Synced = list[tuple[str, set[str]]]
"""What was synced, by name, and the names that its folder then had."""


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synced:
    """All that the store itself syncs; what SQLite does is not seen here."""
    fsync, found = os.fsync, []

    def recorded(file: int) -> None:
        fsync(file)
        paths = [tmp_path, *tmp_path.iterdir()]
        found.extend((path.name, names_in(tmp_path)) for path in paths if same(file, path))

    monkeypatch.setattr(os, "fsync", recorded)
    return found


def same(file: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(file), path.stat())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def killed(path: Path) -> dict[str, bytes]:
    """A store with a write in its log, as a kill leaves it; its files."""
    store = SqliteStore(path)
    await store.open()
    await store.commit(PUT)
    files = {name: (path.parent / name).read_bytes() for name in ("h.db", "h.db-wal")}
    await store.close()
    for name, data in files.items():
        (path.parent / name).write_bytes(data)
    return files


async def test_the_name_of_a_new_store_is_on_the_disk_before_it_is_open(tmp_path: Path, synced: Synced) -> None:
    """S2: a power cut does not take the file away with all that was acknowledged."""
    store = SqliteStore(tmp_path / "h.db")
    await store.open()
    assert any(name == tmp_path.name and "h.db" in names for name, names in synced)
    await store.close()


async def test_log_and_names_that_were_found_are_synced_before_it_is_open(tmp_path: Path, synced: Synced) -> None:
    """Whoever made them may have died before doing so."""
    await killed(tmp_path / "h.db")
    synced.clear()
    store = SqliteStore(tmp_path / "h.db")
    await store.open()
    assert [name for name, _ in synced] == ["h.db-wal", tmp_path.name]
    assert store.revision == 1
    await store.close()


async def test_a_log_that_cannot_be_made_durable_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: what nobody knows to be on the disk is shown to nobody."""
    files = await killed(tmp_path / "h.db")

    def fails(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreFileError, match=r"Input/output error.*Check that the disk works"):
        await SqliteStore(tmp_path / "h.db").open()
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
