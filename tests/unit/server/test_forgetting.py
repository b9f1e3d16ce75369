"""What has outlived its use goes: by age, in bounded pieces, and nothing that is still of use goes with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.answers import Answers
from holdfast.core import requests, retention
from holdfast.core.retention import EXPIRED_KEPT_S
from holdfast.core.state import RequestEntry
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.service.janitor import Janitor
from holdfast.store.interface import Change, Conflict, Txn
from holdfast.store.memory import MemoryStore
from support.replica import PARENT, Replica, replica


async def keys(here: Replica, kind: str) -> list[str]:
    """Ids of what is stored of a kind."""
    return [found.key.rsplit("/", 1)[1] for found in (await here.registry.store.range(kind))[1]]


async def changes_after(here: Replica, revision: int) -> list[Change]:
    found: list[Change] = []
    if here.registry.store.revision > revision:
        async for changes in here.registry.store.watch(revision + 1):
            found += changes
            if found[-1].revision == here.registry.store.revision:
                break
    return found


async def test_the_oldest_answers_go_first_when_they_are_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds over a restart, and what is kept is the newest."""
    store = MemoryStore()
    async with replica(store) as here:
        for number in (5, 3, 9, 1, 7):  # the order of their keys is not that of their age
            await here.register(f"a{number}", request_id=f"r{number}")
        size_bytes = here.registry.view.answers.size_bytes
    monkeypatch.setattr(requests, "KEPT_BYTES_MAX", size_bytes // 2)
    async with replica(store) as here:
        assert here.registry.view.answers.size_bytes == size_bytes
        await Janitor(here.registry).make_round()
        assert await keys(here, "request:") == ["r1", "r7"]
        assert here.registry.view.answers.size_bytes <= size_bytes // 2


async def test_the_oldest_answers_go_first_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "KEPT_MAX", 2)
    async with replica() as here:
        for number in (5, 3, 9):
            await here.register(f"a{number}", request_id=f"r{number}")
        early: list[int] = []
        await Janitor(here.registry, on_forgotten_early=early.append).make_round()
        assert await keys(here, "request:") == ["r3", "r9"]
        assert sum(early) == 1
        here.clock.now_s += requests.KEPT_S
        await Janitor(here.registry, on_forgotten_early=early.append).make_round()
        assert await keys(here, "request:") == []
        assert sum(early) == 1, "those had their time"


