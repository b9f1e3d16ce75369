"""Both engines against a model that keeps every state there was; Hypothesis looks for the shortest way to differ."""

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from holdfast.errors import HoldfastError, Reason
from holdfast.store import Change, Committed, Conflict, KeyValue, Txn
from holdfast.store.batching import BatchingStore
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import SqliteStore

T = TypeVar("T")

KEYS = ["a", "a/1", "a/2", "b", "\u00fc\U0001f980"]
PREFIXES = ["", "a", "a/", "b", "zz", "\u00fc"]
WANTED = st.tuples(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([0, 0, 0, 1])), max_size=2),
    st.dictionaries(st.sampled_from(KEYS), st.binary(max_size=4), max_size=3),
    st.sets(st.sampled_from(KEYS), max_size=2),
)
"""Comparisons with how far off their revision is, puts, and deletes."""


class Model:
    """Every revision's change and state."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.states: list[dict[str, KeyValue]] = [{}]
        self.compact_revision = 0

    @property
    def revision(self) -> int:
        return len(self.changes)

    def commit(self, txn: Txn) -> Committed | Conflict:
        state = dict(self.states[-1])
        if any(self._written(key) != expected for key, expected in txn.compares):
            return Conflict(self.revision)
        gone = tuple(key for key in txn.deletes if key in state)
        if not txn.puts and not gone:
            return Committed(self.revision)
        puts = tuple(KeyValue(key, value, self.revision + 1) for key, value in txn.puts)
        for key in gone:
            del state[key]
        self.states.append(state | {put.key: put for put in puts})
        self.changes.append(Change(self.revision + 1, puts, gone))
        return Committed(self.revision)

    def _written(self, key: str) -> int:
        return self.states[-1][key].mod_revision if key in self.states[-1] else 0

    def txn(self, wanted: Any) -> Txn:
        compares, puts, deletes = wanted
        gone = tuple(sorted(key for key in deletes if key not in puts))
        checks = tuple((key, self._written(key) + off) for key, off in compares)
        return Txn(checks, tuple(puts.items()), gone)

    def range(self, prefix: str, revision: int) -> list[KeyValue]:
        state = self.states[revision]
        return [state[key] for key in sorted(state) if key.startswith(prefix)]


def normal(change: Change) -> Change:
    """Engines do not promise the order of what happens at once."""
    return Change(change.revision, tuple(sorted(change.puts, key=lambda put: put.key)), tuple(sorted(change.deletes)))


class StoreMachine(RuleBasedStateMachine):
    """What any caller may do, in any order."""

    engine: str

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._model = Model()
        self._store = self._new()
        self._run(self._store.open())
        self._watcher = self._store.watch(1)
        self._watched: list[Change] = []
        self._is_cut_off = False

    def _new(self) -> BatchingStore:
        return MemoryStore() if self.engine == "memory" else SqliteStore(Path(self._folder.name) / "h.db")

    def _run(self, call: Awaitable[T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(call, 30))

    @rule(wanted=st.lists(WANTED, min_size=1, max_size=4))
    def commit_together(self, wanted: list[Any]) -> None:
        """Written as one batch, decided one after the other: comparisons are about the state before the batch."""
        transactions = [self._model.txn(each) for each in wanted]

        async def commit_all() -> Sequence[Committed | Conflict]:
            return await asyncio.gather(*(self._store.commit(txn) for txn in transactions))

        assert list(self._run(commit_all())) == [self._model.commit(txn) for txn in transactions]

    @rule(back=st.integers(-1, 12), prefix=st.sampled_from(PREFIXES))
    def read_the_past(self, back: int, prefix: str) -> None:
        at = self._model.revision - back
        if at > self._model.revision:
            assert self._refusal(self._store.range(prefix, at)) is Reason.REVISION_FUTURE
        elif at < max(self._model.compact_revision, 1):
            if at >= 1:
                assert self._refusal(self._store.range(prefix, at)) is Reason.REVISION_COMPACTED
        else:
            assert self._run(self._store.range(prefix, at)) == (at, self._model.range(prefix, at))

    @rule(back=st.integers(0, 12))
    def watch_from(self, back: int) -> None:
        """From any revision that is left, everything from there on, whole and in order; before it, a refusal."""
        start = max(self._model.revision - back, 1)
        if start <= self._model.compact_revision:
            assert self._refusal(self._changes_from(start)) is Reason.REVISION_COMPACTED
        elif start <= self._model.revision:
            found = [normal(change) for change in self._run(self._changes_from(start))]
            assert found == [normal(change) for change in self._model.changes[start - 1 :]]

    @rule(back=st.integers(-1, 12))
    def compact(self, back: int) -> None:
        at = self._model.revision - back
        if at > self._model.revision:
            assert self._refusal(self._store.compact(at)) is Reason.REVISION_FUTURE
        else:
            self._run(self._store.compact(max(at, 0)))
            self._model.compact_revision = max(self._model.compact_revision, at)

    @rule()
    def follow(self) -> None:
        """A watch that reads now and then sees everything, or is told that a compaction overtook it."""
        while not self._is_cut_off and len(self._watched) < self._model.revision:
            if len(self._watched) < self._model.compact_revision:
                assert self._refusal(anext(self._watcher)) is Reason.REVISION_COMPACTED
                self._is_cut_off = True
            else:
                self._watched += self._run(anext(self._watcher))
        if not self._is_cut_off:
            assert [normal(change) for change in self._watched] == [normal(change) for change in self._model.changes]

    @rule()
    def reopen(self) -> None:
        """Nothing that is durable depends on the process; the memory engine forgets, and is left running."""
        if self.engine == "memory":
            return
        self._run(self._watcher.aclose())
        self._run(self._store.close())
        self._store = self._new()
        self._run(self._store.open())
        self._watcher, self._is_cut_off = self._store.watch(len(self._watched) + 1), False

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "_model"):
            return
        assert self._store.revision == self._model.revision
        assert self._store.compact_revision == self._model.compact_revision
        for revision in {self._model.revision, max(self._model.compact_revision, 1)} - {self._model.revision + 1}:
            assert self._run(self._store.range("", revision))[1] == self._model.range("", revision)

    def _refusal(self, call: Awaitable[object]) -> Reason:
        with pytest.raises(HoldfastError) as refused:
            self._run(call)
        return refused.value.reason

    async def _changes_from(self, revision: int) -> list[Change]:
        found: list[Change] = []
        async for changes in self._store.watch(revision):
            found += changes
            if found[-1].revision >= self._store.revision:
                break
        return found

    def teardown(self) -> None:
        if hasattr(self, "_store"):
            self._run(self._watcher.aclose())
            self._run(self._store.close())
            self._loop.close()
            self._folder.cleanup()


class MemoryMachine(StoreMachine):
    engine = "memory"


class SqliteMachine(StoreMachine):
    engine = "sqlite"


@pytest.mark.parametrize("machine", [MemoryMachine, SqliteMachine])
def test_nothing_a_caller_does_tells_an_engine_from_the_model(machine: type[StoreMachine]) -> None:
    """S1 and W2 to W7 of the store's watch, isolation, compaction and restart."""
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
