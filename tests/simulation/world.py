"""One seed, one world: nodes over a store, clients, and whatever goes wrong; its history is what is judged."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.registry.v1.agent_registry_service_pb2 import ListAgentsRequest
from holdfast.replicas import PROOF_S, TAKEOVER_S
from simulation import loop
from simulation.clients import PARENT, Client, Known, Watcher
from simulation.coverage import FAILPOINTS, Coverage
from simulation.network import Network
from simulation.node import CALL, Clocks, Node
from simulation.store import Disk, SimulatedStore
from support.checkers import check
from support.evidence import Limits, Violation
from support.history import Event, History, to_jsonl

CLIENTS = 4
OPERATIONS = 220
"""Calls of all clients together, keepalives and watches not counted."""

DRIFT = 0.005
"""Most by which a monotonic clock runs fast or slow; PROOF_S and TAKEOVER_S of the product allow far more."""

WATCHES = ("", "", 'labels.team = "red"')
"""Filters of the watchers."""

ALL = "liveness = LIVE OR liveness = EXPIRED"
FINISH_S_MAX = 60.0
"""Longest time for watchers to learn the rest at the end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    events: list[Event]
    violations: list[Violation]
    defects: list[str]

    @property
    def text(self) -> str:
        """The history as lines."""
        return to_jsonl(self.events)

    @property
    def operations(self) -> int:
        """Calls that clients made, keepalives included."""
        return sum(type(event).__name__ in ("Invoke", "KeepSent") for event in self.events)


def simulate(seed: int, coverage: Coverage | None = None) -> Outcome:
    """Runs a seed and judges its history. The same seed gives the same history."""
    coverage = coverage or Coverage()
    coverage.begin_seed()
    with coverage.watching():
        world, errors = loop.run(_run(seed, coverage))
    defects = [repr(error) for error in errors]
    return Outcome(seed, world.history.events, check(world.history.events, world.limits), defects)


async def _run(seed: int, coverage: Coverage) -> "tuple[World, list[BaseException | str]]":
    running = asyncio.get_running_loop()
    assert isinstance(running, loop.VirtualLoop)
    world = World(seed, coverage, running.time)
    try:
        async with asyncio.timeout(3600):
            await world.live()
    except TimeoutError:
        running.errors.append("it never came to its end")
    return world, running.errors


