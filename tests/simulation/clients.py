"""What clients of a simulation do: everything the API offers, at random, from one seed."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    BanAgentRequest,
    BatchRegisterAgentsRequest,
    CordonAgentRequest,
    DeregisterAgentRequest,
    DrainAgentRequest,
    GetAgentRequest,
    ListAgentsRequest,
    MatchAgentsRequest,
    RegisterAgentRequest,
    UnbanAgentRequest,
    UncordonAgentRequest,
    UpdateAgentRequest,
    WatchAgentsRequest,
    WatchAgentsResponse,
)
from holdfast.registry.v1.lease_service_pb2 import (
    GetLeaseRequest,
    GrantLeaseRequest,
    ListLeasesRequest,
    RevokeLeaseRequest,
)
from simulation.network import Network
from simulation.node import Node
from support.history import TAG

PARENT = "namespaces/sim"
AGENTS = [f"a{number}" for number in range(8)]
TEAMS = ("red", "blue")
THINK_S = 0.25
"""Mean pause of a client between calls."""

KEEP_EVERY_TTL = (0.3, 0.3, 0.7, 1.0)
"""How often leases are kept, as shares of their TTL: as one should, on the brink, and too late as often as not."""

KEPT_TTLS_S = (1, 1, 2, 3)
"""TTLs of those who stay with one node: shorter than a proof, so that what ends early is seen."""

RIVALS = 0.2
"""Share of updates and registrations that come at the same moment as another one of the same agent."""

RULINGS: dict[str, Callable[..., Message]] = {
    "CordonAgent": CordonAgentRequest,
    "UncordonAgent": UncordonAgentRequest,
    "DrainAgent": DrainAgentRequest,
    "BanAgent": BanAgentRequest,
    "UnbanAgent": UnbanAgentRequest,
}

WEIGHTS = {
    "RegisterAgent": 20,
    "BatchRegisterAgents": 6,
    "UpdateAgent": 16,
    "DeregisterAgent": 5,
    "GetAgent": 8,
    "ListAgents": 6,
    "MatchAgents": 2,
    "CordonAgent": 5,
    "UncordonAgent": 5,
    "DrainAgent": 4,
    "BanAgent": 2,
    "UnbanAgent": 4,
    "GrantLease": 6,
    "RevokeLease": 2,
    "GetLease": 1,
    "ListLeases": 1,
    "again": 8,
}
"""How often each is done; `again` repeats an earlier request."""

OPS = tuple(WEIGHTS)
CUMULATIVE = tuple(itertools.accumulate(WEIGHTS.values()))


@dataclass(slots=True)
class Known:
    """What clients have learnt, and may try to use."""

    agents: dict[str, Agent] = field(default_factory=dict)
    leases: list[str] = field(default_factory=list)
    requests: list[tuple[str, Message]] = field(default_factory=list)
    tags: int = 0

    def new_content(self, rng: random.Random) -> Agent:
        """Content that no other write has."""
        self.tags += 1
        return Agent(labels={TAG: f"t{self.tags}", "team": rng.choice(TEAMS)})


class Client:
    """Makes `count` calls, one after the other, and keeps leases alive beside them, some not for long."""

    def __init__(self, name: str, network: Network, rng: random.Random, known: Known) -> None:
        self._name = name
        self._network = network
        self._rng = rng
        self._known = known
        self._keeping: list[asyncio.Task[None]] = []

    async def run(self, count: int) -> None:
        """Does what it does."""
        for _ in range(count):
            await asyncio.sleep(self._rng.expovariate(1 / THINK_S))
            op = self._rng.choices(OPS, cum_weights=CUMULATIVE)[0]
            await self._act(op)
        for keeping in self._keeping:
            keeping.cancel()

    async def _act(self, op: str) -> None:
        if op == "again":
            if not self._known.requests:
                return
            op, request = self._rng.choice(self._known.requests[-8:])
        else:
            request = self._request(op)
            if getattr(request, "request_id", ""):
                self._known.requests.append((op, request))
        calls = [(op, request), *self._at_once(op, request)]
        responses = await asyncio.gather(*(self._network.call(self._name, *call) for call in calls))
        for response in responses:
            if response is not None:
                self._learn(op, response)

    def _at_once(self, op: str, request: Any) -> Iterator[tuple[str, Message]]:
        """What gets in the way of a call, since it comes at the same moment."""
        if op == "DrainAgent":  # draining is soon over
            other = self._rng.choice(tuple(RULINGS))
            yield other, RULINGS[other](name=request.name)
        elif op == "UpdateAgent" and self._rng.random() < RIVALS:
            rival = UpdateAgentRequest()
            rival.CopyFrom(request)
            rival.agent.labels.update(self._content().labels)
            yield op, rival
        elif op == "RegisterAgent" and self._rng.random() < RIVALS:
            rival_registration = RegisterAgentRequest()
            rival_registration.CopyFrom(request)
            rival_registration.request_id = self._request_id()
            rival_registration.agent.labels.update(self._content().labels)
            yield op, rival_registration

    def _learn(self, op: str, response: object) -> None:
        if op == "GrantLease":
            self._known.leases.append(response.lease.name)  # type: ignore[attr-defined]
            self._maybe_keep(response.lease.name, response.lease.ttl.seconds)  # type: ignore[attr-defined]
            return
        agent = getattr(response, "agent", None)
        found = [agent] if agent is not None else list(getattr(response, "agents", []))
        for each in found:
            if isinstance(each, Agent) and each.uid:
                self._known.agents[each.name] = each
        if op == "RegisterAgent":
            self._maybe_keep(found[0].lease, 2)

    # Leases.

    def _maybe_keep(self, lease: str, ttl_s: float) -> None:
        if self._rng.random() < 0.6:
            every_s = ttl_s * self._rng.choice(KEEP_EVERY_TTL)
            self._keeping.append(asyncio.ensure_future(self._keep(lease, every_s, self._rng.expovariate(1 / 8))))

    async def _keep(self, lease: str, every_s: float, for_s: float) -> None:
        end_s = asyncio.get_running_loop().time() + for_s
        while asyncio.get_running_loop().time() < end_s and await self._network.keep(self._name, lease):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(every_s)

    # Requests.

    def _name_of_agent(self) -> str:
        return f"{PARENT}/agents/{self._rng.choice(AGENTS)}"

    def _content(self) -> Agent:
        return self._known.new_content(self._rng)

    def _request(self, op: str) -> Message:
        match op:
            case "RegisterAgent":
                return self._registration()
            case "BatchRegisterAgents":
                return self._batch()
            case "UpdateAgent":
                return self._update()
            case "DeregisterAgent":
                name = self._name_of_agent()
                etag = self._known.agents[name].etag if name in self._known.agents and self._rng.random() < 0.3 else ""
                return DeregisterAgentRequest(name=name, etag=etag)
            case "GetAgent":
                return GetAgentRequest(name=self._name_of_agent())
            case "ListAgents":
                only = self._rng.choice(["", "liveness = EXPIRED", 'labels.team = "red"'])
                return ListAgentsRequest(parent=PARENT, filter=only, page_size=self._rng.choice([0, 3]))
            case "MatchAgents":
                return MatchAgentsRequest(parent=PARENT)
            case "GrantLease":
                return GrantLeaseRequest(parent=PARENT, ttl=self._ttl(), request_id=self._request_id())
            case "RevokeLease" | "GetLease":
                leases = [*self._known.leases[-4:], *(agent.lease for agent in self._known.agents.values())]
                name = self._rng.choice(leases) if leases else f"{PARENT}/leases/none"
                return RevokeLeaseRequest(name=name) if op == "RevokeLease" else GetLeaseRequest(name=name)
            case "ListLeases":
                return ListLeasesRequest(parent=PARENT)
            case _:
                return RULINGS[op](name=self._name_of_agent())

    def _ttl(self) -> Duration:
        return Duration(seconds=self._rng.choice([1, 2, 3, 5]))

    def _request_id(self) -> str:
        return f"r{self._rng.getrandbits(32)}" if self._rng.random() < 0.4 else ""

    def _registration(self) -> RegisterAgentRequest:
        name = self._name_of_agent()
        request = RegisterAgentRequest(
            parent=PARENT, agent_id=name.rsplit("/", 1)[1], agent=self._content(), request_id=self._request_id()
        )
        known = self._known.agents.get(name)
        if known is not None and self._rng.random() < 0.4:
            request.fence = known.fence
        if self._known.leases and self._rng.random() < 0.3:
            request.agent.lease = self._rng.choice(self._known.leases[-3:])
        else:
            request.ttl.CopyFrom(self._ttl())
        return request

    def _batch(self) -> BatchRegisterAgentsRequest:
        content = self._content()
        request = BatchRegisterAgentsRequest(parent=PARENT, request_id=self._request_id())
        lease = self._rng.choice(self._known.leases[-3:]) if self._known.leases and self._rng.random() < 0.6 else ""
        for agent_id in self._rng.sample(AGENTS, self._rng.randint(2, 4)):
            each = request.requests.add(parent=PARENT, agent_id=agent_id, agent=content)
            known = self._known.agents.get(f"{PARENT}/agents/{agent_id}")
            if known is not None and self._rng.random() < 0.8:
                each.fence = known.fence
            if lease:
                each.agent.lease = lease
            else:
                each.ttl.CopyFrom(self._ttl())
        return request

    def _update(self) -> UpdateAgentRequest:
        name = self._name_of_agent()
        agent = self._content()
        agent.name = name
        if name in self._known.agents and self._rng.random() < 0.7:
            agent.etag = self._known.agents[name].etag
        return UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=["labels"]))


class Keeper:
    """Holds one agent at one node and nowhere else, and keeps its lease alive there as one should.

    Attributes:
        lease: The lease that it holds; empty while it has none.
    """

    def __init__(self, name: str, network: Network, rng: random.Random, known: Known, node: Node) -> None:
        self.node = node
        self.lease = ""
        self._name = name
        self._network = network
        self._rng = rng
        self._known = known
        self._ttl_s = rng.choice(KEPT_TTLS_S)

    async def run(self) -> None:
        """Until cancelled, or until its node dies and it does not come back."""
        while True:
            while not self.lease:
                await self._register()
            if not await self._network.hold(self._name, self.lease, self._ttl_s / 3, self.node):
                self.lease = ""
            elif self._rng.random() < 0.5:
                return
            else:
                await self._network.wait_for(self.node)

    async def _register(self) -> None:
        request = RegisterAgentRequest(
            parent=PARENT,
            agent_id=self._name,
            agent=self._known.new_content(self._rng),
            ttl=Duration(seconds=self._ttl_s),
        )
        response = await self._network.call(self._name, "RegisterAgent", request, self.node)
        if response is not None:
            self.lease = response.agent.lease
        else:  # it stands there yet
            await asyncio.sleep(1)


class Watcher:
    """Watches, and goes on where it was whenever it is cut off; reads slowly now and then.

    Attributes:
        told: The revision up to which it knows everything.
    """

    def __init__(self, name: str, network: Network, rng: random.Random, only: str) -> None:
        self._name = name
        self._network = network
        self._rng = rng
        self._only = only
        self._last = 0
        self._is_whole = False
        self.told = 0
        self.is_hasty = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            start = self.told + 1 if self._is_whole else 0
            request = WatchAgentsRequest(parent=PARENT, filter=self._only, start_revision=start, progress_notify=True)
            reason = await self._network.watch(self._name, request, self._last if start else 0, self._take)
            if reason in ("REVISION_COMPACTED", "REVISION_FUTURE"):
                self._is_whole = False
            if not self.is_hasty:
                await asyncio.sleep(self._rng.expovariate(1))

    async def _take(self, watch: int, message: WatchAgentsResponse) -> bool:
        self._last = watch
        if message.WhichOneof("step") == "reset":
            self._is_whole = False
            return False
        if message.events.snapshot_end:
            self._is_whole = True
        if self._is_whole:
            self.told = message.revision
        if self.is_hasty:
            return False
        if self._rng.random() < 0.05:
            await asyncio.sleep(self._rng.uniform(0, 6))
        return self._rng.random() < 0.05