async def test_who_asks_for_much_forgets_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace that holds the most, by count or by bytes, gives up its oldest, not those of others."""
    monkeypatch.setattr(requests, "KEPT_MAX", 8)
    async with replica() as here:
        first = await here.grant(request_id="r")
        for number in range(20):
            await here.register(f"a{number:02}", parent="namespaces/greedy", request_id=f"g{number:02}")
        await here.register("b", parent="namespaces/third", request_id="t")
        await Janitor(here.registry).make_round()
        assert await keys(here, "request:") == [*(f"g{number:02}" for number in range(14, 20)), "r", "t"]
        assert await here.grant(request_id="r") == first


@given(
    given_to=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300)), max_size=40),
    count_max=st.integers(0, 40),
    bytes_max=st.integers(0, 4000),
)
def test_what_goes_makes_the_rest_fit_and_leaves_the_largest_share_to_nobody(
    given_to: list[tuple[str, int]], count_max: int, bytes_max: int
) -> None:
    """No more goes than must; within a namespace the oldest; nobody is left with less than a larger one was cut to."""
    answers = Answers()
    for number, (namespace, size_bytes) in enumerate(given_to):
        answers.put(f"request:namespaces/{namespace}/M/{number}", RequestEntry(bytes(size_bytes), number + 1))
    gone = list(answers.beyond(count_max, bytes_max))
    for index, key in enumerate(gone):
        assert len(answers) > count_max or answers.size_bytes > bytes_max
        shares = {each: share(answers, each, count_max, bytes_max) for each in "abc"}
        namespace = key.split("/")[1]
        assert shares[namespace] == max(shares.values()), index
        assert key == next(each for each, _ in answers.oldest() if each.split("/")[1] == namespace)
        answers.remove(key)
    assert len(answers) <= count_max
    assert answers.size_bytes <= bytes_max
    assert answers.size_bytes == sum(len(key) + len(entry.value) for key, entry in answers.oldest())


def share(answers: Answers, namespace: str, count_max: int, bytes_max: int) -> float:
    sizes = [len(key) + len(entry.value) for key, entry in answers.oldest() if key.split("/")[1] == namespace]
    return max(len(sizes) / max(1, count_max), sum(sizes) / max(1, bytes_max))


async def test_ended_leases_go_by_age_after_a_restart_too() -> None:
    """One that ended long ago is not kept by one of a smaller name that ended just now."""
    store = MemoryStore()
    async with replica(store) as here:
        leases = sorted([await here.grant() for _ in range(3)], key=lambda lease: lease.name)
        await here.revoke(leases[2].name)
        here.clock.now_s += EXPIRED_KEPT_S / 2
        await here.revoke(leases[0].name)
    async with replica(store) as here:
        here.clock.now_s = 1000.0 + EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        assert await keys(here, "lease:") == [lease.name.rsplit("/", 1)[1] for lease in leases[:2]]


async def test_no_revision_forgets_more_than_one_watch_message_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents are deleted in pieces bounded in bytes, and their lease with the last of them."""
    monkeypatch.setattr(retention, "CHUNK_BYTES", 20_000)
    async with replica() as here:
        lease = await here.grant()
        for number in range(60):
            agent = Agent(lease=lease.name, labels={"filling": "x" * 256, "more": "y" * 256})
            await here.register(f"a{number}", agent=agent)
        await here.revoke(lease.name)
        begin = here.registry.store.revision
        here.clock.now_s += EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        pieces = await changes_after(here, begin)
        assert len(pieces) == 3
        assert all(len(piece.deletes) <= 30 for piece in pieces)
        assert pieces[-1].deletes[-1] == f"lease:{lease.name}"
        assert (await here.registry.store.range(""))[1] == []


async def test_an_agent_that_came_back_is_not_forgotten_nor_its_company_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A piece that fails stops those after it: a lease never goes before all agents that name it."""
    monkeypatch.setattr(retention, "CHUNK_KEYS", 2)
    async with replica() as here:
        lease = await here.grant()
        for agent_id in "abcd":
            await here.register(agent_id, agent=Agent(lease=lease.name))
        await here.revoke(lease.name)
        here.clock.now_s += EXPIRED_KEPT_S + 1
        store, view = here.registry.store, here.registry.view
        first, *_ = list(retention.forget_leases(view, list(view.leases.ended())))
        await here.register("a")
        assert isinstance(await store.commit(first), Conflict)
        janitor, commit = Janitor(here.registry), store.commit
        raced: list[str] = []

        async def race(txn: Txn) -> object:
            if not raced:
                raced.append("b")
                await here.register("b")
            return await commit(txn)

        monkeypatch.setattr(store, "commit", lambda txn: race(txn) if txn.deletes and not txn.puts else commit(txn))
        await janitor.make_round()
        assert await keys(here, "agent:") == ["a", "b", "c", "d"], "nothing after the piece that failed"
        await janitor.make_round()
        assert await keys(here, "agent:") == ["a", "b"]
        assert lease.name not in [f"{PARENT}/leases/{each}" for each in await keys(here, "lease:")]
        assert view.live_count == 2
        with pytest.raises(HoldfastError) as error:
            await here.get("c")
        assert error.value.reason is Reason.AGENT_NOT_FOUND


async def test_a_thousand_that_expired_go_in_a_few_revisions() -> None:
    async with replica() as here:
        for number in range(20):
            lease = await here.grant()
            for agent in range(50):
                await here.register(f"a{number}-{agent}", agent=Agent(lease=lease.name))
            await here.revoke(lease.name)
        begin = here.registry.store.revision
        here.clock.now_s += EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        assert (await here.registry.store.range(""))[1] == []
        assert len(await changes_after(here, begin)) <= 4
