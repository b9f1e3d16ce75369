"""What is held under a session and known by a fence: a lock, a leadership, an activation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from holdfast.client.errors import FenceStaleError, HoldfastError, HoldLostError, SessionEndedError
from holdfast.client.guards import Guard, Stoppable
from holdfast.client.services import Services

LOOKS_PER_TTL = 3
"""How often in a TTL it is asked whether an operator took it away. Until then, as always, its fence protects."""

CLEANUP_S = 2.0
"""Longest that giving up a wait takes to give back what may have been got after all."""


class Base(Protocol):
    """What holds rest on: a session."""

    def check(self) -> None:
        """Raises HoldError unless it can be relied on."""
        ...

    def rest_on(self, work: Stoppable) -> None:
        """Has this work stopped with it."""
        ...

    def rest_no_more(self, work: Stoppable) -> None:
        """Forgets it."""
        ...


class Hold:
    """Something held. Its fence is given out only while it is proven.

    Attributes:
        name: Of what is held.
        lost: Set when it, or its session, is lost.
    """

    def __init__(self, name: str, fence: int, session: Base) -> None:
        self.name = name
        self.lost = asyncio.Event()
        self._fence = fence
        self._session = session
        self._guards: set[Stoppable] = set()
        self._why_lost = ""
        self._is_over = False
        session.rest_on(self)

    @property
    def fence(self) -> int:
        """The fence to send with each write. Ask for it each time: that is the check.

        Raises:
            HoldError: It is not proven any more.
        """
        self.check()
        return self._fence

    def check(self) -> None:
        """Does nothing as long as it can be relied on. By the clock, from any thread.

        Raises:
            SessionLostError: Its session may have ended.
            HoldLostError: It was taken away.
            SessionEndedError: It was given back.
        """
        if self._is_over:
            raise SessionEndedError(f"{self.name} was given back with the end of its block; take it again.")
        if self._why_lost:
            raise HoldLostError(f"{self.name}: {self._why_lost}. Stop what rests on it.")
        self._session.check()

    @property
    def is_over(self) -> bool:
        """Whether it was given back or lost."""
        return self._is_over or self.lost.is_set()

    def is_of(self, fence: int) -> bool:
        """Whether it is the hold of that fence."""
        return self._fence == fence

    def guard(self) -> AbstractAsyncContextManager[object]:
        """A block that is cancelled when it is lost, and then raises why. The body of a lock or leadership is one."""
        return Guard(self.check, self._guards)

    def lose(self, why: str) -> None:
        """It was taken away."""
        self._why_lost = self._why_lost or why
        self.stop()

    def stop(self) -> None:
        """Stops the work that rests on it."""
        self.lost.set()
        for guard in list(self._guards):
            guard.stop()

    def end(self) -> None:
        """It is given back."""
        self._is_over = True
        self._session.rest_no_more(self)


@asynccontextmanager
async def held(
    hold: Hold, look_every_s: float, services: Services, give_back: Callable[[int], Awaitable[object]]
) -> AsyncIterator[None]:
    """A guarded block in which something is held.

    Args:
        hold: What is held.
        look_every_s: How often it is asked whether it was taken away, in seconds.
        services: Where that is asked.
        give_back: Gives a fence back, at the end.

    Raises:
        HoldError: From the block: it is lost, or turned out to have been lost when it was given back.
        HoldfastError: It cannot be given back; it ends with the session.
    """
    fence = hold.fence
    looking = asyncio.create_task(_look(hold, fence, look_every_s, services))
    try:
        async with hold.guard():
            yield
    except BaseException:
        hold.end()
        with contextlib.suppress(HoldfastError, TimeoutError):  # the block's own end is what counts
            async with asyncio.timeout(CLEANUP_S):
                await give_back(fence)
        raise
    else:
        hold.end()
        try:
            await give_back(fence)
        except FenceStaleError as error:
            if error.after_doubt:
                return  # an attempt before gave it back
            raise HoldLostError(f"{hold.name}: it was not held any more when it was given back ({error}).") from error
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _look(hold: Hold, fence: int, every_s: float, services: Services) -> None:
    """Asks now and then whether an operator took it away."""
    while True:
        await asyncio.sleep(every_s)
        with contextlib.suppress(HoldfastError):
            answer = await services.locks.verify_fence(hold.name, fence)
            if not answer.valid:
                hold.lose(f"it was taken away: fence {fence} is not {answer.current_fence}, that of its holder now")
                return
