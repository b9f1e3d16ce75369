"""Lines before locks and elections: who waits for what, in the order they came. In memory; each replica has its own."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.core.holds.acquiring import Acquisition
from holdfast.errors import HoldfastError, Reason

WAITERS_MAX = 10_000
"""Most that wait on one replica. One host may have half of them, so that others can still wait."""

WAITERS_BYTES_MAX = 64 << 20
"""Most bytes of what they ask (64 MiB): candidates bring what they would tell. Half of it for one host, likewise."""

LINE_MAX = 1_000
"""Most that wait for one lock or election: the last of them waits for as many holds to end."""


class Waiter:
    """One call in a line.

    Attributes:
        command: What it wants.
        client: The host it came from.
        is_waiting: Whether its first attempt was in vain.
        choosers: How many transactions under way would give it what it waits for.
        has_left: Whether its caller has gone, or its wait ended, without.
    """

    def __init__(self, command: Acquisition, client: str) -> None:
        self.command = command
        self.client = client
        self.is_waiting = False
        self.choosers = 0
        self.has_left = False
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """Has it look again."""
        self._nudge.set()

    async def nudged(self, until_s: float | None) -> None:
        """Returns when it should look again, and at a time of the event loop's clock at the latest."""
        try:
            async with asyncio.timeout_at(until_s):
                await self._nudge.wait()
        except TimeoutError:
            return
        self._nudge.clear()


@dataclass(slots=True)
class _Crowd:
    """How many wait, and the bytes of what they ask."""

    count: int = 0
    size_bytes: int = 0

    def has_room(self, more_bytes: int, count_max: int, bytes_max: int) -> bool:
        """Whether one more may come."""
        return self.count < count_max and self.size_bytes + more_bytes <= bytes_max


class Lines:
    """All lines of a replica.

    Args:
        waiters_max: See `WAITERS_MAX`.
        line_max: See `LINE_MAX`.
        bytes_max: See `WAITERS_BYTES_MAX`.
    """

    def __init__(
        self, waiters_max: int = WAITERS_MAX, line_max: int = LINE_MAX, bytes_max: int = WAITERS_BYTES_MAX
    ) -> None:
        self._waiters_max = waiters_max
        self._line_max = line_max
        self._bytes_max = bytes_max
        self._lines: dict[str, dict[Waiter, None]] = {}
        self._by_lease: defaultdict[str, dict[Waiter, None]] = defaultdict(dict)
        self._all = _Crowd()
        self._by_client = defaultdict[str, _Crowd](_Crowd)
        self._by_name = defaultdict[str, _Crowd](_Crowd)
        self._is_closed = False

    def __len__(self) -> int:
        return self._all.count

    def count(self, name: str) -> int:
        """How many wait for one lock or election."""
        return self._by_name[name].count if name in self._by_name else 0

    def join(self, command: Acquisition, client: str) -> Waiter:
        """Takes the last place of a line, for a first attempt; whoever has it at once does not wait."""
        waiter = Waiter(command, client)
        self._lines.setdefault(command.name, {})[waiter] = None
        self._by_lease[command.lease][waiter] = None
        return waiter

    def stay(self, waiter: Waiter) -> None:
        """Waits on after an attempt. Without a client it is only counted among all.

        Raises:
            HoldfastError: QUOTA_EXCEEDED; NOT_READY once `close` was called.
        """
        if self._is_closed:
            raise HoldfastError(Reason.NOT_READY, "the server is shutting down; wait at another replica, or later.")
        if waiter.is_waiting:
            return
        self._check_room(waiter.command.name, waiter.client, waiter.command.size_bytes)
        waiter.is_waiting = True
        for crowd in self._crowds(waiter):
            crowd.count += 1
            crowd.size_bytes += waiter.command.size_bytes

    def _check_room(self, name: str, client: str, size_bytes: int) -> None:
        if self.count(name) >= self._line_max:
            raise _too_many(name, f"{self._line_max} wait for it already")
        if not self._all.has_room(size_bytes, self._waiters_max, self._bytes_max):
            raise _too_many(name, f"{self._all.count} wait on this server already, which is full")
        own = self._by_client.get(client, _Crowd())
        if client and not own.has_room(size_bytes, self._waiters_max // 2, self._bytes_max // 2):
            raise _too_many(name, f"{own.count} of your host wait already, half of what may wait")

    def _crowds(self, waiter: Waiter) -> Sequence[_Crowd]:
        return self._all, self._by_client[waiter.client], self._by_name[waiter.command.name]

    def leave(self, waiter: Waiter) -> None:
        """Gives a place up; the next may be first now."""
        name, lease = waiter.command.name, waiter.command.lease
        line = self._lines[name]
        del line[waiter], self._by_lease[lease][waiter]
        if waiter.is_waiting:
            for crowd in self._crowds(waiter):
                crowd.count -= 1
                crowd.size_bytes -= waiter.command.size_bytes
            for crowds, key in ((self._by_client, waiter.client), (self._by_name, name)):
                if not crowds[key].count:
                    del crowds[key]
        if not self._by_lease[lease]:
            del self._by_lease[lease]
        if line:
            next(iter(line)).nudge()
        else:
            del self._lines[name]

    def is_first(self, waiter: Waiter) -> bool:
        """Whether nobody in its line came before."""
        return next(iter(self._lines.get(waiter.command.name, ())), None) is waiter

    def first(self, name: str, may_have: Callable[[Acquisition], bool]) -> Waiter | None:
        """The first in a line that waits, and may have what it waits for."""
        line = self._lines.get(name, ())
        return next((each for each in line if each.is_waiting and may_have(each.command)), None)

    def changed(self, name: str, holder: str, lease: str) -> None:
        """A lock or leadership is free, or has a holder: for the first to see, and for who got it by another call."""
        line = self._lines.get(name, {})
        for place, each in enumerate(line):
            if place == 0 or (holder and (each.command.holder, each.command.lease) == (holder, lease)):
                each.nudge()

    def lease_ended(self, lease: str) -> None:
        """A lease ended: who waits under it need not wait on."""
        for each in self._by_lease.get(lease, ()):
            each.nudge()

    def close(self) -> None:
        """Has everybody look again, and refuses from now on."""
        self._is_closed = True
        for line in self._lines.values():
            for each in line:
                each.nudge()


def _too_many(name: str, why: str) -> HoldfastError:
    return HoldfastError(Reason.QUOTA_EXCEEDED, f"no place in line for {name}: {why}; try again later.", subject=name)
