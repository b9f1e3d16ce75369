"""What every engine promises; the same tests run on each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, Reason
from holdfast.store import Change, Committed, Conflict, KeyValue, Txn
from holdfast.store.batching import BatchingStore, BatchStats
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


KEYS = st.sampled_from(["a", "b", "c", "d/e"])
STEP = st.tuples(
    st.lists(st.tuples(KEYS, st.booleans()), max_size=2),  # compares: with the right revision, or a wrong one
    st.dictionaries(KEYS, st.binary(max_size=3), max_size=3),
    st.sets(KEYS, max_size=2),
)


@given(steps=st.lists(STEP, max_size=25), compact_at=st.integers(0, 25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("engine", ENGINES)
def test_any_history_agrees_with_a_plain_model(engine, steps, compact_at, tmp_path_factory) -> None:
    """State, revisions and history follow from the transactions alone, across compaction and reopening."""
    asyncio.run(check_against_model(ENGINES[engine], steps, compact_at, tmp_path_factory.mktemp("store")))


async def check_against_model(make, steps, compact_at: int, folder: Path) -> None:
    store = make(folder)
    await store.open()
    model: dict[str, KeyValue] = {}
    states: dict[int, list[KeyValue]] = {0: []}
    for compares, puts, deletes in steps:
        checks = tuple((key, model[key].mod_revision if key in model else 0) for key, _ in compares)
        checks = tuple((key, at if good else at + 1) for (key, at), (_, good) in zip(checks, compares, strict=True))
        gone = tuple(key for key in deletes if key not in puts)
        outcome = await store.commit(Txn(checks, tuple(puts.items()), gone))
        before = len(states) - 1
        if not all(good for _, good in compares):
            assert outcome == Conflict(before)
            continue
        changes = puts or any(key in model for key in gone)
        assert outcome == Committed(before + bool(changes))
        if changes:
            for key in gone:
                model.pop(key, None)
            model |= {key: KeyValue(key, value, outcome.revision) for key, value in puts.items()}
            states[outcome.revision] = [model[key] for key in sorted(model)]
    compact_at = min(compact_at, store.revision)
    await store.compact(compact_at)
    if isinstance(store, SqliteStore):
        await store.close()
        store = make(folder)
        await store.open()
    for revision in range(max(compact_at, 1), len(states)):
        assert (await store.range("", revision))[1] == states[revision]
    if store.revision > compact_at:
        assert [change.revision for change in await changes_from(store, compact_at + 1)] == [
            *range(compact_at + 1, len(states))
        ]
    await store.close()


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
