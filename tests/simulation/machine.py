"""What a state machine of the service brings to a simulation: clients of its own, beside those of agents and leases.

To add one: a module with a `Machine`, listed in `world.MACHINES`; its handlers in `Node.start`; what must be reached of
it in `coverage.PARTS`; its checkers, which see histories alone, in `support.checkers.CHECKERS`. Requests and responses
of `holdfast.coordination.v1` stand in the history whole, so no code is needed there.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from simulation.cluster import Cluster
from simulation.network import Network


@dataclass(frozen=True, slots=True)
class Stage:
    """What clients of a machine find.

    Attributes:
        network: The way to the nodes.
        cluster: The nodes, for clients that ask them for the time of day.
        rng: What they do.
        known: What clients of agents have learnt.
    """

    network: Network
    cluster: Cluster
    rng: random.Random
    known: Any


class Machine(Protocol):
    """Clients of one state machine."""

    @property
    def followers(self) -> "Sequence[Follower]":
        """Its watches, which run from the beginning to the end."""
        ...

    async def run(self) -> None:
        """Makes its calls while things go wrong; ends by itself."""
        ...

    async def finish(self) -> None:
        """Reads what came of it, once all is healed."""
        ...


class Follower:
    """Watches other resources than agents, and goes on where it was whenever it is cut off; reads slowly now and then.

    Args:
        name: Who it is.
        stage: Where.
        op: The rpc.
        request: Its request, but for the revision to start from.
        response: The type of its messages.
        learn: Told each resource, as a message.

    Attributes:
        told: The revision up to which it knows everything.
        is_hasty: Set at the end: from then on it reads at once.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        op: str,
        request: Any,
        response: type[Message],
        learn: Callable[[Any], None] = lambda _message: None,
    ) -> None:
        self.told = 0
        self.is_hasty = False
        self._name = name
        self._network = stage.network
        self._rng = random.Random(stage.rng.getrandbits(64))
        self._op = op
        self._request = request
        self._response = response
        self._learn = learn
        self._last = 0
        self._is_whole = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            start = self.told + 1 if self._is_whole else 0
            request = type(self._request)()
            request.CopyFrom(self._request)
            request.start_revision, request.progress_notify = start, True
            reason = await self._network.follow(
                self._name, self._op, request, self._response, self._last if start else 0, self._take
            )
            if reason in ("REVISION_COMPACTED", "REVISION_FUTURE"):
                self._is_whole = False
            if not self.is_hasty:
                await asyncio.sleep(self._rng.expovariate(1))

    async def _take(self, watch: int, message: Any) -> bool:
        self._last = watch
        if message.WhichOneof("step") == "reset":
            self._is_whole = False
            return False
        self._learn(message)
        if message.events.snapshot_end:
            self._is_whole = True
        if self._is_whole:
            self.told = message.revision
        if self.is_hasty:
            return False
        if self._rng.random() < 0.05:
            await asyncio.sleep(self._rng.uniform(0, 6))
        return self._rng.random() < 0.05
