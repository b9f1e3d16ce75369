"""Replicas that share a store: every lease is kept by one of them, and none ends before it was promised."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveResult, LeaseDirective
from holdfast.replicas import BEAT_EVERY_S, PROOF_S, TAKEOVER_S, Replicas
from holdfast.service.janitor import Janitor
from holdfast.store.interface import Change, Committed, Conflict, KeyValue, Txn
from holdfast.store.memory import MemoryStore
from support.replica import Clock, Replica, replica


class SharedStore(MemoryStore):
    """One store that several replicas of one process share."""

    is_shared = True


class Link:
    """One replica's way to the store: while it is cut, nothing is written, read or heard through it."""

    is_shared = True

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.epoch = store.epoch
        self._seen = store.revision
        self._whole = asyncio.Event()
        self._whole.set()

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def cut(self) -> None:
        self._seen = self.store.revision
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    @property
    def revision(self) -> int:
        return self._seen if self.is_cut else self.store.revision

    @property
    def compact_revision(self) -> int:
        return self.store.compact_revision

    async def open(self) -> None:
        """It is open."""

    def _check(self) -> None:
        if self.is_cut:
            raise HoldfastError(Reason.STORE_UNAVAILABLE, "it is cut off")

    async def current_revision(self) -> int:
        self._check()
        return await self.store.current_revision()

    def commit(self, txn: Txn) -> asyncio.Future[Committed | Conflict]:
        self._check()
        return self.store.commit(txn)

    async def range(self, prefix: str, revision: int = 0) -> tuple[int, list[KeyValue]]:
        self._check()
        return await self.store.range(prefix, revision)

    async def watch(self, from_revision: int) -> AsyncIterator[Sequence[Change]]:
        async for changes in self.store.watch(from_revision):
            for change in changes:
                while self.is_cut and change.revision > self._seen:
                    await self._whole.wait()
                yield [change]

    async def compact(self, revision: int) -> None:
        self._check()
        await self.store.compact(revision)

    async def close(self) -> None:
        """It belongs to others, too."""


class Fleet:
    """Replicas over one store; `step` lets time pass for all that are up, each by its own clock."""

    def __init__(self, members: list[Replica], links: list[Link]) -> None:
        self.members = members
        self.links = links
        self.paused: set[int] = set()
        self.rates = [1.0] * len(members)

    def sharing(self, index: int) -> Replicas:
        sharing = self.members[index].registry.replicas
        assert sharing is not None
        return sharing

    def is_cut(self, index: int) -> bool:
        return bool(self.links) and self.links[index].is_cut

    async def step(self, seconds: float = 0.25) -> None:
        for index, member in enumerate(self.members):
            member.clock.now_s += seconds * self.rates[index]
            if index in self.paused:
                continue
            with contextlib.suppress(HoldfastError):
                await self.sharing(index).make_round()
            member.registry.keeper.look()
            if not self.is_cut(index):
                await member.settle()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            await self.step()


@contextlib.asynccontextmanager
async def fleet(count: int = 2) -> AsyncIterator[Fleet]:
    store = SharedStore()
    links = [Link(store) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(replica(link, Clock(1000.0 * number)))
            for number, link in enumerate(links, 1)
        ]
        together = Fleet(members, links)
        await together.step()
        yield together


def is_kept(result: KeepLeaseAliveResult) -> bool:
    return not result.status.code


async def test_an_embedded_store_has_no_owners_and_no_beats() -> None:
    async with replica() as here:
        assert here.registry.replicas is None
        await here.register("a")
        assert here.registry.store.revision == 1


async def test_history_that_others_compacted_is_not_forgotten_before_it_is_taken_in() -> None:
    """The history of a replica that lags behind ends where its view is."""
    async with fleet() as two:
        a, b = two.members
        two.links[1].cut()
        for number in range(20):
            await a.register(f"x{number}")
        store = two.links[1].store
        await store.compact(store.revision - 1)
        two.links[1].mend()
        await Janitor(b.registry, retain_revisions=0).make_round()
        assert b.registry.view.revision < store.revision
        assert b.registry.view.history.end == b.registry.view.revision


async def test_a_lease_is_kept_and_ended_by_its_owner_alone() -> None:
    """The other neither ends it early nor late: it has no deadline for it."""
    async with fleet() as two:
        a, b = two.members
        lease = (await a.register("x", ttl_s=5)).lease
        await two.step()
        assert b.registry.keeper.left_s(lease) is None
        for _ in range(4):
            await two.pass_time(3)
            assert is_kept((await a.keep(lease))[0])
        assert await b.listed() == ["x"]
        await two.pass_time(5.5)
        assert await b.listed() == []


