"""Elections through the handlers: a lock with a value."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from holdfast.coordination.v1 import election_service_pb2 as pb
from holdfast.core.holds import acquiring
from holdfast.errors import HoldfastError, Reason
from support.holding import ELECTION, campaign, leader, until_waiting, verify
from support.refusing import Refusing, refusing
from support.replica import CALL, PARENT, Replica, replica
from support.same_view import assert_view_is_what_the_store_says

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


def refused(reason: Reason, here: Replica) -> Refusing:
    """The block is refused for a reason, and leaves the election as it was."""
    return refusing(reason, here, partial(leader, here))


async def proclaim(here: Replica, fence: int, value: bytes) -> pb.Leadership:
    request = pb.ProclaimLeaderRequest(election=ELECTION, fence=fence, value=value)
    return (await here.elections.proclaim_leader(request, CALL)).leadership


async def resign(here: Replica, fence: int) -> int:
    request = pb.ResignLeadershipRequest(election=ELECTION, fence=fence)
    return (await here.elections.resign_leadership(request, CALL)).revision


async def test_a_leader_tells_until_it_resigns_and_the_next_leads_in_that_revision() -> None:
    async with replica() as here:
        a, b = (await here.grant()).name, (await here.grant()).name
        first = await campaign(here, "a", a, value=b"at a")
        assert (first.leader, first.value, first.revision) == ("a", b"at a", here.registry.store.revision)
        waiting = asyncio.ensure_future(campaign(here, "b", b, None, value=b"at b"))
        await until_waiting(here, 1, ELECTION)
        told = await proclaim(here, first.fence, b"moved")
        assert (told.fence, told.value, told.elect_time) == (first.fence, b"moved", first.elect_time)
        assert told.revision == here.registry.store.revision
        assert await leader(here) == told
        revision = await resign(here, first.fence)
        second = await waiting
        assert (second.leader, second.value, second.revision) == ("b", b"at b", revision)
        assert second.fence > first.fence
        await assert_view_is_what_the_store_says(here.registry)
        async with refused(Reason.FENCE_STALE, here):
            await proclaim(here, first.fence, b"I am back")
        async with refused(Reason.FENCE_STALE, here):
            await resign(here, first.fence)


async def test_nobody_leads_from_the_end_of_the_leader_s_lease_on() -> None:
    """And nobody else before the delay is over."""
    async with replica() as here:
        a, b = (await here.grant()).name, (await here.grant()).name
        first = await campaign(here, "a", a, value=b"at a")
        waiting = asyncio.ensure_future(campaign(here, "b", b, 60))
        await until_waiting(here, 1, ELECTION)
        await here.revoke(a)
        assert await leader(here) == pb.Leadership(election=ELECTION)
        assert await verify(here, ELECTION, first.fence) == (False, 0)
        async with refused(Reason.FENCE_STALE, here):
            await proclaim(here, first.fence, b"still here")
        await here.pass_time(0.8)
        assert not waiting.done()
        await here.pass_time(0.4)
        assert (await waiting).leader == "b"


async def test_a_leader_that_campaigns_again_leads_as_before() -> None:
    """With the value it told last: ProclaimLeader changes that."""
    async with replica() as here:
        lease = (await here.grant()).name
        first = await campaign(here, "a", lease, value=b"1", request_id="r")
        assert await campaign(here, "a", lease, value=b"2") == first
        assert await campaign(here, "a", lease, value=b"1", request_id="r") == first
        await resign(here, first.fence)
        async with refused(Reason.FENCE_STALE, here):
            await campaign(here, "a", lease, value=b"1", request_id="r")


async def test_a_lock_and_an_election_of_one_id_are_not_in_each_other_s_way() -> None:
    async with replica() as here:
        lease = (await here.grant()).name
        led = await campaign(here, "a", lease, election=f"{PARENT}/elections/l")
        assert await verify(here, f"{PARENT}/locks/l", led.fence) == (False, 0)
        assert len(here.registry.view.holds) == 1


async def test_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica() as here:
        lease = (await here.grant()).name
        led = await campaign(here, "a", lease, value=b"x" * 1000)
        monkeypatch.setattr(acquiring, "HOLDS_BYTES_MAX", here.registry.view.holds_bytes + 10)
        async with refused(Reason.QUOTA_EXCEEDED, here):
            await proclaim(here, led.fence, b"x" * 1011)
        await proclaim(here, led.fence, b"x" * 1005)
        with pytest.raises(HoldfastError, match="QUOTA_EXCEEDED"):
            await campaign(here, "b", lease, election=f"{PARENT}/elections/other", value=b"x" * 10)


# Observing.


@contextlib.asynccontextmanager
async def observing(here: Replica) -> AsyncIterator[AsyncIterator[pb.ObserveLeaderResponse]]:
    async with contextlib.aclosing(
        here.elections.observe_leader(pb.ObserveLeaderRequest(election=ELECTION), CALL)
    ) as observed:
        yield observed


async def test_an_observer_sees_each_leadership_once_and_nothing_else() -> None:
    """Not that a leader asked again, not a delay that ends, and not what becomes of other elections."""
    async with replica() as here:
        leases = [(await here.grant()).name for _ in range(3)]
        first = await campaign(here, "0", leases[0])
        async with observing(here) as observed:
            assert (await anext(observed)).leadership == first
            await campaign(here, "0", leases[0])
            await campaign(here, "0", leases[0], election=f"{PARENT}/elections/other")
            waiting = asyncio.ensure_future(campaign(here, "1", leases[1], 60))
            await until_waiting(here, 1, ELECTION)
            revision = await resign(here, first.fence)
            seen = await anext(observed)
            assert (seen.leadership, seen.revision) == (await waiting, revision)
            revision = await here.revoke(leases[1])
            assert await anext(observed) == pb.ObserveLeaderResponse(
                leadership=pb.Leadership(election=ELECTION), revision=revision
            )
            await here.pass_time(1.3)
            last = await campaign(here, "2", leases[2])
            assert (await anext(observed)).leadership == last
            assert last.fence > seen.leadership.fence > first.fence


async def test_an_observer_that_does_not_read_is_told_that_it_missed_something() -> None:
    async with replica() as here:
        lease = (await here.grant()).name
        async with observing(here) as observed:
            await anext(observed)
            led = await campaign(here, "a", lease)
            await resign(here, led.fence)
            here.registry.view.history.forget(here.registry.view.revision)
            with pytest.raises(HoldfastError, match="REVISION_COMPACTED"):
                await anext(observed)


async def test_observers_are_counted_among_the_watches() -> None:
    async with replica() as here:
        async with observing(here) as one, observing(here) as two:
            await anext(one)
            await anext(two)
            async with observing(here) as three:
                with pytest.raises(HoldfastError, match="QUOTA_EXCEEDED"):
                    await anext(three)
        assert here.registry.audience.count == 0
