"""The nodes of a simulation, and the store under them."""

import asyncio
import random
from collections.abc import Callable

from simulation.node import Node
from simulation.store import Disk, Observer, SimulatedStore


class Cluster:
    """Nodes that share one store, or one node with a store of its own.

    Attributes:
        nodes: All of them.
        store: The store, once a node has begun; one that is not shared is another with each start.
    """

    def __init__(self, nodes: list[Node], fork: Callable[[], random.Random], observer: Observer) -> None:
        self.nodes = nodes
        self.is_shared = len(nodes) > 1
        self.store: SimulatedStore | None = None
        self._disk = Disk()
        self._fork = fork
        self._observer = observer

    def start(self) -> None:
        """Starts every node that is down."""
        for node in self.nodes:
            if not node.is_up:
                self._start(node)

    def _start(self, node: Node) -> None:
        if self.store is None or not self.is_shared:
            self.store = SimulatedStore(self._disk, self._fork(), self._observer, is_shared=self.is_shared)
            self.store.on_broken = node.kill if not self.is_shared else lambda: None
        node.start(self.store)

    def heal(self) -> None:
        """Takes back what still waits to go wrong."""
        for node in self.nodes:
            node.trap = None
            node.resume()
        if self.store is not None:
            self.store.breaks_next = None

    async def all_serve(self) -> None:
        """Until all nodes serve, those included that end while they begin."""
        while not all(node.is_serving for node in self.nodes):
            self.start()
            await asyncio.sleep(0.1)

    @property
    def wall_rate(self) -> float:
        """How much faster than everything else times of day go."""
        return self.nodes[0].wall_rate

    def latest_s(self) -> float:
        """The time of day on the node whose clock is furthest ahead."""
        return max(node.wall_clock() for node in self.nodes)