class World:
    """Everything of one seed. An even seed has one node with its own store, an odd one two nodes that share one."""

    def __init__(self, seed: int, coverage: Coverage, clock: Callable[[], float]) -> None:
        self._rng = random.Random(seed)
        self._coverage = coverage
        self._is_shared = seed % 2 == 1
        self.history = History(clock)
        wall_rate = self._rng.choice([1.0, 1.0, 400.0])
        retain = self._rng.choice([20, 60, 10_000])
        names = ("n1", "n2") if self._is_shared else ("n1",)
        self._nodes = [Node(name, self._fork(), self._clocks(wall_rate), self.history, retain) for name in names]
        self._disk = Disk()
        self._store: SimulatedStore | None = None
        self._network = Network(self._nodes, self._fork(), self.history)
        self._tasks: list[asyncio.Task[None]] = []
        self.limits = Limits(
            grace_s=2.5 + (PROOF_S + TAKEOVER_S if self._is_shared else 0.0),
            clock_error=DRIFT,
            stale_keeps_s=PROOF_S * (1 + DRIFT) if self._is_shared else 0.0,
            requests_kept_s=3600 / wall_rate / 2,
            expired_kept_s=3600 / wall_rate / 2,
        )

    def _fork(self) -> random.Random:
        return random.Random(self._rng.getrandbits(64))

    def _clocks(self, wall_rate: float) -> Clocks:
        rng = self._rng
        return Clocks(
            begin_s=rng.uniform(0, 1e6),
            rate=1 + rng.uniform(-DRIFT, DRIFT),
            wall_begin_s=1.7e9 + rng.uniform(-100, 100),
            wall_rate=wall_rate,
        )

    async def live(self) -> None:
        """From the first start to the final state."""
        for node in self._nodes:
            self._start(node)
        known = Known()
        watchers = [
            Watcher(f"watcher{number}", self._network, self._fork(), only) for number, only in enumerate(WATCHES)
        ]
        watching = [asyncio.ensure_future(watcher.run()) for watcher in watchers]
        troubles = asyncio.ensure_future(self._trouble())
        clients = [Client(f"client{number}", self._network, self._fork(), known) for number in range(CLIENTS)]
        await asyncio.gather(*(client.run(OPERATIONS // CLIENTS) for client in clients))
        troubles.cancel()
        await self._heal()
        await self._finish(watchers)
        for watch in watching:
            watch.cancel()

    # Trouble.

    def _start(self, node: Node) -> None:
        if node.is_up:
            return
        if self._store is None or not self._is_shared:
            self._store = SimulatedStore(self._disk, self._fork(), self._coverage, is_shared=self._is_shared)
            self._store.on_broken = node.kill if not self._is_shared else lambda: None
        node.start(self._store)

    async def _trouble(self) -> None:
        rng = self._rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / 4))
            node = rng.choice(self._nodes)
            kind = rng.choice(["kill", "kill", "trap", "trap", "pause", "outage", "break", "cut"])
            if kind == "kill":
                node.kill()
            elif kind == "trap":
                node.trap = rng.choice(FAILPOINTS)
                await asyncio.sleep(1)
            elif kind == "pause":
                await self._pause(node, rng.choice([0.3, 1.5, 5.0, 9.0]))
            elif kind == "outage" and self._store is not None:
                await self._outage(self._store, rng.uniform(0.1, 2))
            elif kind == "break" and self._store is not None and not self._is_shared:
                self._store.breaks_next = rng.random() < 0.5
                await asyncio.sleep(0.5)
            elif kind == "cut" and self._store is not None and self._is_shared:
                await self._cut_off(node, self._store, rng.choice([1.0, 5.0, 14.0, 30.0]))
            if not node.is_up:
                await asyncio.sleep(rng.choice([0.1, 1.0, 8.0]))
            for each in self._nodes:
                self._start(each)

    async def _pause(self, node: Node, seconds: float) -> None:
        if node.is_up:
            node.pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                node.resume()

    async def _cut_off(self, node: Node, store: SimulatedStore, seconds: float) -> None:
        """The node and its clients see each other, the store and the node do not."""
        self.history.mark(node.name, "paused", "cut off from the store")
        store.cut_off.add(node)
        try:
            await asyncio.sleep(seconds)
        finally:
            store.cut_off.discard(node)
            self.history.mark(node.name, "resumed")

    async def _outage(self, store: SimulatedStore, seconds: float) -> None:
        self.history.mark("store", "paused")
        store.is_refusing_writes = True
        try:
            await asyncio.sleep(seconds)
        finally:
            store.is_refusing_writes = False
            self.history.mark("store", "resumed")

    # The end.

    async def _heal(self) -> None:
        await asyncio.sleep(0)  # what was cancelled ends
        for node in self._nodes:
            node.trap = None
            node.resume()
        if self._store is not None:
            self._store.breaks_next = None
        await self._all_serve()

    async def _all_serve(self) -> None:
        """Until all nodes serve, those included that end while they begin."""
        while not all(node.is_serving for node in self._nodes):
            for node in self._nodes:
                self._start(node)
            await asyncio.sleep(0.1)

    async def _finish(self, watchers: list[Watcher]) -> None:
        await asyncio.sleep(self._rng.choice([0.0, 3.0, 20.0]))
        await self._all_serve()
        node = self._nodes[-1]
        response = await node.handler("ListAgents")(ListAgentsRequest(parent=PARENT, filter=ALL, page_size=1000), CALL)
        self.history.final_state("final", PARENT, response.revision, response.agents)
        deadline_s = asyncio.get_running_loop().time() + FINISH_S_MAX
        for watcher in watchers:
            watcher.is_hasty = True
        while any(watcher.told < response.revision for watcher in watchers):
            if asyncio.get_running_loop().time() > deadline_s:
                raise AssertionError(f"a watch is not told what happened up to {response.revision}")
            await asyncio.sleep(0.2)
