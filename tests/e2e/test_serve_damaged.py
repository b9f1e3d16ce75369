"""A store that the server cannot use: said in a sentence, with the code for wrong input, and nothing touched."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.cli import EXIT_WRONG_INPUT
from holdfast.store import Txn
from holdfast.store.sqlite import SqliteStore
from support.server import run_serve


def write(path: Path, key: str, value: bytes) -> None:
    async def commit() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.commit(Txn(puts=((key, value),)))
        await store.close()

    asyncio.run(commit())


def bad_record(path: Path) -> str:
    write(path, "agent:namespaces/test/agents/bad", b"\xff\xff no protobuf")
    return "'agent:namespaces/test/agents/bad' of revision 1"


def unknown_record(path: Path) -> str:
    write(path, "invention:of-a-later-version", b"")
    return "'invention:of-a-later-version'"


def changed_value(path: Path) -> str:
    write(path, "request:k", b"as it was")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE version SET value = x'00'")
    return "'request:k' as of revision 1 is not as it was written"


def noise(path: Path) -> str:
    path.write_bytes(bytes(range(256)) * 64)
    return "no Holdfast store, or a damaged one"


@pytest.mark.parametrize("spoil", [bad_record, unknown_record, changed_value, noise])
def test_a_store_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, spoil) -> None:
    path = tmp_path / "h.db"
    expected = spoil(path)
    before = path.read_bytes()
    ended = run_serve("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", f"sqlite:{path}", timeout_s=60)
    assert ended.returncode == EXIT_WRONG_INPUT
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert path.read_bytes() == before
