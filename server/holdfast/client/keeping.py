"""Keeps the leases of all sessions of a client alive, on one stream of a connection of its own.

A connection of its own, so that heartbeats neither wait behind other calls nor die with them; and one that is given up
and dialled anew as soon as a message on it is not answered in time, rather than when TCP finds out.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import grpc

from holdfast.client.calling import RetryPolicy
from holdfast.client.connection import Connection
from holdfast.client.errors import DisconnectedError, HoldfastError
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveRequest, KeepLeaseAliveResponse, KeepLeaseAliveResult
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub

BEATS_PER_TTL = 3
"""Keepalives in a TTL: two may be lost."""

LEASES_PER_MESSAGE = 5_000
"""Half of what the server takes in one."""

ANSWER_S_MAX = 5.0
"""A message not answered by then, or within a quarter of the shortest TTL in it, is given up with its connection. The
server answers within 2 s, also where its store is slow.
"""

LOOK_S_MAX = 0.25
"""Longest sleep between looks at the clock."""

_BACKOFF = RetryPolicy(backoff_initial_s=0.05, backoff_max_s=1.0)
"""Pauses between connections: short, since the leases run out meanwhile, and random, since everybody else's do too."""


RETRY_S = 1.0
"""Pause before a lease that the server could not say anything of is kept again; a tenth of its TTL if that is less."""

Stream: TypeAlias = grpc.aio.StreamStreamCall[KeepLeaseAliveRequest, KeepLeaseAliveResponse]

log = logging.getLogger("holdfast.client")


class Kept(Protocol):
    """A lease that is kept."""

    @property
    def lease(self) -> str:
        """Its name."""
        ...

    @property
    def ttl_s(self) -> float:
        """Its TTL, in seconds."""
        ...

    def answered(self, sent_s: float, result: KeepLeaseAliveResult) -> None:
        """What became of the keepalive sent at that moment."""
        ...

    def look(self) -> float | None:
        """Acts on the time that has passed; returns how long until that is needed again, in seconds.

        None: it is lost, and to be kept no longer, which would only make others wait.
        """
        ...


class Keeper:
    """Keeps leases from `add` to `remove`. Its tasks run while there are any.

    Args:
        dial: Makes a connection.
        clock: The one that leases are proven by, in seconds.
    """

    def __init__(self, dial: Callable[[], Connection], clock: Callable[[], float]) -> None:
        self._dial = dial
        self._clock = clock
        self._due_s: dict[Kept, float] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0

    def __len__(self) -> int:
        return len(self._due_s)

    def add(self, kept: Kept) -> None:
        """Keeps a lease from now on."""
        self._due_s[kept] = self._clock() + kept.ttl_s / BEATS_PER_TTL
        self._changed.set()
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._watch_clock())]

    async def remove(self, kept: Kept) -> None:
        """Lets a lease be. The last one ends the stream."""
        self._due_s.pop(kept, None)
        if not self._due_s:
            await self.close()

    async def close(self) -> None:
        """Ends the stream; no lease is kept any more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch_clock(self) -> None:
        """Tells of time that has passed, whatever the network does."""
        while True:
            left_s = [self._look(kept) for kept in list(self._due_s)]
            await asyncio.sleep(min([LOOK_S_MAX, *(max(each, 0.001) for each in left_s)]))

    def _look(self, kept: Kept) -> float:
        """How long until it may be lost, in seconds; one that is lost is kept no longer."""
        left_s = kept.look()
        if left_s is None:
            self._due_s.pop(kept, None)
        return LOOK_S_MAX if left_s is None else left_s

    async def _keep(self) -> None:
        """Streams, one after the other."""
        while True:
            connection = self._dial()
            try:
                await self._keep_on(connection)
            except (HoldfastError, grpc.aio.AioRpcError, TimeoutError) as error:
                log.debug("keepalives to %s interrupted: %s", connection.target, error or "no answer in time")
            finally:
                await connection.close()
            self._failures += 1
            await asyncio.sleep(_BACKOFF.backoff_s(self._failures))

    async def _keep_on(self, connection: Connection) -> None:
        """Messages and answers on one stream, one at a time, until it fails."""
        await connection.ready(ANSWER_S_MAX)
        stream = LeaseServiceStub(connection.channel).KeepLeaseAlive()
        while True:
            due = self._due()
            if due:
                await self._exchange(stream, due)
                self._failures = 0
            else:
                await self._wait()

    def _due(self) -> list[Kept]:
        """Leases to keep now. Those due a little later come along: they share the message."""
        for kept in list(self._due_s):
            self._look(kept)  # a process that stood still may come here first
        soon_s = self._clock() + LOOK_S_MAX
        due = [kept for kept, due_s in self._due_s.items() if due_s <= soon_s]
        is_now = any(self._due_s[kept] <= soon_s - LOOK_S_MAX for kept in due)
        return due[:LEASES_PER_MESSAGE] if is_now else []

    async def _wait(self) -> None:
        """Until something is due; in short sleeps, since `clock` need not be the loop's."""
        self._changed.clear()
        left_s = min(self._due_s.values(), default=LOOK_S_MAX) - self._clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(left_s, 0.001), LOOK_S_MAX)):
                await self._changed.wait()

    async def _exchange(self, stream: Stream, due: Sequence[Kept]) -> None:
        answer_s_max = min([ANSWER_S_MAX, *(kept.ttl_s / 4 for kept in due)])
        sent_s = self._clock()
        request = KeepLeaseAliveRequest(leases=[kept.lease for kept in due])
        async with asyncio.timeout(answer_s_max):
            await stream.write(request)
            response = await stream.read()
        if not isinstance(response, KeepLeaseAliveResponse):
            raise DisconnectedError("the server ended the stream of keepalives.")
        for kept, result in zip(due, response.results, strict=True):
            if kept not in self._due_s:
                continue  # let be meanwhile
            was_kept = not result.HasField("status")
            self._due_s[kept] = sent_s + (kept.ttl_s / BEATS_PER_TTL if was_kept else min(RETRY_S, kept.ttl_s / 10))
            kept.answered(sent_s, result)
