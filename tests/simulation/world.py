"""One seed, one world: nodes over a store, clients, and whatever goes wrong; its history is what is judged."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest.mock import patch

from holdfast.core.decisions import forgetting
from holdfast.registry.v1.agent_registry_service_pb2 import ListAgentsRequest, ListAgentsResponse
from holdfast.replicas import PROOF_S, TAKEOVER_S
from simulation import loop
from simulation.clients import KEPT_TTLS_S, PARENT, Client, Keeper, Known, Watcher
from simulation.cluster import Cluster
from simulation.coverage import Coverage
from simulation.deciding import Deciding
from simulation.locking import Locking
from simulation.machine import Follower, Machine, Stage
from simulation.network import Network
from simulation.node import CALL, Clocks, Node
from simulation.stalls import kept_through_stalls
from simulation.trouble import Trouble
from support import quiet
from support.checkers import check
from support.evidence import Evidence, Limits, Violation
from support.history import Event, History, to_jsonl

CLIENTS = 4
OPERATIONS = 220
"""Calls of all clients together, keepalives and watches not counted."""

KEEPERS = 4
"""Clients that stay with one node, in seeds about failovers and stalls."""

RANDOM, STALLS, FAILOVERS = "random", "stalls", "failovers"
PLOTS = (RANDOM, RANDOM, STALLS, FAILOVERS, RANDOM, RANDOM, RANDOM, FAILOVERS)
"""What goes wrong in a seed, by its remainder: failovers need replicas, which odd seeds have, and stalls of one node
say more where nobody takes over."""

MACHINES: Sequence[Callable[[Stage], Machine]] = (Deciding, Locking)
"""What else goes on beside agents and their leases."""

DRIFT = 0.005
"""Most by which a monotonic clock runs fast or slow."""

DRIFT_MAX = 0.19
"""The same in half of the seeds about failovers: just less than what PROOF_S and TAKEOVER_S of the product allow."""

WATCHES = ("", "", 'labels.team = "red"')
"""Filters of the watchers."""

ALL = "liveness = LIVE OR liveness = EXPIRED"
QUIET_AFTER_S = 10.0
"""By then, once all is healed and nobody keeps leases, the last has ended: they have 5 s at most. Machines leave
nothing that ends by itself.
"""

ENDED_KEPT_S = 3600.0
"""How long the product keeps decisions after their end in simulations, where no day passes."""

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
    with coverage.watching(), patch.object(forgetting, "ENDED_KEPT_S", ENDED_KEPT_S):
        world, errors = loop.run(_run(seed, coverage))
    defects = [repr(error) for error in errors]
    return Outcome(seed, world.history.events, world.judged(), defects)


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
        self._plot = PLOTS[seed % len(PLOTS)]
        self._is_shared = seed % 2 == 1
        self.history = History(clock)
        self._drift = self._rng.choice([DRIFT, DRIFT_MAX]) if self._plot == FAILOVERS else DRIFT
        wall_rate = self._rng.choice([1.0, 1.0, 400.0])
        self._skew_s = self._rng.choice([100.0, 0.3])
        self._is_quiet_in_the_end = not self._is_shared and wall_rate == 1.0  # no beats, and no hour that is soon over
        retain = self._rng.choice([20, 60, 10_000])
        names = ("n1", "n2") if self._is_shared else ("n1",)
        nodes = [Node(name, self._fork(), self._clocks(wall_rate), self.history, retain) for name in names]
        self._cluster = Cluster(nodes, self._fork, coverage)
        self._network = Network(nodes, self._fork(), self.history)
        self.limits = Limits(
            # A keepalive moves a lease: TAKEOVER_S more. Its new owner falls silent just before that is over: another
            # takes over after TAKEOVER_S, and gives it its TTL once more. And 4 s for rounds and links.
            grace_s=(4.0 + 2 * TAKEOVER_S + max(KEPT_TTLS_S)) / (1 - self._drift) if self._is_shared else 1.0,
            clock_error=self._drift,
            stale_keeps_s=PROOF_S / (1 - self._drift) if self._is_shared else 0.0,
            requests_kept_s=3600 / wall_rate / 2,
            expired_kept_s=3600 / wall_rate / 2,
            retain_revisions=retain,
            ended_kept_s=ENDED_KEPT_S / wall_rate / 2,
            clock_skew_s=2 * self._skew_s * self._is_shared if wall_rate == 1.0 else None,
            deadlines_grace_s=2.0 if wall_rate == 1.0 and not self._is_shared else None,
        )

    def _fork(self) -> random.Random:
        return random.Random(self._rng.getrandbits(64))

    def _clocks(self, wall_rate: float) -> Clocks:
        rng = self._rng
        return Clocks(
            begin_s=rng.uniform(0, 1e6),
            rate=1 + (rng.choice([-1, 1]) if self._plot == FAILOVERS else rng.uniform(-1, 1)) * self._drift,
            wall_begin_s=1.7e9 + rng.uniform(-1, 1) * self._skew_s,
            wall_rate=wall_rate,
        )

    async def live(self) -> None:
        """From the first start to the final state."""
        self._cluster.start()
        known = Known()
        watchers = [
            Watcher(f"watcher{number}", self._network, self._fork(), only) for number, only in enumerate(WATCHES)
        ]
        watching = [asyncio.ensure_future(watcher.run()) for watcher in watchers]
        machines = [machine(Stage(self._network, self._cluster, self._fork(), known)) for machine in MACHINES]
        followers = [follower for machine in machines for follower in machine.followers]
        watching += [asyncio.ensure_future(follower.run()) for follower in followers]
        keepers = self._keepers(known)
        keeping = [asyncio.ensure_future(keeper.run()) for keeper in keepers]
        troubles = asyncio.ensure_future(self._trouble(keepers))
        count = CLIENTS - len(keepers) // 2  # who keeps leases does its share
        clients = [Client(f"client{number}", self._network, self._fork(), known) for number in range(count)]
        calling = [client.run(OPERATIONS // CLIENTS) for client in clients]
        await asyncio.gather(*calling, *(machine.run() for machine in machines))
        for each in (troubles, *keeping):
            each.cancel()
        await asyncio.sleep(0)  # what was cancelled ends
        self._cluster.heal()
        await self._cluster.all_serve()
        await self._finish([*watchers, *followers], machines)
        for watch in watching:
            watch.cancel()

    def _keepers(self, known: Known) -> list[Keeper]:
        """Those who stay with one node each, if what goes wrong is for them."""
        count = KEEPERS if self._plot in (STALLS, FAILOVERS) else 0
        nodes = self._cluster.nodes
        return [
            Keeper(f"k{number}", self._network, self._fork(), known, nodes[number % len(nodes)])
            for number in range(count)
        ]

    async def _trouble(self, keepers: Sequence[Keeper]) -> None:
        trouble = Trouble(self._cluster, self._network, self._fork())
        if self._plot == STALLS:
            await trouble.stalls()
        elif self._plot == FAILOVERS:
            await trouble.failovers(keepers)
        else:
            await trouble.at_random()

    def judged(self) -> list[Violation]:
        """What its history contradicts, the promise included that only one who serves all alone can make."""
        violations = check(self.history.events, self.limits)
        if not self._cluster.is_shared:
            violations += kept_through_stalls(Evidence(self.history.events, self.limits))
        return violations

    async def _final_state(self) -> ListAgentsResponse:
        """What the last node says; one that dies meanwhile, since its view cannot go on, is asked again."""
        request = ListAgentsRequest(parent=PARENT, filter=ALL, page_size=1000)
        while True:
            await self._cluster.all_serve()
            node = self._cluster.nodes[-1]
            asking = node.spawn(node.handler("ListAgents")(request, CALL))
            await asyncio.wait([asking])
            if not asking.cancelled():
                response: ListAgentsResponse = asking.result()
                return response

    async def _finish(self, watchers: "Sequence[Watcher | Follower]", machines: Sequence[Machine]) -> None:
        await asyncio.sleep(28.0 if self._plot == FAILOVERS else self._rng.choice([0.0, 3.0, 20.0]))
        for machine in machines:
            await machine.finish()
        response = await self._final_state()
        self.history.final_state("final", PARENT, response.revision, response.agents)
        deadline_s = asyncio.get_running_loop().time() + FINISH_S_MAX
        for watcher in watchers:
            watcher.is_hasty = True
        while any(watcher.told < response.revision for watcher in watchers):
            if asyncio.get_running_loop().time() > deadline_s:
                raise AssertionError(f"a watch is not told what happened up to {response.revision}")
            await asyncio.sleep(0.2)
        if self._is_quiet_in_the_end:
            await asyncio.sleep(QUIET_AFTER_S)
            await quiet.rest(self.history, self._network.call, PARENT)