async def test_a_keepalive_at_another_replica_moves_the_lease_there() -> None:
    """The fence stays, the first owner lets go, and what that one promised last still holds."""
    async with fleet() as two:
        a, b = two.members
        agent = await a.register("x", ttl_s=5)
        await two.pass_time(4)
        [kept] = await b.keep(agent.lease)
        assert is_kept(kept)
        await two.step()
        assert a.registry.keeper.left_s(agent.lease) is None
        assert (await a.get("x")).fence == agent.fence
        await two.pass_time(4.5)
        assert await a.listed() == ["x"]
        await two.pass_time(1 + TAKEOVER_S)
        assert await a.listed() == []


@pytest.mark.parametrize("death", ["killed", "paused"])
async def test_what_a_silent_replica_kept_is_taken_over_with_its_full_ttl(death: str) -> None:
    """L2: never before the last promise and its TTL; and by one more TTL, no more, from when it was taken over."""
    async with fleet() as two:
        a, b = two.members
        lease = (await a.register("x", ttl_s=10)).lease
        await two.step()
        assert is_kept((await a.keep(lease))[0])
        two.paused.add(0)
        await two.pass_time(TAKEOVER_S + 0.5)
        assert b.registry.keeper.left_s(lease) is not None, "it was not taken over"
        await two.pass_time(9)
        assert await b.listed() == ["x"]
        await two.pass_time(1.5)
        assert await b.listed() == []
        if death == "paused":
            two.paused.clear()
            [late] = await a.keep(lease)
            assert not is_kept(late)


async def test_a_replica_without_proof_promises_nothing() -> None:
    """Cut off from the store it cannot know who owns its leases; it says so, and that is no end of the lease."""
    async with fleet() as two:
        a, _ = two.members
        lease = (await a.register("x", ttl_s=30)).lease
        await two.step()
        a.clock.now_s += PROOF_S + 0.1
        [refused] = await a.keep(lease)
        assert not is_kept(refused)
        assert refused.directive == LeaseDirective.LEASE_DIRECTIVE_UNSPECIFIED
        await two.step()
        assert is_kept((await a.keep(lease))[0])


async def test_a_beat_that_was_not_seen_yet_stops_a_takeover() -> None:
    """Silence is judged at the revision of the take-over, not by a view that may be behind."""
    async with fleet() as two:
        a, b = two.members
        lease = (await a.register("x", ttl_s=10)).lease
        await two.step()
        sharing = two.sharing(1)
        b.clock.now_s += TAKEOVER_S + 1
        [silent] = sharing._silent()
        await two.sharing(0).make_round()  # its beat is committed after the other judged it silent
        await sharing._take_over(silent)
        assert sharing.takeovers_total == 0
        assert is_kept((await a.keep(lease))[0])


async def test_a_store_that_nobody_reached_is_no_reason_to_take_over() -> None:
    """The first to write again finds that the others were not heard, and nor was it."""
    async with fleet() as two:
        a, _ = two.members
        lease = (await a.register("x", ttl_s=30)).lease
        await two.pass_time(2)
        for link in two.links:
            link.cut()
        await two.pass_time(TAKEOVER_S * 2)
        two.links[1].mend()
        await two.pass_time(TAKEOVER_S - 1)
        two.links[0].mend()
        await two.pass_time(TAKEOVER_S)
        assert two.sharing(1).takeovers_total == 0
        assert is_kept((await a.keep(lease))[0])


async def test_a_lease_whose_keeper_is_cut_off_stands_until_another_can_have_it() -> None:
    """L1: what was acknowledged last holds; the one cut off ends nothing, and owns nothing when it is back."""
    async with fleet() as two:
        a, b = two.members
        lease = (await a.register("x", ttl_s=5)).lease
        await two.pass_time(1)
        assert is_kept((await a.keep(lease))[0])
        two.links[0].cut()
        await two.pass_time(TAKEOVER_S + 0.5)
        assert await b.listed() == ["x"]
        assert is_kept((await b.keep(lease))[0])
        two.links[0].mend()
        await two.pass_time(4.5)
        assert await b.listed() == ["x"]
        assert a.registry.keeper.left_s(lease) is None


