"""Room for large messages on their way to readers who may never read them.

gRPC holds what a reader has not taken, some ten megabytes for each of the largest messages: a few hundred watchers
that read nothing would take all memory. So only few large messages are on their way at a time; a stream waits for its
turn before it makes its message, and holds nothing meanwhile.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
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


class Room:
    """Places for large messages, in all and for each host, given in the order in which they were asked for.

    Args:
        messages_max: See `MESSAGES_MAX`.
        host_messages_max: See `HOST_MESSAGES_MAX`.
        wait_s: See `WAIT_S`.
    """

    def __init__(
        self,
        messages_max: int = MESSAGES_MAX,
        host_messages_max: int = HOST_MESSAGES_MAX,
        wait_s: float = WAIT_S,
    ) -> None:
        self._places = asyncio.Semaphore(messages_max)
        self._host_places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(host_messages_max))
        self._asking = Counter[str]()
        self._wait_s = wait_s

    @asynccontextmanager
    async def taken(self, host: str, size_bytes: int) -> AsyncIterator[None]:
        """Holds a place for a message while the block runs, if it is a large one.

        Raises:
            HoldfastError: OVERLOADED when none became free in time.
        """
        if size_bytes <= SMALL_BYTES:
            yield
            return
        self._asking[host] += 1
        try:
            await self._take(host, size_bytes)
            try:
                yield
            finally:
                self._places.release()
                self._host_places[host].release()
        finally:
            self._asking[host] -= 1
            if not self._asking[host]:
                del self._asking[host], self._host_places[host]

    async def _take(self, host: str, size_bytes: int) -> None:
        own = self._host_places[host]
        try:
            async with asyncio.timeout(self._wait_s):
                await own.acquire()
                try:
                    await self._places.acquire()
                except BaseException:
                    own.release()
                    raise
        except TimeoutError:
            raise HoldfastError(
                Reason.OVERLOADED,
                f"a message of {size_bytes} bytes waited {self._wait_s:g} s for others to be read that are on their "
                f"way to {host or 'this process'}; read all streams there, or end those that nobody reads.",
            ) from None
