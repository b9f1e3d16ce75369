"""A wave of ends is never this replica's own doing: time is given for what it did not hear, and never without bound."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.state import LeaseEntry
from holdfast.guard import GRACE_S_MAX, HELD_S_MAX, STALL_S, StallGuard
from holdfast.leases import TICK_S, LeaseKeeper
from holdfast.storage.v1.records_pb2 import LeaseRecord
from support.replica import Clock

AWAKE_S = st.floats(0.01, TICK_S)
STALLED_S = st.floats(STALL_S, 300)


class Kept:
    """One lease, and a keeper that looks whenever time has passed."""

    def __init__(self, ttl_ms: int) -> None:
        self.ttl_s = ttl_ms / 1000
        self.clock = Clock()
        self.may_keep = True
        self.keeper = LeaseKeeper(self.clock, self._expire, may_keep=lambda: self.may_keep)
        self.lease = LeaseEntry("namespaces/n/leases/l", LeaseRecord(ttl_ms=ttl_ms, fence_epoch=1), 1)
        self.keeper.lease_stands(self.lease)
        self.ended = False

    async def _expire(self, due: Sequence[str]) -> int:
        self.ended = True
        self.keeper.lease_ended(*due)
        return 1

    def keep(self) -> bool:
        return self.keeper.keep(self.lease.name) is not None

    async def pass_time(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.keeper.look()
        for _ in range(4):
            await asyncio.sleep(0)


@given(st.integers(1000, 60_000), st.lists(st.tuples(AWAKE_S | STALLED_S, st.booleans()), max_size=60))
def test_stalls_never_end_a_lease_early_and_never_make_it_last(ttl_ms: int, steps: list[tuple[float, bool]]) -> None:
    """L1, and L2 while awake: at the last keepalive and TTL or later, by that and `HELD_S_MAX` of time not stalled."""

    async def check() -> None:
        kept = Kept(ttl_ms)
        kept_at_s, awake_s = kept.clock.now_s, 0.0
        for seconds, keeps in steps * 20:
            if keeps and kept.keep():
                kept_at_s, awake_s = kept.clock.now_s, 0.0
            await kept.pass_time(seconds)
            awake_s += seconds if seconds < STALL_S else 0
            if kept.ended:
                assert kept.clock.now_s >= kept_at_s + kept.ttl_s
                return
            assert awake_s <= kept.ttl_s + HELD_S_MAX + TICK_S

    asyncio.run(check())


@given(st.integers(1000, 60_000), st.floats(0, 0.99), STALLED_S, st.floats(0, 0.9))
def test_a_keepalive_that_waited_for_a_stall_to_end_is_heard(
    ttl_ms: int, before: float, stall_s: float, late: float
) -> None:
    """Sent in time, read within as long as the stall took (its TTL and `GRACE_S_MAX` at most): the lease stands."""

    async def check() -> None:
        kept = Kept(ttl_ms)
        await stay_awake(kept, kept.ttl_s * before)
        await kept.pass_time(stall_s)
        await stay_awake(kept, late * min(stall_s, kept.ttl_s, GRACE_S_MAX))
        assert kept.keep()

    asyncio.run(check())


async def stay_awake(kept: Kept, seconds: float) -> None:
    end_s = kept.clock.now_s + seconds
    while kept.clock.now_s < end_s:
        await kept.pass_time(min(TICK_S, end_s - kept.clock.now_s))


async def test_time_in_which_no_keepalive_could_be_acknowledged_is_a_stall() -> None:
    """Without proof a replica refuses keepalives; what ran out meanwhile must not end the moment it can write again."""
    kept = Kept(5000)
    await stay_awake(kept, 1)
    kept.may_keep = False
    await stay_awake(kept, 20)
    assert not kept.keep()
    assert not kept.ended
    kept.may_keep = True
    await stay_awake(kept, 4.5)
    assert kept.keep()
    assert kept.keeper.guard.stalls_total == 1
    await stay_awake(kept, 5.5)
    assert kept.ended


async def test_a_loop_that_always_lags_does_not_keep_the_dead() -> None:
    """Each look a little late, for ever: the lease nobody keeps ends a bounded time after its TTL."""
    kept = Kept(5000)
    looks = 0
    while not kept.ended:
        await kept.pass_time(STALL_S * 2)
        looks += 1
        assert looks * STALL_S * 2 <= 5 + HELD_S_MAX + STALL_S * 4, "it lives on"


def test_what_was_given_is_counted() -> None:
    guard = StallGuard(0)
    assert [guard.look(now_s) for now_s in (0.25, 0.5, 2.5, 2.75, 1002.75)] == [0, 0, 2, 0, GRACE_S_MAX]
    assert (guard.stalls_total, guard.grace_s_total) == (2, 2 + GRACE_S_MAX)
    guard.begin(2000)
    assert guard.look(2000.25) == 0
