"""A store may be named through symbolic links: files and lock are beside what they lead to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.store import Committed, StoreFileError, Txn
from holdfast.store.sqlite import SqliteStore


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    return tmp_path / "real" / "data.db"


def link_to_file(target: Path) -> Path:
    link = target.parents[1] / "h.db"
    link.symlink_to(target)
    return link


def relative_link(target: Path) -> Path:
    link = target.parents[1] / "h.db"
    link.symlink_to(Path("real") / target.name)
    return link


def linked_folder(target: Path) -> Path:
    (target.parents[1] / "linked").symlink_to(target.parent)
    return target.parents[1] / "linked" / target.name


def link_in_linked_folder(target: Path) -> Path:
    (target.parent / "h.db").symlink_to(target.name)
    return linked_folder(target).with_name("h.db")


NAMED = pytest.mark.parametrize("name", [link_to_file, relative_link, linked_folder, link_in_linked_folder])


async def commit(path: Path, key: str) -> Committed:
    """One write by a store of its own."""
    store = SqliteStore(path)
    await store.open()
    try:
        outcome = await store.commit(Txn(puts=((key, b""),)))
        assert isinstance(outcome, Committed)
        return outcome
    finally:
        await store.close()


@NAMED
async def test_a_store_goes_on_under_another_name(target: Path, name: Callable[[Path], Path]) -> None:
    await commit(target, "by its own name")
    assert await commit(name(target), "through a link") == Committed(2)
    assert await commit(target, "by its own name again") == Committed(3)


@NAMED
async def test_a_link_that_leads_nowhere_yet_is_where_the_store_is_made(
    target: Path, name: Callable[[Path], Path]
) -> None:
    """The link stays; whoever set it decided where the store is to be."""
    link = name(target)
    assert await commit(link, "k") == Committed(1)
    assert await commit(target, "k") == Committed(2)
    assert await commit(link, "k") == Committed(3)


async def test_a_link_into_a_folder_that_is_not_there_is_refused(target: Path) -> None:
    """By the name of what is missing."""
    link = link_to_file(target)
    target.parent.rmdir()
    with pytest.raises(StoreFileError, match=rf"{target}: its folder does not exist"):
        await SqliteStore(link).open()


@NAMED
async def test_two_names_of_one_store_are_not_two_stores(target: Path, name: Callable[[Path], Path]) -> None:
    first = SqliteStore(target)
    await first.open()
    with pytest.raises(StoreFileError, match="another server is using this store"):
        await SqliteStore(name(target)).open()
    await first.close()
