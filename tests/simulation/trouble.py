"""What goes wrong in a simulation: at random, or in an order that random troubles hardly ever find."""

import asyncio
import random
from collections.abc import Sequence

from holdfast.replicas import PROOF_S, TAKEOVER_S
from simulation.clients import KEPT_TTLS_S, Keeper
from simulation.cluster import Cluster
from simulation.coverage import FAILPOINTS
from simulation.network import Network
from simulation.node import Node

UNTIL_OVER_S = TAKEOVER_S + max(KEPT_TTLS_S) + PROOF_S
"""Silence after which nothing is left of the leases of a replica."""

STRAYING = 0.8
"""Share of the leases of a replica that another one is asked to keep, too."""


class Trouble:
    """Makes trouble until it is cancelled."""

    def __init__(self, cluster: Cluster, network: Network, rng: random.Random) -> None:
        self._cluster = cluster
        self._network = network
        self._history = network.history
        self._rng = rng

    async def at_random(self) -> None:
        """One trouble after the other, whichever comes."""
        rng, cluster = self._rng, self._cluster
        while True:
            await asyncio.sleep(rng.expovariate(1 / 4))
            node = rng.choice(cluster.nodes)
            kind = rng.choice(["kill", "kill", "trap", "trap", "pause", "outage", "break", "cut"])
            if kind == "kill":
                node.kill()
            elif kind == "trap":
                node.trap = rng.choice(FAILPOINTS)
                await asyncio.sleep(1)
            elif kind == "pause":
                await self._pause(node, rng.choice([0.3, 1.5, 5.0, 9.0]))
            elif kind == "outage":
                await self._outage(rng.uniform(0.1, 2))
            elif kind == "break" and cluster.store is not None and not cluster.is_shared:
                cluster.store.breaks_next = rng.random() < 0.5
                await asyncio.sleep(0.5)
            elif kind == "cut" and cluster.is_shared:
                await self._cut_off(node, rng.choice([1.0, 5.0, 14.0, 30.0]))
            if not node.is_up:
                await asyncio.sleep(rng.choice([0.1, 1.0, 8.0]))
            cluster.start()

    async def stalls(self) -> None:
        """A node stands still, again and again, and what its clients sent waits for it."""
        while True:
            await asyncio.sleep(self._rng.uniform(2, 4))
            await self._pause(self._rng.choice(self._cluster.nodes), self._rng.choice([1.5, 4.0, 9.0, 20.0]))

    async def failovers(self, keepers: Sequence[Keeper]) -> None:
        """One replica falls silent under keepers that stay with it: as long as its proof lasts, or for good."""
        rng = self._rng
        while True:
            await self._cluster.all_serve()
            await asyncio.sleep(rng.uniform(2, 4))
            silent, other = rng.sample(self._cluster.nodes, 2)
            around, over = rng.uniform(PROOF_S - 1, TAKEOVER_S + 1), UNTIL_OVER_S + rng.uniform(1, 4)
            seconds = rng.choice([around, over])
            how = rng.choice(["cut", "cut", "cut", "pause", "kill"])
            if how == "cut":
                straying = asyncio.ensure_future(self._stray(keepers, silent, other))
                await self._cut_off(silent, seconds)
                straying.cancel()
            elif how == "pause":
                await self._pause(silent, seconds)
            else:
                silent.kill()
                await asyncio.sleep(seconds)

    async def _stray(self, keepers: Sequence[Keeper], silent: Node, other: Node) -> None:
        """Keepalives for what a replica keeps come to the other one, once, and move it there."""
        await asyncio.sleep(self._rng.uniform(0, 1))
        strayed = [
            each.lease for each in keepers if each.node is silent and each.lease and self._rng.random() < STRAYING
        ]
        await asyncio.gather(*(self._network.keep("stray", lease, other) for lease in strayed))

    async def _pause(self, node: Node, seconds: float) -> None:
        if node.is_up:
            node.pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                node.resume()

    async def _cut_off(self, node: Node, seconds: float) -> None:
        """The node and its clients see each other, the store and the node do not."""
        store = self._cluster.store
        assert store is not None
        self._history.mark(node.name, "paused", "cut off from the store")
        store.cut_off.add(node)
        try:
            await asyncio.sleep(seconds)
        finally:
            store.cut_off.discard(node)
            self._history.mark(node.name, "resumed")

    async def _outage(self, seconds: float) -> None:
        store = self._cluster.store
        assert store is not None
        self._history.mark("store", "paused")
        store.is_refusing_writes = True
        try:
            await asyncio.sleep(seconds)
        finally:
            store.is_refusing_writes = False
            self._history.mark("store", "resumed")
