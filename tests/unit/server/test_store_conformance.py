"""What every engine promises; the same tests run on each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, Reason
from holdfast.store import Change, Committed, Conflict, KeyValue, Txn, batching, recent, sqlite
from holdfast.store.batching import BatchingStore, BatchStats
from holdfast.store.interface import OPERATIONS_MAX, TXN_BYTES_MAX
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import SqliteStore

ENGINES: dict[str, Callable[[Path], BatchingStore]] = {
    "memory": lambda _folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "h.db"),
}


@pytest.fixture(params=ENGINES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BatchingStore]:
    store = ENGINES[request.param](tmp_path)
    await store.open()
    yield store
    await store.close()


async def changes_from(store: BatchingStore, revision: int) -> list[Change]:
    """Everything from a revision to the newest."""
    found: list[Change] = []
    async with asyncio.timeout(10):
        async for changes in store.watch(revision):
            found += changes
            if found[-1].revision >= store.revision:
                return found
    raise AssertionError("a watch never ends by itself")


def put(key: str, value: str = "v", expected: int | None = None) -> Txn:
    return Txn(compares=() if expected is None else ((key, expected),), puts=((key, value.encode()),))


async def test_each_mutating_transaction_adds_exactly_one_revision(store: BatchingStore) -> None:
    """S1."""
    assert await store.commit(put("a")) == Committed(1)
    assert await store.commit(Txn(puts=(("b", b""), ("c", b"")), deletes=("a",))) == Committed(2)
    assert await store.commit(Txn()) == Committed(2)
    assert await store.commit(Txn(deletes=("never-was",))) == Committed(2)
    assert await store.commit(put("a", expected=7)) == Conflict(2)
    assert store.revision == 2


async def test_concurrent_transactions_see_those_before_them(store: BatchingStore) -> None:
    """Written together, yet decided one after the other: of many that want a key to be absent, exactly one gets it."""
    outcomes = await asyncio.gather(*(store.commit(put("k", str(n), expected=0)) for n in range(50)))
    assert [outcome for outcome in outcomes if isinstance(outcome, Committed)] == [Committed(1)]
    chained = [store.commit(put("k", str(n), expected=n)) for n in range(1, 50)]
    assert [outcome.revision for outcome in await asyncio.gather(*chained)] == list(range(2, 51))


async def test_a_range_shows_the_past_as_it_was(store: BatchingStore) -> None:
    await store.commit(put("a/1", "old"))
    await store.commit(Txn(puts=(("a/2", b"x"), ("b/1", b"y"))))
    await store.commit(Txn(puts=(("a/1", b"new"),), deletes=("a/2",)))
    assert await store.range("a/") == (3, [KeyValue("a/1", b"new", 3)])
    assert await store.range("a/", 2) == (2, [KeyValue("a/1", b"old", 1), KeyValue("a/2", b"x", 2)])
    assert (await store.range(""))[1] == [KeyValue("a/1", b"new", 3), KeyValue("b/1", b"y", 2)]
    with pytest.raises(HoldfastError) as refused:
        await store.range("a/", 4)
    assert refused.value.reason is Reason.REVISION_FUTURE


async def test_a_watch_delivers_whole_revisions_in_order_from_any_start(store: BatchingStore) -> None:
    """W2, W4, W6, W7 of the store's own watch, past and present alike."""
    for number in range(5):
        await store.commit(Txn(puts=((f"k{number}", b"1"), ("shared", str(number).encode()))))
    await store.commit(Txn(deletes=("k0",)))
    everything = await changes_from(store, 1)
    assert [change.revision for change in everything] == [1, 2, 3, 4, 5, 6]
    assert everything[2].puts == (KeyValue("k2", b"1", 3), KeyValue("shared", b"2", 3))
    assert everything[5] == Change(6, (), ("k0",))
    assert await changes_from(store, 4) == everything[3:]
    waiting = asyncio.create_task(changes_from(store, 7))
    await asyncio.sleep(0)
    await store.commit(put("later"))
    assert [change.revision for change in await waiting] == [7]


async def test_compaction_keeps_the_state_and_refuses_what_it_dropped(store: BatchingStore) -> None:
    await store.commit(put("a", "1"))
    await store.commit(Txn(puts=(("b", b"1"),), deletes=("a",)))
    await store.commit(put("b", "2"))
    await store.commit(put("a", "3"))
    await store.compact(3)
    assert store.compact_revision == 3
    assert await store.range("", 3) == (3, [KeyValue("b", b"2", 3)])
    assert [change.revision for change in await changes_from(store, 4)] == [4]
    for call in (store.range("", 2), changes_from(store, 3)):
        with pytest.raises(HoldfastError) as refused:
            await call
        assert refused.value.reason is Reason.REVISION_COMPACTED
    assert await store.commit(put("b", "3", expected=3)) == Committed(5)


async def test_a_closed_store_refuses_and_says_so(tmp_path: Path) -> None:
    for make in ENGINES.values():
        store = make(tmp_path)
        await store.open()
        await store.close()
        with pytest.raises(HoldfastError) as refused:
            await store.commit(put("a"))
        assert refused.value.reason is Reason.STORE_UNAVAILABLE


