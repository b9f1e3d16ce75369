"""Sends calls to a target over one connection at a time, and re-dials when it is lost.

A call waits while a connection is being made, or while the server allows no more streams; that is part of its latency.
It fails at once, as refused, while the last attempt to connect failed and the pause after it lasts, as with gRPC's own
clients: a target that is down is told from one that is slow.
"""

import asyncio
import os
import random
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.http2 import CannotOpenError, ErrorCode, Obstacle, UnsentFullError
from holdfast_loadtests.answers import Answer, expired, refused
from holdfast_loadtests.exchanges import Exchange, OnEnd
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.links import Link
from holdfast_loadtests.paced import Pace, Paced
from holdfast_loadtests.room import Room
from holdfast_loadtests.targets import Target

if TYPE_CHECKING:
    from holdfast_loadtests.codes import ErrorClass

DIAL_WITHIN_S: Final = 5.0
"""Limit for TCP, TLS and the server's settings together; through a slow proxy they take long."""

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5
BACKOFF_JITTER: Final = 0.2
"""The pause before re-dialling doubles from the first to the greatest, ± the jitter: all channels lose one server at
the same moment."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is the same for every call of a step."""

    block: bytes
    deadline_s: float
    takes_many: bool
    receive: int | None = None
    pace: Pace | None = None
    """When messages after the first are sent; None sends all at once."""


