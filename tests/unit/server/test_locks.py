"""Locks through the handlers: one holder at a time, fences that only grow, a delay after a loss, a line in order."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from holdfast.coordination.v1 import lock_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.holds import acquiring
from holdfast.errors import HoldfastError, Reason
from holdfast.lines import Lines
from holdfast.store.interface import Store
from support.engines import new_store
from support.holding import LOCK, acquire, force, read, release, seconds, until_waiting, verify
from support.refusing import Refusing, refusing
from support.replica import CALL, PARENT, Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""

OTHER = f"{PARENT}/locks/other"
FREE, HELD, DELAYED = pb.LOCK_STATE_FREE, pb.LOCK_STATE_HELD, pb.LOCK_STATE_DELAYED


@contextlib.asynccontextmanager
async def opened(store: Store | None = None) -> AsyncIterator[Replica]:
    """A replica over a store, whose view is what the store says when the block ends."""
    async with replica(store) as here:
        yield here
        await assert_view_is_what_the_store_says(here.registry)


def refused(reason: Reason, here: Replica, lock: str = LOCK) -> Refusing:
    """The block is refused for a reason, and leaves the lock as it was."""
    return refusing(reason, here, partial(read, here, lock))


async def test_a_lock_has_one_holder_until_it_is_given_back() -> None:
    async with opened() as here:
        a, b = (await here.grant()).name, (await here.grant()).name
        held = await acquire(here, "a", a)
        assert (held.state, held.holder, held.lease, held.revision) == (HELD, "a", a, here.registry.store.revision)
        assert held == await read(here)
        async with refused(Reason.LOCK_HELD, here) as caught:
            await acquire(here, "b", b)
        assert f"'a' holds it with fence {held.fence}, under {a}" in caught.value.message
        assert await release(here, held.fence) == pb.Lock(name=LOCK, state=FREE)
        assert (await acquire(here, "b", b)).fence > held.fence


async def test_the_first_in_line_has_it_in_the_revision_in_which_it_is_given_back() -> None:
    """K5, and what must change at once changes in one revision."""
    async with opened() as here:
        leases = [(await here.grant()).name for _ in range(4)]
        held = await acquire(here, "0", leases[0])
        waiting = []
        for number in (1, 2, 3):
            waiting.append(asyncio.ensure_future(acquire(here, str(number), leases[number], 60)))
            await until_waiting(here, number)
        assert (await read(here)).waiters == 3
        fences = [held.fence]
        for number in (1, 2, 3):
            revision = here.registry.store.revision
            after = await release(here, fences[-1])
            assert (after.holder, after.revision) == (str(number), revision + 1)
            got = await waiting[number - 1]
            assert (got.holder, got.fence) == (str(number), after.fence)
            assert here.registry.store.revision == revision + 1
            fences.append(got.fence)
        assert fences == sorted(set(fences))


async def test_fences_grow_across_release_loss_and_restart() -> None:
    """K2: nothing of a lock that is free is kept, and its fences grow all the same."""
    store, fences = new_store(), []
    async with opened(store) as here:
        for _ in range(3):
            fences.append((await acquire(here, "a", (await here.grant()).name)).fence)
            await release(here, fences[-1])
        _, records = await store.range("lock:")
        assert records == []
        lease = (await here.grant()).name
        fences.append((await acquire(here, "a", lease, delay=seconds(0))).fence)
        await here.revoke(lease)
        fences.append((await acquire(here, "a", (await here.grant()).name)).fence)
    async with opened(store) as again:
        await release(again, fences[-1])
        fences.append((await acquire(again, "a", (await again.grant()).name)).fence)
    assert fences == sorted(set(fences))
    assert max(fences) < 1 << 53


async def test_a_lost_holder_s_lock_is_not_had_before_its_delay_is_over() -> None:
    """K4, whether anybody waits or asks at once."""
    async with opened() as here:
        lease, other = await here.grant(ttl_s=2), (await here.grant(ttl_s=60)).name
        held = await acquire(here, "a", lease.name, delay=seconds(3))
        waiting = asyncio.ensure_future(acquire(here, "b", other, 600))
        await until_waiting(here, 1)
        await here.pass_time(2.4)
        lost = await read(here)
        assert (lost.state, lost.holder, lost.fence, lost.acquire_time) == (DELAYED, "a", held.fence, held.acquire_time)
        assert lost.revision > held.revision
        async with refused(Reason.LOCK_HELD, here) as caught:
            await acquire(here, "c", other)
        assert "its delay is not over" in caught.value.message
        async with refused(Reason.FENCE_STALE, here):
            await release(here, held.fence)
        await here.pass_time(2.4)
        assert not waiting.done()
        await here.pass_time(0.6)
        assert (await waiting).holder == "b"


async def test_a_lock_nobody_waits_for_leaves_nothing_after_its_delay() -> None:
    async with opened() as here:
        lease = (await here.grant()).name
        await acquire(here, "a", lease)
        await here.revoke(lease)
        assert (await read(here)).state == DELAYED
        await here.pass_time(1.3)
        assert await read(here) == pb.Lock(name=LOCK, state=FREE)
        assert (await here.registry.store.range("lock:"))[1] == []


async def test_the_end_of_a_lease_loses_everything_it_held_in_one_revision() -> None:
    """L3, of locks that are listed, and of those that have no delay."""
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        for number in range(20):
            await acquire(here, "a", lease, lock=f"{PARENT}/locks/l{number}", delay=seconds(number % 2))
        revision = await here.revoke(lease)
        assert here.registry.store.revision == revision
        page = await here.locks.list_locks(pb.ListLocksRequest(parent=PARENT), CALL)
        assert [(each.state, each.revision) for each in page.locks] == [(DELAYED, revision)] * 10
        assert (await read(here, f"{PARENT}/locks/l0")).state == FREE


async def test_a_restart_counts_a_delay_anew_and_never_less() -> None:
    store, clock = new_store(), Clock()
    async with replica(store, clock) as here:
        lease, other = (await here.grant()).name, (await here.grant()).name
        held = await acquire(here, "a", lease, delay=seconds(5))
        await here.revoke(lease)
        await here.pass_time(4)
    async with replica(store, clock) as here:
        await here.pass_time(4.6)
        assert (await read(here)).state == DELAYED
        await here.pass_time(0.6)
        assert (await acquire(here, "b", other)).fence > held.fence


async def test_a_restart_leaves_a_holder_its_lock() -> None:
    store, clock = new_store(), Clock()
    async with replica(store, clock) as here:
        lease = (await here.grant()).name
        held = await acquire(here, "a", lease)
    async with replica(store, clock) as here:
        assert await read(here) == held
        assert await acquire(here, "a", lease) == held
        assert (await release(here, held.fence)).state == FREE


async def test_an_operator_takes_a_lock_away_and_says_why() -> None:
    async with opened(new_store()) as here:
        lease, other = (await here.grant()).name, (await here.grant()).name
        held = await acquire(here, "a", lease)
        taken = await force(here, "the machine is on fire")
        assert (taken.state, taken.fence, taken.revision) == (DELAYED, held.fence, here.registry.store.revision)
        assert taken.HasField("free_time")
        async with refused(Reason.FENCE_STALE, here):
            await release(here, held.fence)
        revision = here.registry.store.revision
        assert await force(here) == taken
        assert here.registry.store.revision == revision
        _, (record,) = await here.registry.store.range("lock:")
        assert b"the machine is on fire" in record.value
        async with refused(Reason.LOCK_HELD, here):
            await acquire(here, "a", lease)
        await here.pass_time(1.3)
        assert (await acquire(here, "b", other)).holder == "b"
        async with refused(Reason.LOCK_NOT_FOUND, here, OTHER):
            await force(here, lock=OTHER)


async def test_a_holder_that_asks_again_gets_the_hold_it_has() -> None:
    async with opened(new_store()) as here:
        lease, other = (await here.grant()).name, (await here.grant()).name
        held = await acquire(here, "a", lease)
        assert await acquire(here, "a", lease) == held
        for holder, under in (("a", other), ("b", lease)):
            async with refused(Reason.LOCK_HELD, here):
                await acquire(here, holder, under)


async def test_a_repeated_request_gets_its_hold_as_long_as_that_is_held() -> None:
    """After that it is told so, rather than that it holds something, or is given the lock a second time."""
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        held = await acquire(here, "a", lease, request_id="r")
        assert await acquire(here, "a", lease, request_id="r") == held
        async with refused(Reason.REQUEST_ID_REUSED, here):
            await acquire(here, "b", lease, request_id="r")
        await release(here, held.fence)
        async with refused(Reason.FENCE_STALE, here):
            await acquire(here, "a", lease, request_id="r")
        again = await acquire(here, "a", lease, request_id="r2")
        async with refused(Reason.FENCE_STALE, here):
            await acquire(here, "a", lease, request_id="r")
        assert (
            await acquire(here, "a", lease, request_id="r3")
            == again
            == await acquire(here, "a", lease, request_id="r2")
        )
        assert await acquire(here, "a", lease, request_id="r3") == again


@pytest.mark.parametrize("how", ["none", "revoked", "expired", "of another namespace"])
async def test_a_lease_that_does_not_stand_holds_nothing(how: str) -> None:
    async with opened(new_store()) as here:
        lease = (await here.grant(ttl_s=1)).name
        match how:
            case "none":
                lease = f"{PARENT}/leases/none"
            case "revoked":
                await here.revoke(lease)
            case "expired":
                await here.pass_time(2)
            case _:
                lease = "namespaces/other/leases/l"
        reason = Reason.INVALID_FIELD if "other" in lease else Reason.LEASE_NOT_FOUND
        async with refused(reason, here):
            await acquire(here, "a", lease)
        async with refused(reason, here):
            await acquire(here, "a", lease, 60)


async def test_nobody_gives_back_what_it_does_not_hold() -> None:
    """K3: not without the fence, not with that of a hold before, and not with that of another lock."""
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        first = await acquire(here, "a", lease)
        await release(here, first.fence)
        second = await acquire(here, "b", lease)
        other = await acquire(here, "b", lease, lock=OTHER)
        for fence in (first.fence, second.fence - 1, second.fence + 1, other.fence, 1, (1 << 53) - 1):
            async with refused(Reason.FENCE_STALE, here) as caught:
                await release(here, fence)
            assert caught.value.metadata == {"current_fence": str(second.fence)}
        await release(here, second.fence)
        async with refused(Reason.FENCE_STALE, here):
            await release(here, second.fence)


async def test_a_fence_is_valid_while_its_hold_is_held_and_no_longer() -> None:
    async with opened(new_store()) as here:
        agent = await here.register("x", ttl_s=5)
        held = await acquire(here, "a", agent.lease)
        assert await verify(here, LOCK, held.fence) == (True, held.fence)
        assert await verify(here, LOCK, held.fence - 1) == (False, held.fence)
        assert await verify(here, OTHER, held.fence) == (False, 0)
        assert await verify(here, agent.name, agent.fence) == (True, agent.fence)
        assert await verify(here, f"{PARENT}/agents/none", 5) == (False, 0)
        await here.pass_time(6)
        assert await verify(here, LOCK, held.fence) == (False, 0)
        assert await verify(here, agent.name, agent.fence) == (False, 0)


async def test_the_fence_of_an_activation_is_valid_while_its_agent_has_it() -> None:
    async with opened(new_store()) as here:
        work = Work(here)
        await work.hire("x", can="review")
        created = await work.create(selector=AgentSelector(all_of=["review"]))
        (held,) = await work.fetch("x")
        assert await verify(here, created.name, held.fence) == (True, held.fence)
        await work.accept(held)
        assert await verify(here, created.name, held.fence - 1) == (False, held.fence)
        await work.complete(held)
        assert await verify(here, created.name, held.fence) == (False, 0)
        assert await verify(here, f"{PARENT}/activations/none", held.fence) == (False, 0)


# In line.


async def test_a_wait_that_ends_says_who_has_it_and_leaves_the_line() -> None:
    async with opened(new_store()) as here:
        lease, other = (await here.grant()).name, (await here.grant()).name
        await acquire(here, "a", lease)
        async with refused(Reason.LOCK_HELD, here):
            await acquire(here, "b", other, 0.05)
        assert len(here.registry.holding.lines) == 0


async def test_who_goes_away_leaves_the_line_and_the_next_moves_up() -> None:
    async with opened(new_store()) as here:
        leases = [(await here.grant()).name for _ in range(3)]
        held = await acquire(here, "0", leases[0])
        first = asyncio.ensure_future(acquire(here, "1", leases[1], 60))
        await until_waiting(here, 1)
        second = asyncio.ensure_future(acquire(here, "2", leases[2], 60))
        await until_waiting(here, 2)
        first.cancel()
        await until_waiting(here, 1)
        await release(here, held.fence)
        assert (await second).holder == "2"


async def test_a_waiter_whose_lease_ends_is_told_so_at_once() -> None:
    async with opened(new_store()) as here:
        leases = [(await here.grant()).name for _ in range(3)]
        held = await acquire(here, "0", leases[0])
        first = asyncio.ensure_future(acquire(here, "1", leases[1], 60))
        await until_waiting(here, 1)
        second = asyncio.ensure_future(acquire(here, "2", leases[2], 60))
        await until_waiting(here, 2)
        await here.revoke(leases[1])
        with pytest.raises(HoldfastError, match="LEASE_NOT_FOUND"):
            await first
        await release(here, held.fence)
        assert (await second).holder == "2"


async def test_nobody_overtakes_those_in_line() -> None:
    """One who comes while the lock is given to the first in line finds it taken, or has to wait."""
    async with opened(new_store()) as here:
        leases = [(await here.grant()).name for _ in range(3)]
        held = await acquire(here, "0", leases[0])
        first = asyncio.ensure_future(acquire(here, "1", leases[1], 60))
        await until_waiting(here, 1)
        _, late = await asyncio.gather(release(here, held.fence), acquire(here, "2", leases[2]), return_exceptions=True)
        assert isinstance(late, HoldfastError)
        assert late.reason is Reason.LOCK_HELD
        assert (await first).holder == "1"


async def test_what_a_caller_got_after_it_had_gone_is_taken_back() -> None:
    """Whether it waited or asked at once, and whoever gave it to the caller: the next in line has it, or nobody."""
    async with opened(new_store()) as here:
        leases = [(await here.grant()).name for _ in range(3)]
        for wait_s in (None, 60):
            asking = asyncio.ensure_future(acquire(here, "1", leases[1], wait_s, request_id=f"r{wait_s}"))
            await until_written(here)
            asking.cancel()
            await free(here)
            assert here.registry.view.request(f"request:{PARENT}/AcquireLock/r{wait_s}") is None
        held = await acquire(here, "0", leases[0])
        gone = asyncio.ensure_future(acquire(here, "1", leases[1], 60))
        await until_waiting(here, 1)
        next_one = asyncio.ensure_future(acquire(here, "2", leases[2], 60))
        await until_waiting(here, 2)
        releasing = asyncio.ensure_future(release(here, held.fence))
        await until_written(here)
        gone.cancel()
        assert (await releasing).holder == "1"
        assert (await next_one).holder == "2"


async def until_written(here: Replica) -> None:
    """Returns once something is on its way to the store."""
    while not here.registry.store._queue:  # type: ignore[attr-defined] # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0)


async def free(here: Replica) -> None:
    """Returns once the lock was had, and is free."""
    async with asyncio.timeout(10):
        while not here.registry.holding._tasks or (await read(here)).state != FREE:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        while here.registry.holding._tasks:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
    assert (await read(here)).state == FREE


async def test_what_was_told_to_another_call_since_is_not_taken_back() -> None:
    """A caller that lost its connection and asked again has its lock, although its first call has gone."""
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        for request_id in ("", "r"):
            first = asyncio.ensure_future(acquire(here, "a", lease, 60, request_id=request_id))
            await until_written(here)
            again = asyncio.ensure_future(acquire(here, "a", lease, 60, request_id=request_id))
            first.cancel()
            held = await again
            while here.registry.holding._tasks:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            assert (await verify(here, LOCK, held.fence))[0]
            await release(here, held.fence)


async def test_a_call_that_goes_away_takes_nothing_from_one_that_was_answered() -> None:
    """As with hedged calls: the first answer counts, and the other call is cancelled, in the middle of its write."""
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        held = await acquire(here, "a", lease, 60, request_id="r")
        for request_id in ("r", ""):
            hedged = asyncio.ensure_future(acquire(here, "a", lease, 60, request_id=request_id))
            await until_written(here)
            hedged.cancel()
            while here.registry.holding._tasks:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            assert await read(here) == held


async def test_lines_have_bounds_and_one_host_has_half(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        await acquire(here, "a", lease)
        monkeypatch.setattr(here.registry.holding, "lines", Lines(waiters_max=6, line_max=4))
        waiting = []

        async def wait(count: int, lock: str, client: str) -> None:
            waiting.append(
                asyncio.ensure_future(acquire(here, f"w{len(waiting)}", lease, 60, lock=lock, client=client))
            )
            await until_waiting(here, count, lock)

        await acquire(here, "a", lease, lock=OTHER)
        for count in (1, 2, 3):
            await wait(count, LOCK, "one")
        async with refused(Reason.QUOTA_EXCEEDED, here, OTHER) as caught:
            await acquire(here, "late", lease, 60, lock=OTHER, client="one")
        assert "3 of your host" in caught.value.message
        free = f"{PARENT}/locks/free"
        assert (
            await acquire(here, "a", lease, 60, lock=free, client="one")
        ).holder == "a"  # who need not wait may come
        await wait(4, LOCK, "two")
        async with refused(Reason.QUOTA_EXCEEDED, here):
            await acquire(here, "late", lease, 60, client="three")
        await wait(1, OTHER, "two")
        await wait(2, OTHER, "three")
        async with refused(Reason.QUOTA_EXCEEDED, here, OTHER):
            await acquire(here, "late", lease, 60, lock=OTHER, client="four")
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        lines = here.registry.holding.lines
        assert (len(lines), lines._lines, lines._by_lease) == (0, {}, {})
        assert (lines._by_client, lines._by_name) == ({}, {})
        assert lines._all.size_bytes == 0


async def test_ten_thousand_waiters_get_their_turn_or_their_refusal() -> None:
    """As many as there may be, of ten locks; what one handover costs does not grow with the line."""
    async with opened(new_store()) as here:
        lease = (await here.grant(ttl_s=3600)).name
        names = [f"{PARENT}/locks/l{number}" for number in range(10)]
        held = {name: await acquire(here, "a", lease, lock=name) for name in names}
        waiting = {
            name: [asyncio.ensure_future(acquire(here, f"w{n}", lease, 600, lock=name)) for n in range(1000)]
            for name in names
        }
        for name in names:
            await until_waiting(here, 1000, name)
        with pytest.raises(HoldfastError, match="1000 wait for it already"):
            await acquire(here, "late", lease, 60, lock=names[0])
        for name in names:
            fence = held[name].fence
            for each in waiting[name][:20]:
                fence, before = (await release(here, fence, name)).fence, fence
                assert (await each).fence == fence > before
        await here.revoke(lease)
        outcomes = await asyncio.gather(
            *(each for line in waiting.values() for each in line[20:]), return_exceptions=True
        )
        assert {each.reason for each in outcomes if isinstance(each, HoldfastError)} == {Reason.LEASE_NOT_FOUND}
        assert len(here.registry.holding.lines) == 0


async def test_there_are_bounds_on_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(new_store()) as here:
        lease, other = (await here.grant()).name, (await here.grant()).name
        monkeypatch.setattr(acquiring, "LEASE_HOLDS_MAX", 2)
        monkeypatch.setattr(acquiring, "HOLDS_MAX", 3)
        for number in range(2):
            await acquire(here, "a", lease, lock=f"{PARENT}/locks/l{number}")
        async with refused(Reason.QUOTA_EXCEEDED, here) as caught:
            await acquire(here, "a", lease)
        assert caught.value.subject == lease
        await acquire(here, "a", other)
        async with refused(Reason.QUOTA_EXCEEDED, here, OTHER) as caught:
            await acquire(here, "a", other, lock=OTHER)
        assert caught.value.subject == "locks"


async def test_those_who_wait_are_sent_elsewhere_when_the_server_ends() -> None:
    async with opened(new_store()) as here:
        leases = [(await here.grant()).name for _ in range(2)]
        await acquire(here, "a", leases[0])
        waiting = asyncio.ensure_future(acquire(here, "b", leases[1], 60))
        await until_waiting(here, 1)
        here.registry.holding.lines.close()
        with pytest.raises(HoldfastError, match="NOT_READY"):
            await waiting
        with pytest.raises(HoldfastError, match="NOT_READY"):
            await acquire(here, "b", leases[1], 60)


async def test_locks_are_listed_by_name_and_filter() -> None:
    async with opened(new_store()) as here:
        lease = (await here.grant()).name
        for number in range(5):
            await acquire(here, f"h{number % 2}", lease, lock=f"{PARENT}/locks/l{number}")
        await acquire(here, "h0", lease, lock=f"{PARENT}/locks/l9")
        await release(here, (await read(here, f"{PARENT}/locks/l9")).fence, f"{PARENT}/locks/l9")
        found: list[str] = []
        request = pb.ListLocksRequest(parent=PARENT, filter="holder = h0", page_size=2)
        while True:
            page = await here.locks.list_locks(request, CALL)
            found += [lock.name.rsplit("/", 1)[1] for lock in page.locks]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert found == ["l0", "l2", "l4"]


async def test_two_replicas_never_both_grant() -> None:
    """K1: whoever's transaction comes first has it, and those in line elsewhere hear of its end."""
    store, clock = new_store(), Clock()
    async with replica(store, clock) as one, replica(store, clock) as two:
        leases = [(await one.grant()).name for _ in range(2)]
        await two.registry.view.reached(store.revision)
        outcomes = await asyncio.gather(
            acquire(one, "one", leases[0]), acquire(two, "two", leases[1]), return_exceptions=True
        )
        held = next(each for each in outcomes if isinstance(each, pb.Lock))
        assert sum(isinstance(each, HoldfastError) for each in outcomes) == 1
        mine, theirs = (one, two) if held.holder == "one" else (two, one)
        waiting = asyncio.ensure_future(acquire(theirs, "next", leases[1], 60))
        await until_waiting(theirs, 1)
        await release(mine, held.fence)
        assert (await waiting).fence > held.fence


def test_the_example_of_a_guarded_resource_is_true() -> None:
    """docs/locks.md asserts what it shows."""
    page = (Path(__file__).parents[3] / "docs" / "locks.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, {"__name__": "example"})
