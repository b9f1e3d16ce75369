"""Fixtures of the tests of the service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.store.sqlite import SqliteStore
from support.engines import ENGINE


@pytest.fixture(params=["memory", "sqlite"])
async def each_engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Stores of `support.engines.new_store`, which replicas without one use, are of one engine, then of the other."""
    made: list[SqliteStore] = []

    def make() -> SqliteStore:
        made.append(SqliteStore(tmp_path / f"store-{len(made)}.db"))
        return made[-1]

    if request.param == "sqlite":
        monkeypatch.setattr(ENGINE, "make", make)
    yield
    for store in made:
        await store.close()