class Channel:
    """Calls to one target over one connection at a time.

    Args:
        number: tells it from the others of the load.
        target: where to.
        expiry: watches the deadlines.
        first_stream_id: of every connection, odd.
        room: for what its answers hold; one of its own where None.
    """

    def __init__(
        self, number: int, target: Target, expiry: Expiry, first_stream_id: int = 1, room: Room | None = None
    ) -> None:
        self.number = number
        self.room = room or Room()
        self.dials = 0
        self.minds_ends = False
        self._target = target
        self._expiry = expiry
        self._first_stream_id = first_stream_id
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._waiting: deque[tuple[Exchange, Prepared, bytes]] = deque()
        self._failure = ""
        self._broke: ErrorClass = "refused"
        self._failures = 0
        self._redial: asyncio.TimerHandle | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._is_closed = False
        self._all_gone = asyncio.Event()

    @property
    def failure(self) -> str:
        """Why the last attempt to connect failed; `""` where it did not."""
        return self._failure

    async def connect(self) -> str:
        """Dials, and waits for the server's settings. Returns why that failed, `""` where it did not."""
        await self._dial()
        return self._failure

    def start(self, prepared: Prepared, data: bytes, on_end: OnEnd) -> Exchange:
        """Begins a call; `data` is its messages, framed. `on_end` hears how it ended, never before this returns."""
        if prepared.pace is None:
            exchange = Exchange(self, on_end, prepared.receive, prepared.takes_many)
        else:
            exchange = paced = Paced(self, on_end, prepared.receive, prepared.takes_many, prepared.pace, data)
            data = paced.first
        self.begin(exchange, prepared, data)
        return exchange

    def begin(self, exchange: Exchange, prepared: Prepared, data: bytes) -> None:
        """Begins a call that is made already; `data` is what it is opened with."""
        self._expiry.watch(exchange, prepared.deadline_s)
        link = self._link
        if link is None and self._failure:
            # Nothing was reset for this call; the first of these tells of a connection that was reset as it was made.
            broke, self._broke = self._broke, "refused"
            self._loop.call_soon(exchange.end, refused(self._failure, broke))
        elif link is None or self._waiting or not self._open(link, exchange, prepared, data):
            self._waiting.append((exchange, prepared, data))
            self.minds_ends = True

    def cancel(self, exchange: Exchange, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Tells the server that a call is of no interest any more."""
        if exchange.link is not None:
            exchange.link.codec.reset(exchange, code)
            exchange.link.flush_soon()

    def ended(self) -> None:
        """A call has ended: one that waits may begin, a retired connection may be closed."""
        self._loop.call_soon(self._tend)

    def is_past(self, at_s: float) -> bool:
        """Whether it is that late, by the clock of deadlines."""
        return time.monotonic() >= at_s  # the loop's time is the same, but as of when its turn began

    def close(self) -> None:
        """Ends all connections; calls under way hear of it."""
        self._is_closed = True
        if self._redial is not None:
            self._redial.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
        for link in list(self._links):
            self._let_go(link, "the load closed its connections")
        self._fail_waiting(refused("the load closed its connections"))

    async def wait_closed(self) -> None:
        """After `close`: until its sockets are closed, which servers that do not read hold up for two seconds."""
        if self._links:
            await self._all_gone.wait()

    # As the owner of links.

    def on_ready(self, link: Link) -> None:
        """The server's settings came."""
        self._link = link
        self._failure = ""
        self._send_waiting()

    def on_room(self) -> None:
        """More streams may be open."""
        self._send_waiting()

    def on_retired(self, link: Link) -> None:
        """The server takes no more calls on this connection: another one is made for those to come."""
        self.minds_ends = True
        if link is self._link:
            self._link = None
            self._dial_again(link)

    def on_lost(self, link: Link) -> None:
        """A connection has ended."""
        self._links.discard(link)
        if self._is_closed and not self._links:
            self._all_gone.set()
        if link is self._link:
            self._link = None
            self._dial_again(link)

    # Calls.

    def _open(self, link: Link, exchange: Exchange, prepared: Prepared, data: bytes) -> bool:
        """Sends a call; false where it must wait."""
        try:
            link.codec.open(exchange, prepared.block, data, ends=exchange.is_whole)
        except CannotOpenError as error:
            if error.obstacle is Obstacle.NO_STREAM_IDS:
                link.retire()
            return False
        except UnsentFullError as error:
            self._loop.call_soon(exchange.end, refused(str(error), "other"))
            return True
        exchange.link = link
        link.flush_soon()
        return True

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting and self._link is not None:
            exchange, prepared, data = waiting[0]
            if not exchange.is_over and not self._open(self._link, exchange, prepared, data):
                return
            waiting.popleft()

    def _fail_waiting(self, answer: Answer) -> None:
        waiting, self._waiting = self._waiting, deque()
        for exchange, _, _ in waiting:
            exchange.end(answer)

    def _tend(self) -> None:
        self._send_waiting()
        retired = [link for link in self._links if link.is_retired]
        for link in retired:
            link.close_if_done()
        self.minds_ends = bool(self._waiting or retired)

    # Connections.

    def _dial_again(self, lost: Link) -> None:
        """At once after a connection that had lasted, else after a pause: a server that ends each is not hammered."""
        if self._is_closed:
            return
        lasted_s = self._loop.time() - lost.ready_s
        self._failures = 0 if lasted_s > BACKOFF_FIRST_S else self._failures + 1
        self._dial_in(self._pause_s() if self._failures else 0.0)

    def _dial_in(self, pause_s: float) -> None:
        def begin() -> None:
            self._dialling = self._loop.create_task(self._dial())

        self._redial = self._loop.call_later(pause_s, begin)

    def _pause_s(self) -> float:
        pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        return pause_s * random.uniform(1.0 - BACKOFF_JITTER, 1.0 + BACKOFF_JITTER)

    async def _dial(self) -> None:
        self.dials += 1
        link = Link(self, self._first_stream_id)
        broke: ErrorClass = "refused"
        self._broke = broke  # until this attempt has failed, too, nothing more was reset
        why = ""
        try:
            async with asyncio.timeout(DIAL_WITHIN_S):
                await self._connect(link)
                why = await link.made
                broke = link.broke
        except TimeoutError:
            why = f"no HTTP/2 settings within {DIAL_WITHIN_S:g} s: check that a gRPC server listens there"
        except ssl.SSLError as error:
            why = f"no TLS: {error.reason or error}"
        except ValueError as error:
            why = f"{self._target.host!r} cannot be the name of a server: {error}"
        except OSError as error:
            text = str(error) or type(error).__name__  # one that ends a handshake has neither number nor text
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else text
        if link.is_ready:  # also where its settings came with the limit
            return
        self._let_go(link, "this end gave the connection up")
        self._failure = f"failed to connect to {self._target.address}: {why}"
        self._broke = broke
        self._failures += 1
        self._fail_waiting(refused(self._failure, broke))
        if not self._is_closed:
            self._dial_in(self._pause_s())

    def _let_go(self, link: Link, why: str) -> None:
        """Closes a connection; it is kept until its socket is closed, if it got one."""
        link.close(why)
        if not link.is_open:
            self._links.discard(link)

    async def _connect(self, link: Link) -> None:
        target = self._target
        name = target.server_name if target.tls else None
        self._links.add(link)
        await self._loop.create_connection(lambda: link, target.host, target.port, ssl=target.tls, server_hostname=name)


def expire(exchange: Exchange, deadline_s: float) -> None:
    """Ends a call whose deadline has passed."""
    was_sent = exchange.link is not None
    exchange.stop(expired(deadline_s, was_sent, exchange.unsent_bytes if was_sent else 0))