async def test_a_lease_that_moved_outlasts_the_proof_of_its_owner_before_though_clocks_run_apart() -> None:
    """L1: cut off, the owner acknowledges until its proof runs out by its slow clock; the new one's runs fast."""
    async with fleet() as two:
        a, b = two.members
        two.rates = [0.81, 1.19]
        lease = (await a.register("x", ttl_s=2)).lease
        await two.step()
        two.links[0].cut()
        assert is_kept((await b.keep(lease))[0])
        promised_s = b.clock.now_s
        while is_kept((await a.keep(lease))[0]):
            promised_s = b.clock.now_s + 2
            await two.step()
        while stands(two, lease):
            await two.step()
        assert b.clock.now_s >= promised_s


async def test_a_lease_that_came_to_a_silent_replica_outlasts_the_proof_of_its_owner_before() -> None:
    """L1: moved just before it is taken over, it may yet be kept by a replica that knows of neither."""
    async with fleet(3) as three:
        a, b, c = three.members
        lease = (await a.register("x", ttl_s=2)).lease
        await three.step()
        three.paused.add(1)
        for _ in range(round(PROOF_S / 0.25) - 1):
            await three.step()
            assert is_kept((await a.keep(lease))[0])
        three.links[0].cut()
        assert is_kept((await b.keep(lease))[0])
        promised_s = c.clock.now_s
        while is_kept((await a.keep(lease))[0]):
            promised_s = c.clock.now_s + 2
            await three.step()
        assert three.sharing(2).takeovers_total == 1
        while stands(three, lease):
            await three.step()
        assert c.clock.now_s >= promised_s


async def test_leases_of_an_owner_that_never_beat_are_taken_over() -> None:
    """As after a restart: the new process has a new id, and nobody will ever speak for the old one."""
    store = SharedStore()
    clock = Clock()
    async with replica(store, clock) as before:
        await before.registry.replicas.make_round()  # type: ignore[union-attr]
        lease = (await before.register("x", ttl_s=10)).lease
    async with replica(store, clock) as after:
        one = Fleet([after], [])
        await one.pass_time(TAKEOVER_S + 0.5)
        assert after.registry.keeper.left_s(lease) is not None
        assert is_kept((await after.keep(lease))[0])
        assert after.registry.view.replicas.keys() == {after.registry.replica}


async def test_many_leases_are_taken_over_in_few_revisions() -> None:
    async with fleet() as two:
        a, b = two.members
        await asyncio.gather(*(a.grant(ttl_s=60) for _ in range(1200)))
        await two.step()
        two.paused.add(0)
        await two.pass_time(TAKEOVER_S - BEAT_EVERY_S)
        before = b.registry.store.revision
        await two.pass_time(3)
        assert two.sharing(1).takeovers_total == 1200
        assert b.registry.store.revision - before < 1200 / 500 + 20


@pytest.mark.parametrize("seed", range(40))
async def test_no_promise_is_broken_whatever_stops_or_moves(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1, L2, L4: pauses, cuts, keepalives here and there, clocks that run apart; judged by promises and ends alone."""
    monkeypatch.setattr("holdfast.leases.RETRY_S", 0)  # the one pause that is not of the fleet's clocks
    rng = random.Random(seed)
    async with fleet(3) as three:
        three.rates = [rng.uniform(0.97, 1.03) for _ in range(3)]
        leases = {(await three.members[n % 3].register(f"x{n}", ttl_s=3 + n)).lease: 3.0 + n for n in range(5)}
        true_s, promised = 0.0, dict(leases)
        for _ in range(200):
            if rng.random() < 0.05:
                three.paused ^= {rng.randrange(3)}
            if rng.random() < 0.05:
                link = rng.choice(three.links)
                (link.mend if link.is_cut else link.cut)()
            for lease, ttl_s in leases.items():
                index = rng.randrange(3)
                if rng.random() < 0.1 and index not in three.paused:
                    [result] = await three.members[index].keep(lease)
                    if is_kept(result):
                        promised[lease] = true_s + ttl_s
            await three.step()
            true_s += 0.25
            standing = {lease for lease in leases if stands(three, lease)}
            broken = {lease for lease in leases if lease not in standing and true_s < promised[lease] * 0.95 - 0.5}
            assert not broken, f"seed {seed}: ended at {true_s:.2f} s, promised until {promised}"
        three.paused.clear()
        for link in three.links:
            link.mend()
        await three.pass_time(TAKEOVER_S + 3 * 7 + PROOF_S)
        assert not any(stands(three, lease) for lease in leases), f"seed {seed}: a lease outlived everybody"


def stands(together: Fleet, lease: str) -> bool:
    """By the member that knows most."""
    newest = max(together.members, key=lambda member: member.registry.view.revision)
    found = newest.registry.view.lease(lease)
    return found is not None and found.stands