async def test_company_is_written_together_and_a_lone_caller_does_not_wait(tmp_path: Path) -> None:
    batches: list[BatchStats] = []
    store = SqliteStore(tmp_path / "h.db", batches.append)
    await store.open()
    await asyncio.gather(*(store.commit(put(f"k{n}")) for n in range(100)))
    assert [batch.size for batch in batches] == [100]
    for n in range(3):
        await store.commit(put(f"alone{n}"))
    assert [batch.size for batch in batches] == [100, 1, 1, 1]
    await store.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a store waits for company, in seconds, at once over."""
    recorded, real_sleep = list[float](), asyncio.sleep

    async def sleep(delay_s: float) -> None:
        recorded.append(delay_s)
        await real_sleep(0)

    monkeypatch.setattr("holdfast.store.batching.asyncio.sleep", sleep)
    return recorded


async def test_who_comes_alone_does_not_wait_and_nobody_waits_for_those_who_do_not_come(waits: list[float]) -> None:
    store = MemoryStore()
    for together in (1, 1, 4, 1, 1, 500, 2, 1, 1):
        await asyncio.gather(*(store.commit(put(f"k{n}")) for n in range(together)))
    wait = batching.GATHER_S
    assert waits == [0, 0, 0, wait, 0, 0, wait, wait, 0]
    await store.close()


async def test_company_is_waited_for_while_it_comes_and_no_longer_than_the_bound(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = list[BatchStats]()
    store = MemoryStore(batches.append)

    async def come_one_after_the_other() -> None:
        before = len(waits)
        calls = [store.commit(put("first"))]
        for number in range(5):
            while len(waits) == before + number:
                await asyncio.tasks.sleep(0)
            calls.append(store.commit(put(f"k{number}")))
        await asyncio.gather(*calls)

    await asyncio.gather(*(store.commit(put(f"k{n}")) for n in range(2)))
    await come_one_after_the_other()
    assert [batch.size for batch in batches] == [2, 6]
    monkeypatch.setattr(batching, "GATHER_S_MAX", 0.0)
    before = len(waits)
    await store.commit(put("first"))
    assert len(waits) == before
    await store.close()


async def test_what_waits_is_bounded_in_number_and_in_bytes(
    store: BatchingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes beyond is told to come again; those who wait are served."""
    monkeypatch.setattr(batching, "QUEUE_MAX", 3)
    monkeypatch.setattr(batching, "QUEUE_BYTES_MAX", 1000)
    for size_bytes, taken in ((1, 3), (600, 2)):
        waiting = [store.commit(put(f"k{n}", "x" * size_bytes)) for n in range(taken)]
        with pytest.raises(HoldfastError) as refused:
            await store.commit(put("one-more"))
        assert refused.value.reason is Reason.OVERLOADED
        assert all(isinstance(outcome, Committed) for outcome in await asyncio.gather(*waiting))
    assert isinstance(await store.commit(put("later")), Committed)


async def test_a_batch_ends_where_it_has_enough_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each at its own revision; one that is larger than a batch should be goes alone."""
    monkeypatch.setattr(batching, "BATCH_BYTES_MAX", 1000)
    batches: list[BatchStats] = []
    store = SqliteStore(tmp_path / "h.db", batches.append)
    await store.open()
    outcomes = await asyncio.gather(
        *(store.commit(put(f"k{n}", "x" * size)) for n, size in enumerate([400, 400, 400, 5000, 1]))
    )
    assert outcomes == [Committed(n) for n in range(1, 6)]
    assert [batch.size for batch in batches] == [2, 1, 1, 1]
    await store.close()


@pytest.mark.parametrize(
    "txn",
    [
        Txn(puts=tuple((f"k{n}", b"") for n in range(OPERATIONS_MAX + 1))),
        Txn(deletes=tuple(f"k{n}" for n in range(OPERATIONS_MAX + 1))),
        Txn(compares=tuple((f"k{n}", 0) for n in range(OPERATIONS_MAX + 1))),
        Txn(puts=(("k", b"x" * TXN_BYTES_MAX),)),
        Txn(puts=(("k", b""),), deletes=("k",)),
        Txn(puts=(("k", b"1"), ("other", b""), ("k", b"2"))),
        Txn(puts=(("other", b""),), deletes=("k", "k")),
    ],
    ids=["puts", "deletes", "compares", "bytes", "put and deleted", "put twice", "deleted twice"],
)
async def test_what_no_engine_takes_is_refused_before_anything_happens(store: BatchingStore, txn: Txn) -> None:
    """It is the caller's fault, and others go on."""
    await store.commit(put("k"))
    with pytest.raises(ValueError, match=r"split it|changes 'k' more than once"):
        await store.commit(txn)
    assert await store.commit(put("k")) == Committed(2)


async def test_the_largest_transaction_is_one_revision(store: BatchingStore) -> None:
    """W4: a watcher gets it whole."""
    puts = tuple((f"k{n:05}", b"x" * 200) for n in range(OPERATIONS_MAX))
    assert await store.commit(Txn(compares=tuple((key, 0) for key, _ in puts), puts=puts)) == Committed(1)
    assert [len(change.puts) for change in await changes_from(store, 1)] == [OPERATIONS_MAX]
    assert await store.commit(Txn(deletes=tuple(key for key, _ in puts))) == Committed(2)
    assert (await store.range(""))[1] == []


async def test_watchers_far_behind_read_from_the_engine_in_pieces(
    store: BatchingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in memory is bounded in bytes, and so is what is read back at a time; nobody misses anything."""
    monkeypatch.setattr(recent, "BYTES_MAX", 5_000)
    monkeypatch.setattr(sqlite, "PAGE_BYTES_MAX", 3_000)
    for number in range(40):
        await store.commit(put(f"k{number}", "x" * 1_000))
    assert len(store._recent.after(36, 1000)) == 4
    assert not store._recent.after(0, 1000)
    assert [change.revision for change in await changes_from(store, 1)] == list(range(1, 41))
