"""A whole server inside your tests: the real handlers on a real port, with nothing on disk, and time that you move.

```python
@pytest.fixture
async def server():
    async with holdfast.testing.serve() as server:
        yield server


async def test_workers_that_die_are_replaced(server):
    async with server.client() as client:
        await client.agents.register("worker", ttl_s=30)
        await server.advance(31)
        assert [agent async for agent in client.agents.list()] == []
```

`serve_in_thread` is the same for tests without asyncio. Real parts rather than doubles: a fake client would answer as
its author thought the service does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from holdfast.client import Client, sync
from holdfast.client.background import BackgroundLoop
from holdfast.serving.config import Address, ServerConfig, StoreSpec
from holdfast.serving.server import Server

_STEP_S = 0.2
"""How the clock is moved: the server takes a step of 0.5 s for a stall of its own, and gives its leases that time."""

_START_S_MAX = 20.0
"""Longest that a server may take to serve."""


@dataclass
class Clock:
    """Seconds that pass when they are told to. Both the server's and the client's, monotonic and of the day.

    Attributes:
        now_s: What it shows.
    """

    now_s: float = 1000.0
    _began_s: float = field(init=False, repr=False, default_factory=time.time)
    _first_s: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._first_s = self.now_s

    def __call__(self) -> float:
        """What it shows."""
        return self.now_s

    def wall(self) -> float:
        """Unix time, which passes with it, from when it was made."""
        return self._began_s + self.now_s - self._first_s


@dataclass(frozen=True)
class LocalServer:
    """A server that runs inside this process.

    Attributes:
        target: Its address, `127.0.0.1:PORT`.
        clock: Its time.
    """

    target: str
    clock: Clock
    _server: Server = field(repr=False)

    def client(self, namespace: str = "default", **options: Any) -> Client:  # noqa: ANN401 - of Client
        """A client of it, with its time. Options are those of `holdfast.client.Client`."""
        return Client(self.target, namespace=namespace, **{"clock": self.clock, **options})

    async def advance(self, seconds: float) -> None:
        """Lets time pass in which no client says a word, and what is due happen: leases end, deadlines pass.

        Raises:
            ValueError: Time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"advance({seconds}): time does not go back; make a new server for another start.")
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s = min(end_s, self.clock.now_s + _STEP_S)
            await self._server.look()


@asynccontextmanager
async def serve(clock: Clock | None = None) -> AsyncIterator[LocalServer]:
    """Runs a server in this event loop until the block ends. Its store is memory, its port one that is free.

    Args:
        clock: Its time; one of its own unless given.
    """
    clock = clock or Clock()
    nowhere = Address("127.0.0.1", 0)
    config = ServerConfig(
        listen=nowhere,
        http=nowhere,
        store=StoreSpec("memory"),
        insecure=False,
        ready_file=None,
        drain_timeout_s=1.0,
        retain_revisions=10_000,
        log_level="error",
    )
    server, stop = Server(config, clock=clock, wall_clock=clock.wall), asyncio.Event()
    running = asyncio.create_task(server.run(stop))
    serving = asyncio.create_task(server.serving.wait())
    try:
        await asyncio.wait({running, serving}, timeout=_START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if not server.serving.is_set():
            raise RuntimeError(f"the server does not serve after {_START_S_MAX:g} s: {running}")
        yield LocalServer(str(server.address), clock, server)
    finally:
        serving.cancel()
        stop.set()
        await running


@dataclass(frozen=True)
class ThreadedServer:
    """A server in a thread of this process, for tests without asyncio.

    Attributes:
        target: Its address, `127.0.0.1:PORT`.
        clock: Its time.
    """

    target: str
    clock: Clock
    _server: LocalServer = field(repr=False)
    _loop: BackgroundLoop = field(repr=False)

    def client(self, namespace: str = "default", **options: Any) -> sync.Client:  # noqa: ANN401 - of Client
        """A client of it, with its time. Options are those of `holdfast.client.sync.Client`."""
        return sync.Client(self.target, namespace=namespace, **{"clock": self.clock, **options})

    def advance(self, seconds: float) -> None:
        """As `LocalServer.advance`."""
        self._loop.run(self._server.advance(seconds))


@contextmanager
def serve_in_thread(clock: Clock | None = None) -> Iterator[ThreadedServer]:
    """Runs a server in a thread until the block ends; otherwise as `serve`."""
    with BackgroundLoop() as loop, loop.entered(lambda: serve(clock)) as server:
        yield ThreadedServer(server.target, server.clock, server, loop)
