"""Room for large messages on their way to readers who may never read them.

gRPC holds what a reader has not taken, some ten megabytes for each of the largest messages: a few hundred watchers
that read nothing would take all memory. So only few large messages are on their way at a time; a stream waits for its
turn before it makes its message, and holds nothing meanwhile.
"""

import asyncio
import functools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from holdfast.errors import HoldfastError, Reason

SMALL_BYTES = 16 << 10
"""Messages up to this size need no room: ten thousand watches have at most 160 MB of them on their way."""

MESSAGES_MAX = 32
"""Most large messages on their way."""

HOST_MESSAGES_MAX = 8
"""Most of them on their way to one host, so that a host which does not read holds up only itself."""

WAIT_S = 30.0
"""How long a stream waits for its turn; by then, others of its host are not being read."""


GiveBack = Callable[..., None]
"""Gives a place back; takes any arguments, so that it can be called when a call is done."""


class Room:
    """Places for large messages, in all and for each host, given in the order in which they were asked for.

    Args:
        messages_max: See `MESSAGES_MAX`.
        host_messages_max: See `HOST_MESSAGES_MAX`.
        wait_s: See `WAIT_S`.
        small_bytes: See `SMALL_BYTES`.
        waiting_max: Most messages to one host that wait, for those that are made already; None for no bound.
    """

    def __init__(
        self,
        messages_max: int = MESSAGES_MAX,
        host_messages_max: int = HOST_MESSAGES_MAX,
        wait_s: float = WAIT_S,
        small_bytes: int = SMALL_BYTES,
        waiting_max: int | None = None,
    ) -> None:
        self._places = asyncio.Semaphore(messages_max)
        self._host_places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(host_messages_max))
        self._asking = Counter[str]()
        self._asking_max = None if waiting_max is None else host_messages_max + waiting_max
        self._wait_s = wait_s
        self._small_bytes = small_bytes

    @asynccontextmanager
    async def taken(self, host: str, size_bytes: int) -> AsyncIterator[None]:
        """Holds a place for a message while the block runs, if it is a large one.

        Raises:
            HoldfastError: OVERLOADED when none became free in time.
        """
        give_back = await self.take(host, size_bytes)
        try:
            yield
        finally:
            if give_back is not None:
                give_back()

    async def take(self, host: str, size_bytes: int) -> GiveBack | None:
        """Takes a place for a large message, and returns what gives it back; None for a small one.

        Raises:
            HoldfastError: OVERLOADED when none became free in time, or too many wait.
        """
        if size_bytes <= self._small_bytes:
            return None
        if self._asking_max is not None and self._asking[host] >= self._asking_max:
            raise _overloaded(host, f"{self._asking_max} large messages wait already")
        self._asking[host] += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._acquire(self._host_places[host])
        except BaseException as error:
            self._leave(host)
            if isinstance(error, TimeoutError):
                raise _overloaded(host, f"a message of {size_bytes} bytes waited {self._wait_s:g} s") from None
            raise
        return functools.partial(self._give_back, host)

    async def _acquire(self, host_places: asyncio.Semaphore) -> None:
        await host_places.acquire()
        try:
            await self._places.acquire()
        except BaseException:
            host_places.release()
            raise

    def _give_back(self, host: str, *_: object) -> None:
        self._places.release()
        self._host_places[host].release()
        self._leave(host)

    def _leave(self, host: str) -> None:
        self._asking[host] -= 1
        if not self._asking[host]:
            del self._asking[host], self._host_places[host]


def _overloaded(host: str, what: str) -> HoldfastError:
    message = f"{what} for others to be read that are on their way to {host or 'this process'}; read all answers and "
    return HoldfastError(Reason.OVERLOADED, f"{message}streams there, or end those that nobody reads.")
