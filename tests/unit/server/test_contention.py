"""Many who change one resource at once all come through, and hold up nobody who changes another."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import AdminState, Agent
from holdfast.service import queues
from holdfast.store.batching import BatchingStore
from holdfast.store.interface import Change
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import SqliteStore
from support.replica import Replica, replica

CALLERS = 64


class SlowStore(MemoryStore):
    """Each write takes a while, in which many decide on what was before it."""

    async def _write(self, changes: Sequence[Change]) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await super()._write(changes)


def queued(here: Replica) -> int:
    return len(here.registry._writer._queues)


async def until_queued(here: Replica) -> None:
    while not queued(here):  # noqa: ASYNC110 - it sets no event when it has somebody
        await asyncio.sleep(0)


@pytest.fixture(params=["slow memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> BatchingStore:
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "holdfast.db")
        await made.open()
        return made
    return SlowStore()


async def test_all_who_change_one_agent_at_once_come_through(store: BatchingStore) -> None:
    """Each sets a label of its own, and in the end all are there; nothing is left of the queue."""
    async with replica(store) as here:
        await here.register("a")
        calls = (here.update("a", {"labels": {f"l{n}": "x"}}, f"labels.l{n}") for n in range(CALLERS))
        await asyncio.gather(*calls)
        assert len((await here.get("a")).labels) == CALLERS
        assert queued(here) == 0
    await store.close()


async def test_an_operator_comes_through_among_many_updates(store: BatchingStore) -> None:
    """What the operator writes is another record of the agent, and rests on what the others write."""
    async with replica(store) as here:
        await here.register("a")
        updates = [here.update("a", {"labels": {f"l{n}": "x"}}, f"labels.l{n}") for n in range(32)]
        rulings = [here.rule("cordon" if n % 2 else "uncordon", "a") for n in range(32)]
        await asyncio.gather(*(each for pair in zip(updates, rulings, strict=True) for each in pair))
        agent = await here.get("a")
        assert len(agent.labels) == 32
        assert agent.admin_state in (AdminState.ADMIN_STATE_ENABLED, AdminState.ADMIN_STATE_CORDONED)
    await store.close()


async def test_calls_come_in_turn_and_another_agent_has_a_queue_of_its_own() -> None:
    """Those who wait are served in the order they came, and whoever changes another agent does not wait for them."""
    async with replica(SlowStore()) as here:
        await here.register("a")
        await here.register("b")
        done: list[str] = []

        async def change(agent_id: str, number: int) -> None:
            await here.update(agent_id, {"labels": {f"l{number}": "x"}}, f"labels.l{number}")
            done.append(agent_id if agent_id == "b" else f"{number:02}")

        many = [asyncio.create_task(change("a", number)) for number in range(32)]
        await until_queued(here)
        await change("b", 0)
        assert len(done) < 8
        await asyncio.gather(*many)
        done.remove("b")
        assert done == sorted(done)


async def test_no_more_queue_than_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are refused at once, as conflicts; those in the queue come through."""
    monkeypatch.setattr(queues, "QUEUE_MAX", 10)
    async with replica(SlowStore()) as here:
        await here.register("a")
        calls = (here.update("a", {"labels": {f"l{n}": "x"}}, f"labels.l{n}") for n in range(CALLERS))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, HoldfastError)]
        assert {error.reason for error in refused} == {Reason.TXN_CONFLICT}
        assert sum(isinstance(outcome, Agent) for outcome in outcomes) == 11
        assert queued(here) == 0


async def test_whoever_gives_up_leaves_the_queue() -> None:
    """A caller that goes while it waits, or while its turn has come, does not hold up those behind it."""
    async with replica(SlowStore()) as here:
        await here.register("a")
        calls = [
            asyncio.create_task(here.update("a", {"labels": {f"l{n}": "x"}}, f"labels.l{n}")) for n in range(CALLERS)
        ]
        await until_queued(here)
        for call in calls[1::2]:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, Agent) for outcome in outcomes[::2])
        assert queued(here) == 0
