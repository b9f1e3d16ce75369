"""Keeps the deadlines of leases, in memory and on a monotonic clock.

Heartbeats cost memory, not writes: a keepalive moves a deadline, and only the end of a lease is written. After a
restart every lease gets its full TTL again.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from holdfast.core.leases import lease_not_found
from holdfast.core.state import LeaseEntry
from holdfast.errors import HoldfastError, Reason
from holdfast.guard import HELD_S_MAX, StallGuard
from holdfast.registry.v1.lease_service_pb2 import (
    LEASE_DIRECTIVE_CONTINUE,
    LEASE_DIRECTIVE_STOP,
    LEASE_DIRECTIVE_UNSPECIFIED,
    KeepLeaseAliveResult,
)

TICK_S = 0.25
"""Longest sleep between looks at the clock."""

ENDED_TOGETHER_MAX = 500
"""Leases whose end is written together: enough to share the cost, few enough to be taken in without a pause."""

WRITES_MAX = 8
"""Such writes under way at a time; the store makes one batch of them. What else has run out waits for the next look."""

RETRY_S = 0.5
"""Pause before the end of a lease is written again after the store failed."""

NOT_KEPT_CHARS_MAX = 160
"""Longest message about one lease that was not kept."""

ExpireLeases = Callable[[Sequence[str]], Awaitable[int]]
"""Writes that leases have expired, all that still stand. Returns how many. Raises HoldfastError: nobody knows which."""


@dataclass(slots=True)
class _Slot:
    lease: LeaseEntry
    ttl_s: float
    deadline_s: float
    kept: KeepLeaseAliveResult | None = None
    held_s: float = 0.0
    ending: asyncio.Future[None] | None = None


class LeaseKeeper:
    """Deadlines of all leases that stand. `run` ends those that nobody keeps; tests and simulations call `look`.

    Attributes:
        guard: Gives leases time for what was not heard.
        ending_count: Leases that ran out and whose end is not written yet.
        expirations_total: Leases that ended because nobody kept them.
        restart_grace_s: The longest TTL met at start, in seconds.

    Args:
        clock: A monotonic clock, in seconds.
        expire: How the ends of leases are written.
        owns: Which leases it keeps; all, where nobody shares the store.
        may_keep: Whether it can prove now that nobody has taken over what it owns.
        moved_grace_s: What a lease that another replica may keep yet gets beside its TTL, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        expire: ExpireLeases,
        owns: Callable[[LeaseEntry], bool] = lambda _lease: True,
        may_keep: Callable[[], bool] = lambda: True,
        moved_grace_s: float = 0.0,
    ) -> None:
        self._clock = clock
        self._expire = expire
        self._owns = owns
        self._may_keep = may_keep
        self._moved_grace_s = moved_grace_s
        self._slots: dict[str, _Slot] = {}
        self._heap: list[tuple[float, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.guard = StallGuard(clock())
        self.ending_count = 0
        self.expirations_total = 0
        self.restart_grace_s = 0.0

    # As the view's listener.

    def lease_stands(self, lease: LeaseEntry) -> None:
        """Starts the clock of a lease, granted, taken over or met at start; one that is known goes on or moves away."""
        if not self._owns(lease):
            self._slots.pop(lease.name, None)
            return
        if lease.name in self._slots:
            return
        ttl_s = lease.record.ttl_ms / 1000
        grace_s = self._moved_grace_s if lease.previous_owner_may_keep else 0.0
        slot = self._slots[lease.name] = _Slot(lease, ttl_s, self._clock() + ttl_s + grace_s)
        heapq.heappush(self._heap, (slot.deadline_s, lease.name))

    def lease_ended(self, name: str) -> None:
        """Stops the clock of a lease."""
        self._slots.pop(name, None)

    # Keeping.

    def keep(self, name: str) -> KeepLeaseAliveResult | None:
        """Gives a lease its full TTL from now. None if that cannot be said at once: use `keep_slowly`."""
        slot = self._slots.get(name)
        if slot is None or slot.ending is not None or not self._may_keep():
            return None
        slot.deadline_s = max(slot.deadline_s, self._clock() + slot.ttl_s)
        slot.held_s = 0.0
        if slot.kept is None:
            slot.kept = _kept(slot.lease)
        return slot.kept

    async def keep_slowly(self, name: str, find: Callable[[str], LeaseEntry | None]) -> KeepLeaseAliveResult:
        """Keeps a lease whose end may be on its way: waits for the outcome, so that no answer is taken back."""
        slot = self._slots.get(name)
        if slot is not None and slot.ending is not None:
            try:
                await asyncio.shield(slot.ending)
            except HoldfastError as error:
                return not_kept(name, error)
        kept = self.keep(name)
        if kept is not None:
            return kept
        lease = find(name)
        if lease is None or not lease.stands:
            return not_kept(name, lease_not_found(name, lease))
        return not_kept(name, _unproven(name))

    def left_s(self, name: str) -> float | None:
        """How long a lease stands from now if nobody keeps it, in seconds; None if it is not known to stand."""
        slot = self._slots.get(name)
        return max(0.0, slot.deadline_s - self._clock()) if slot is not None else None

    def restart_clocks(self) -> None:
        """Gives every lease its full TTL: nobody could keep one while the server was not serving."""
        now_s = self._clock()
        for slot in self._slots.values():
            slot.deadline_s = now_s + slot.ttl_s
        self.restart_grace_s = max((slot.ttl_s for slot in self._slots.values()), default=0.0)

    # Expiring.

    async def run(self) -> None:
        """Ends leases as they run out, until cancelled."""
        self.guard.begin(self._clock())
        try:
            while True:  # noqa: ASYNC110 - what it waits for is time itself
                await asyncio.sleep(self.look())
        finally:
            for task in self._tasks:
                task.cancel()

    async def settled(self) -> None:
        """Waits until the ends that were begun are written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def look(self) -> float:
        """Starts the end of every lease that has run out. Returns how long to wait before the next look, in seconds.

        Without proof that nobody has taken over nothing is ended. Nothing is kept either: to the guard it is a stall.
        """
        if not self._may_keep():
            return TICK_S
        now_s = self._clock()
        grace_s = self.guard.look(now_s)
        if grace_s:
            self._hold(grace_s, now_s)
        while len(self._tasks) < WRITES_MAX and (due := self._pop_due(now_s)):
            self._start_ending(due)
        next_s = self._heap[0][0] - now_s if self._heap else TICK_S
        return min(max(next_s, 0.005), TICK_S)

    def _pop_due(self, now_s: float) -> list[str]:
        """Leases that have run out and whose end is not under way, as many as are ended together."""
        due: dict[str, None] = {}  # one that moved away and back is in the heap twice
        while self._heap and self._heap[0][0] <= now_s and len(due) < ENDED_TOGETHER_MAX:
            _, name = heapq.heappop(self._heap)
            slot = self._slots.get(name)
            if slot is None:
                continue
            if slot.deadline_s > now_s:  # kept since: keepalives leave the heap alone
                heapq.heappush(self._heap, (slot.deadline_s, name))
            elif slot.ending is None:
                due[name] = None
        return list(due)

    def _hold(self, grace_s: float, now_s: float) -> None:
        """Lets no lease end for a while, its own TTL at most, and each only as long as it may be held in all."""
        for slot in self._slots.values():
            until_s = now_s + min(grace_s, slot.ttl_s, HELD_S_MAX - slot.held_s)
            if until_s > slot.deadline_s:
                slot.held_s += until_s - max(slot.deadline_s, now_s)
                slot.deadline_s = until_s

    def _start_ending(self, due: Sequence[str]) -> None:
        ending = self._promise_end(due, None)
        self.ending_count += len(due)
        task = asyncio.create_task(self._end(due, ending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _promise_end(self, due: Sequence[str], before: asyncio.Future[None] | None) -> asyncio.Future[None]:
        """What those wait for who would keep one of these leases, in the place of what they waited for before."""
        ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name in due:
            slot = self._slots.get(name)
            if slot is not None and slot.ending is before:
                slot.ending = ending
        return ending

    def is_ending(self, name: str) -> bool:
        """Whether a lease has run out here, and did not move away, or away and back, since."""
        slot = self._slots.get(name)
        return slot is not None and slot.ending is not None

    async def _end(self, due: Sequence[str], ending: asyncio.Future[None]) -> None:
        """Writes the end of leases, as often as it takes: until then nobody knows whether they stand."""
        while True:
            try:
                ended = await self._expire(due)
            except HoldfastError as error:
                ending.set_exception(error)
                ending.exception()  # most often nobody waits
                ending = self._promise_end(due, ending)
                await asyncio.sleep(RETRY_S)
            else:
                self.expirations_total += ended
                self.ending_count -= len(due)
                break
        for name in due:
            slot = self._slots.get(name)
            if slot is not None and slot.ending is ending:
                del self._slots[name]
        ending.set_result(None)


def _unproven(name: str) -> HoldfastError:
    return HoldfastError(
        Reason.STORE_UNAVAILABLE,
        f"no proof that {name!r} is still kept here: this replica cannot reach the store. Ask another, or try again.",
    )


def _kept(lease: LeaseEntry) -> KeepLeaseAliveResult:
    """What each keepalive of a lease is answered."""
    kept = KeepLeaseAliveResult(lease=lease.name, fence=lease.fence, directive=LEASE_DIRECTIVE_CONTINUE)
    kept.ttl.FromMilliseconds(lease.record.ttl_ms)
    return KeepLeaseAliveResult.FromString(kept.SerializeToString())  # half the memory of one that was put together


def not_kept(name: str, error: HoldfastError) -> KeepLeaseAliveResult:
    """Why a lease was not kept, in few bytes: ten thousand of these must fit in the 4 MB that gRPC clients take.

    So the name, which the result has, is not repeated, and of the details only ErrorInfo is sent.
    """
    status = error.to_status()
    status.message = error.message.replace(f" {name!r}", "")[:NOT_KEPT_CHARS_MAX]
    del status.details[1:]
    directive = LEASE_DIRECTIVE_UNSPECIFIED
    if error.reason is Reason.LEASE_NOT_FOUND:
        directive = LEASE_DIRECTIVE_STOP
    return KeepLeaseAliveResult(lease=name, directive=directive, status=status)
