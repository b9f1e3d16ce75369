"""Clients that take locks and lead, write to what is guarded, give back, lose, and come too late."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from holdfast.coordination.v1 import election_service_pb2 as elections_pb
from holdfast.coordination.v1 import lock_service_pb2 as pb
from holdfast.registry.v1.lease_service_pb2 import GrantLeaseRequest, RevokeLeaseRequest
from simulation.clients import PARENT, THINK_S
from simulation.guarded import Guarded
from simulation.machine import Follower, Stage
from simulation.node import Node

CLIENTS = 5
OPERATIONS = 80
"""Calls of all of them together; leases, and keepalives, not counted."""

LOCKS = [f"{PARENT}/locks/{each}" for each in ("x", "y")]
ELECTION = f"{PARENT}/elections/e"
FOREIGN_LEASE = "namespaces/foreign/leases/l"

TTLS_S = (1, 2, 4)
DELAYS_S = (None, 0.0, 0.5, 3.0, None)
"""Of the client of that number: one delay each, so that it is known whichever of its calls was granted."""

WAITS_S = (0.0, 1.0, 2.5, 3.5, 9.0)
"""How long they wait in line: less than they wait for an answer, or longer, so that they go away from it."""

KEEP_EVERY_TTL = (0.3, 0.3, 0.7)
"""How often leases are kept, as shares of their TTL."""

HOME = 0.75
"""Share of the calls about a lock that go to one node, so that there are lines; the others go to any."""

FREE_TRIES_MAX = 200
"""Reads of each lock at the end, until it is free: leases last seconds, and delays, too."""

WEIGHTS = {
    "AcquireLock": 34,
    "Campaign": 12,
    "ReleaseLock": 18,
    "ResignLeadership": 5,
    "ProclaimLeader": 5,
    "ForceReleaseLock": 3,
    "RevokeLease": 5,
    "GetLock": 7,
    "GetLeader": 3,
    "ListLocks": 2,
    "VerifyFence": 7,
    "again": 5,
}
"""How often each is done; `again` repeats an earlier request of its own."""

OPS = tuple(WEIGHTS)
CUMULATIVE = tuple(itertools.accumulate(WEIGHTS.values()))


def seconds(count: float) -> Duration:
    """So long."""
    duration = Duration()
    duration.FromMilliseconds(int(count * 1000))
    return duration


@dataclass(slots=True)
class _Known:
    """What clients have heard of, and may try to use: every fence by its lock, and all leases."""

    fences: dict[str, list[int]] = field(default_factory=dict)
    leases: list[str] = field(default_factory=list)


class Locking:
    """The machine: see `simulation.machine`."""

    followers: Sequence[Follower] = ()

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known = _Known()
        self._guarded = Guarded(stage.network.history)
        self._observing: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Makes its calls; observers stay until the end."""
        rngs = [random.Random(self._stage.rng.getrandbits(64)) for _ in range(CLIENTS + 2)]
        observers = [_observe(f"observer{number}", self._stage, rngs.pop()) for number in range(2)]
        self._observing = [asyncio.ensure_future(each) for each in observers]
        clients = [_Client(number, self._stage, self._known, self._guarded, rng) for number, rng in enumerate(rngs)]
        await asyncio.gather(*(client.run(OPERATIONS // CLIENTS) for client in clients))

    async def finish(self) -> None:
        """Ends what would end by itself, and waits until everything is free."""
        for lease in self._known.leases:
            await self._stage.network.call("locker", "RevokeLease", RevokeLeaseRequest(name=lease))
        for name in LOCKS:
            for _ in range(FREE_TRIES_MAX):
                response = await self._stage.network.call("locker", "GetLock", pb.GetLockRequest(name=name))
                if response is not None and response.lock.state == pb.LOCK_STATE_FREE:
                    break
                await asyncio.sleep(0.1)
        for observing in self._observing:
            observing.cancel()


async def _observe(name: str, stage: Stage, rng: random.Random) -> None:
    """Observes, again and again, and reads slowly now and then."""

    async def take(_message: elections_pb.ObserveLeaderResponse) -> bool:
        if rng.random() < 0.05:
            await asyncio.sleep(rng.uniform(0, 6))
        return rng.random() < 0.05

    while True:
        await stage.network.observe(name, elections_pb.ObserveLeaderRequest(election=ELECTION), take)
        await asyncio.sleep(rng.expovariate(1))


class _Client:
    """One holder, with one lease at a time; makes one call after the other, and works beside them."""

    def __init__(self, number: int, stage: Stage, known: _Known, guarded: Guarded, rng: random.Random) -> None:
        self._name = f"locker{number}"
        self._number = number
        self._stage = stage
        self._network = stage.network
        self._known = known
        self._guarded = guarded
        self._rng = rng
        self._lease = ""
        self._held: dict[str, int] = {}
        self._requests: list[tuple[str, Any]] = []
        self._beside: list[asyncio.Task[None]] = []

    async def run(self, count: int) -> None:
        """Makes so many calls."""
        for _ in range(count):
            await asyncio.sleep(self._rng.expovariate(1 / THINK_S))
            if not self._lease:
                await self._grant()
            op, request = self._next()
            if request is not None:
                await self._call(op, request)
        for task in self._beside:
            task.cancel()

    # Leases.

    async def _grant(self) -> None:
        ttl_s = self._rng.choice(TTLS_S)
        request = GrantLeaseRequest(parent=PARENT, ttl=Duration(seconds=ttl_s))
        response = await self._network.call(self._name, "GrantLease", request)
        if response is None:
            return
        self._lease = response.lease.name
        self._known.leases.append(self._lease)
        every_s, for_s = ttl_s * self._rng.choice(KEEP_EVERY_TTL), self._rng.expovariate(1 / 9)
        self._beside.append(asyncio.ensure_future(self._keep(self._lease, every_s, for_s)))

    async def _keep(self, lease: str, every_s: float, for_s: float) -> None:
        """Keeps a lease for some time, and notices its end some time later."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + for_s
        while loop.time() < end_s and await self._network.keep(self._name, lease):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(every_s)
        await asyncio.sleep(self._rng.uniform(0, 2))
        self._forget(lease)

    def _forget(self, lease: str) -> None:
        if self._lease == lease:
            self._lease = ""
            self._held.clear()

    # Calls.

    async def _call(self, op: str, request: Any) -> None:
        name = next((getattr(request, each) for each in ("lock", "election", "name") if hasattr(request, each)), "")
        node = self._node(name)
        response = await self._network.call(f"{self._name}@{node.name}" if node else self._name, op, request, node)
        if op == "RevokeLease":
            self._forget(request.name)
        if response is None:
            return
        lock = getattr(response, "lock", None) or getattr(response, "leadership", None)
        if lock is not None and lock.fence:
            where = getattr(lock, "name", "") or lock.election
            self._known.fences.setdefault(where, []).append(lock.fence)
            if op in ("AcquireLock", "Campaign"):
                self._held[where] = lock.fence
                self._beside.append(asyncio.ensure_future(self._work(where, lock.fence)))
        if op in ("ReleaseLock", "ResignLeadership"):
            self._held.pop(name, None)

    def _node(self, name: str) -> Node | None:
        """Mostly the node that most ask about this lock, if it serves."""
        nodes = self._stage.cluster.nodes
        home = nodes[len(name) % len(nodes)]
        return self._network.serving(home if self._rng.random() < HOME else None)

    async def _work(self, name: str, fence: int) -> None:
        """Writes to what the lock guards, whether or not it is held yet: whoever stood still does not know."""
        for _ in range(self._rng.randint(1, 4)):
            await asyncio.sleep(self._rng.expovariate(1 / 1.5))
            self._guarded.write(self._name, name, fence)

    # Requests.

    def _next(self) -> tuple[str, Message | None]:
        rng = self._rng
        op = rng.choices(OPS, cum_weights=CUMULATIVE)[0]
        if op == "again":
            return rng.choice(self._requests[-6:]) if self._requests else ("", None)
        if op in ("ReleaseLock", "ResignLeadership") and not self._held and rng.random() < 0.8:
            op = "AcquireLock"
        return op, self._request(op)

    def _request(self, op: str) -> Message | None:
        lock = self._rng.choice(LOCKS)
        match op:
            case "AcquireLock":
                return self._acquisition(lock)
            case "Campaign":
                return self._candidacy()
            case "ReleaseLock":
                lock, fence = self._fence([each for each in LOCKS if each in self._held] or LOCKS)
                return pb.ReleaseLockRequest(lock=lock, fence=fence)
            case "ResignLeadership":
                return elections_pb.ResignLeadershipRequest(election=ELECTION, fence=self._fence([ELECTION])[1])
            case "ProclaimLeader":
                value = self._rng.randbytes(4)
                fence = self._fence([ELECTION])[1]
                return elections_pb.ProclaimLeaderRequest(election=ELECTION, fence=fence, value=value)
            case "ForceReleaseLock":
                return pb.ForceReleaseLockRequest(lock=lock, reason="an operator's")
            case "RevokeLease":
                return RevokeLeaseRequest(name=self._lease) if self._lease else None
            case "GetLock":
                return pb.GetLockRequest(name=lock)
            case "GetLeader":
                return elections_pb.GetLeaderRequest(election=ELECTION)
            case "ListLocks":
                return pb.ListLocksRequest(parent=PARENT)
            case _:
                name, fence = self._fence([*LOCKS, ELECTION])
                return pb.VerifyFenceRequest(resource=name, fence=fence)

    def _fence(self, among: Sequence[str]) -> tuple[str, int]:
        """One it holds, mostly; else one that somebody held, of this lock or of any; or one that nobody ever had."""
        rng, name = self._rng, self._rng.choice(among)
        if name in self._held and rng.random() < 0.8:
            return name, self._held[name]
        known = self._known.fences.get(name if rng.random() < 0.7 else rng.choice([*LOCKS, ELECTION]), [1])
        return name, max(1, rng.choice(known[-4:]) - rng.choice([0, 0, 0, 1]))

    def _acquisition(self, lock: str) -> Message:
        request = pb.AcquireLockRequest(lock=lock, holder=self._name, **self._common())
        request.wait.CopyFrom(seconds(self._rng.choice(WAITS_S)))
        delay_s = DELAYS_S[self._number]
        if delay_s is not None:
            request.delay.CopyFrom(seconds(delay_s))
        return self._remembered("AcquireLock", request)

    def _candidacy(self) -> Message:
        request = elections_pb.CampaignRequest(election=ELECTION, candidate=self._name, **self._common())
        request.value = self._rng.randbytes(4)
        if self._rng.random() < 0.7:
            request.wait.CopyFrom(seconds(self._rng.choice(WAITS_S)))
        return self._remembered("Campaign", request)

    def _common(self) -> dict[str, str]:
        rng = self._rng
        lease = FOREIGN_LEASE if rng.random() < 0.02 else self._lease or f"{PARENT}/leases/none"
        return {"lease": lease, "request_id": f"l{rng.getrandbits(32)}" if rng.random() < 0.4 else ""}

    def _remembered(self, op: str, request: Any) -> Message:
        if request.request_id:
            self._requests.append((op, request))
            if self._rng.random() < 0.15:
                other = type(request)()
                other.CopyFrom(request)
                other.wait.CopyFrom(seconds(0.25))
                self._requests.append((op, other))
        message: Message = request
        return message
