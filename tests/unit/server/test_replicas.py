"""Replicas that share a store: every lease is kept by one of them, and none ends before it was promised."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from holdfast.errors import HoldfastError
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveResult, LeaseDirective
from holdfast.replicas import BEAT_EVERY_S, PROOF_S, TAKEOVER_S, Replicas
from holdfast.store.memory import MemoryStore
from support.replica import Clock, Replica, replica


class SharedStore(MemoryStore):
    """One store that several replicas of one process share."""

    is_shared = True


class Fleet:
    """Replicas over one store; `step` lets time pass for all that are up, each by its own clock."""

    def __init__(self, members: list[Replica]) -> None:
        self.members = members
        self.paused: set[int] = set()
        self.rates = [1.0] * len(members)

    def sharing(self, index: int) -> Replicas:
        sharing = self.members[index].registry.replicas
        assert sharing is not None
        return sharing

    async def step(self, seconds: float = 0.25) -> None:
        for index, member in enumerate(self.members):
            member.clock.now_s += seconds * self.rates[index]
            if index in self.paused:
                continue
            with contextlib.suppress(HoldfastError):
                await self.sharing(index).make_round()
            member.registry.keeper.look()
            await member.settle()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            await self.step()


@contextlib.asynccontextmanager
async def fleet(count: int = 2) -> AsyncIterator[Fleet]:
    store = SharedStore()
    async with contextlib.AsyncExitStack() as stack:
        members = [await stack.enter_async_context(replica(store, Clock(1000.0 * n))) for n in range(1, count + 1)]
        together = Fleet(members)
        await together.step()
        yield together


def is_kept(result: KeepLeaseAliveResult) -> bool:
    return not result.status.code


async def test_an_embedded_store_has_no_owners_and_no_beats() -> None:
    async with replica() as here:
        assert here.registry.replicas is None
        await here.register("a")
        assert here.registry.store.revision == 1


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
        await two.pass_time(1 + PROOF_S)
        assert await a.listed() == []


@pytest.mark.parametrize("death", ["killed", "paused"])
async def test_what_a_silent_replica_kept_is_taken_over_with_its_full_ttl(death: str) -> None:
    """L2 and the bound of DESIGN: never before the last promise and its TTL, and at most two TTLs and a grace after."""
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
        await two.pass_time(10 + PROOF_S)
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


async def test_leases_of_an_owner_that_never_beat_are_taken_over() -> None:
    """As after a restart: the new process has a new id, and nobody will ever speak for the old one."""
    store = SharedStore()
    clock = Clock()
    async with replica(store, clock) as before:
        await before.registry.replicas.make_round()  # type: ignore[union-attr]
        lease = (await before.register("x", ttl_s=10)).lease
    async with replica(store, clock) as after:
        one = Fleet([after])
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
async def test_no_promise_is_broken_whatever_stops_or_moves(seed: int) -> None:
    """L2, L4: pauses, keepalives here and there, clocks that run apart; judged by promises and ends alone."""
    rng = random.Random(seed)
    async with fleet(3) as three:
        three.rates = [rng.uniform(0.97, 1.03) for _ in range(3)]
        leases = {(await three.members[n % 3].register(f"x{n}", ttl_s=3 + n)).lease: 3.0 + n for n in range(5)}
        true_s, promised = 0.0, dict(leases)
        for _ in range(200):
            if rng.random() < 0.05:
                three.paused ^= {rng.randrange(3)}
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
        await three.pass_time(TAKEOVER_S + 3 * 7 + PROOF_S)
        assert not any(stands(three, lease) for lease in leases), f"seed {seed}: a lease outlived everybody"


def stands(together: Fleet, lease: str) -> bool:
    """By the member that knows most."""
    newest = max(together.members, key=lambda member: member.registry.view.revision)
    found = newest.registry.view.lease(lease)
    return found is not None and found.stands
