"""Which engine a test's stores are of, where it does not care: memory, unless a fixture says otherwise."""

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.store.batching import BatchingStore
from holdfast.store.memory import MemoryStore


@dataclass
class Engine:
    """Makes stores; fixtures put another in the place of `make`."""

    make: Callable[[], BatchingStore] = MemoryStore


ENGINE = Engine()


def new_store() -> BatchingStore:
    """A new store of the engine under test, not open yet."""
    return ENGINE.make()


async def open_once(store: BatchingStore) -> None:
    """Opens a store that is not open yet: several replicas, or one after another, may share it."""
    if getattr(store, "_database", store) is None:
        await store.open()
