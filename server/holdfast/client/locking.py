"""Locks and leaderships as blocks of work under a session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from holdfast.client.errors import HoldfastError
from holdfast.client.holds import CLEANUP_S, LOOKS_PER_TTL, Hold, held

if TYPE_CHECKING:
    from holdfast.client.services import Services
    from holdfast.client.sessions import Session


class HeldLock(Hold):
    """A lock that is held; see `Session.lock`."""


class HeldLeadership(Hold):
    """A leadership that is held; see `Session.leader`."""

    def __init__(self, name: str, fence: int, session: "Session", services: "Services") -> None:
        super().__init__(name, fence, session)
        self._services = services

    async def proclaim(self, value: bytes) -> None:
        """Changes what observers are told.

        Raises:
            HoldError: It is not proven any more.
            HoldfastError: Why it failed.
        """
        await self._services.elections.proclaim(self.name, self.fence, value)


@asynccontextmanager
async def hold_lock(
    services: "Services", session: "Session", lock: str, holder: str, wait_s: float, delay_s: float | None
) -> AsyncIterator[HeldLock]:
    """Acquires a lock, runs the block, and gives it back."""
    name, locks = services.locks.name(lock), services.locks

    async def acquire() -> int:
        return (await locks.acquire(name, holder=holder, lease=session.lease, wait_s=wait_s, delay_s=delay_s)).fence

    async def mine() -> int:
        found = await locks.get(name)
        return found.fence if found.lease == session.lease else 0

    with session.alone_with(name):
        fence = await got(session, acquire, mine, lambda fence: locks.release(name, fence))
        hold = HeldLock(name, fence, session)
        async with held(hold, session.ttl_s / LOOKS_PER_TTL, services, lambda fence: locks.release(name, fence)):
            yield hold


@asynccontextmanager
async def hold_leadership(
    services: "Services", session: "Session", election: str, candidate: str, value: bytes, wait_s: float
) -> AsyncIterator[HeldLeadership]:
    """Waits for a leadership, runs the block, and gives it back."""
    name, elections = services.elections.name(election), services.elections

    async def campaign() -> int:
        return (
            await elections.campaign(name, candidate=candidate, lease=session.lease, value=value, wait_s=wait_s)
        ).fence

    async def mine() -> int:
        found = await elections.get(name)
        return found.fence if found.leader and found.lease == session.lease else 0

    with session.alone_with(name):
        fence = await got(session, campaign, mine, lambda fence: elections.resign(name, fence))
        hold = HeldLeadership(name, fence, session, services)
        async with held(hold, session.ttl_s / LOOKS_PER_TTL, services, lambda fence: elections.resign(name, fence)):
            yield hold


async def got(
    session: "Session",
    take: Callable[[], Awaitable[int]],
    mine: Callable[[], Awaitable[int]],
    give_back: Callable[[int], Awaitable[object]],
) -> int:
    """The fence of what was taken. Whoever stops waiting gives back what may have been got at that moment.

    What is got later still ends with the session; the session's next attempt gets that hold.
    """
    try:
        async with session.guard():
            return await take()
    except BaseException:
        with contextlib.suppress(HoldfastError, TimeoutError):
            async with asyncio.timeout(CLEANUP_S):
                fence = await mine()
                if fence:
                    await give_back(fence)
        raise
