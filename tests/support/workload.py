"""What clients of a crash test do: everything the API offers, at random, from one seed.

What each client does follows from the seed; how they interleave does not, since the server is real.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from holdfast.registry.v1.agent_pb2 import AdminState, Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import (
    BanAgentRequest,
    BatchRegisterAgentsRequest,
    CordonAgentRequest,
    DeregisterAgentRequest,
    DrainAgentRequest,
    GetAgentRequest,
    ListAgentsRequest,
    RegisterAgentRequest,
    UnbanAgentRequest,
    UncordonAgentRequest,
    UpdateAgentRequest,
)
from holdfast.registry.v1.lease_service_pb2 import GetLeaseRequest, GrantLeaseRequest, RevokeLeaseRequest
from support.history import TAG
from support.recorder import Connection

PARENT = "namespaces/crash"

CLIENTS = 8
"""Clients at a time; enough for batches of the store, few enough for two cores."""

AGENTS = 40
"""Agents that all clients share, so that they get in each other's way."""

SHORT_TTL_S = 1
"""The shortest TTL there is: leases that run out during a test."""

LONG_TTL_S = 3600
"""A TTL that no test outlives."""

KEEP_EVERY_S = 0.25
"""Between keepalives: a quarter of the shortest TTL."""

RULINGS: dict[str, Callable[..., Message]] = {
    "CordonAgent": CordonAgentRequest,
    "UncordonAgent": UncordonAgentRequest,
    "DrainAgent": DrainAgentRequest,
    "BanAgent": BanAgentRequest,
    "UnbanAgent": UnbanAgentRequest,
}

BACK = {
    AdminState.ADMIN_STATE_CORDONED: "UncordonAgent",
    AdminState.ADMIN_STATE_DRAINING: "UncordonAgent",
    AdminState.ADMIN_STATE_DRAINED: "UncordonAgent",
    AdminState.ADMIN_STATE_BANNED: "UnbanAgent",
}
"""What leads back from each admin state."""

Act: TypeAlias = Callable[[random.Random, Connection, str], Awaitable[None]]


class Workload:
    """Clients that remember, from one server's life to the next, what they were told.

    Args:
        seed: What they do.
        bulk: Whether there are also updates of 100 KB, which fill the store's log.
        pause_s: Longest rest of a client between calls.
    """

    def __init__(self, seed: int, *, bulk: bool = False, pause_s: float = 0.0) -> None:
        self._seed = seed
        self._pause_s = pause_s
        self._lives = 0
        self._tags = 0
        self._agents: dict[str, Agent] = {}
        self._etags: dict[str, deque[str]] = {}
        self._shared: dict[str, int] = {}
        """Leases that agents join, by how often they are still kept."""
        self._kept: dict[str, int] = {}
        """Leases of single agents, by how often they are still kept."""
        self._repeatable: deque[tuple[str, Message]] = deque(maxlen=100)
        self._acts: dict[Act, int] = {
            self._register: 6,
            self._join: 4,
            self._batch: 2,
            self._update: 8,
            self._deregister: 2,
            self._rule: 4,
            self._grant: 3,
            self._revoke: 1,
            self._read: 3,
            self._list: 1,
            self._read_lease: 2,
            self._repeat: 4,
        }
        if bulk:
            self._acts[self._update_bulky] = 30

    async def run(self, connection: Connection) -> None:
        """Everyone at work, until the server is gone; a pause of `KEEP_EVERY_S` later all have noticed."""
        self._lives += 1
        clients = (self._client(f"client-{number}", connection) for number in range(CLIENTS))
        await asyncio.gather(self._keeper(connection), *clients)

    async def _client(self, process: str, connection: Connection) -> None:
        rng = random.Random(f"{self._seed}/{self._lives}/{process}")
        acts, weights = list(self._acts), list(self._acts.values())
        while not connection.is_lost:
            await rng.choices(acts, weights)[0](rng, connection, process)
            if self._pause_s:
                await asyncio.sleep(rng.uniform(0, self._pause_s))

    async def _keeper(self, connection: Connection) -> None:
        async with connection.keeping("keeper") as keeping:
            while not connection.is_lost:
                leases = [*self._take(self._shared), *self._take(self._kept)]
                for name in await keeping.keep(leases) if leases else ():
                    self._shared.pop(name, None)
                    self._kept.pop(name, None)
                await asyncio.sleep(KEEP_EVERY_S)

    def _take(self, leases: dict[str, int]) -> list[str]:
        """Those that are kept once more; who is not any more is forgotten here, and its lease runs out."""
        for name in [name for name, left in leases.items() if left == 0]:
            del leases[name]
        for name in leases:
            leases[name] -= 1
        return list(leases)

    # Writes.

    async def _register(self, rng: random.Random, connection: Connection, process: str) -> None:
        request = self._registration(rng, self._any_id(rng))
        if rng.random() < 0.5:
            request.request_id = self._request_id(process)
            self._repeatable.append(("RegisterAgent", request))
        await self._send(rng, connection, process, "RegisterAgent", request)

    async def _join(self, rng: random.Random, connection: Connection, process: str) -> None:
        if not self._shared:
            return await self._grant(rng, connection, process)
        request = self._registration(rng, self._any_id(rng))
        request.ClearField("ttl")
        request.agent.lease = rng.choice(list(self._shared))
        await self._send(rng, connection, process, "RegisterAgent", request)
        return None

    async def _batch(self, rng: random.Random, connection: Connection, process: str) -> None:
        """Agents that are mostly not there yet, or the batch would fail each time."""
        request = BatchRegisterAgentsRequest(parent=PARENT)
        tag = self._tag()
        for index in range(rng.randint(2, 12)):
            each = self._registration(rng, f"batch-{tag}-{index}", tag)
            request.requests.append(each)
        if rng.random() < 0.2:
            request.requests[-1].agent_id = self._any_id(rng)
        if rng.random() < 0.5:
            request.request_id = self._request_id(process)
            self._repeatable.append(("BatchRegisterAgents", request))
        await self._send(rng, connection, process, "BatchRegisterAgents", request)

    async def _update(self, rng: random.Random, connection: Connection, process: str) -> None:
        """With the etag that was seen last, or one from before that, or none."""
        known = self._any_agent(rng)
        if known is None:
            return await self._register(rng, connection, process)
        etag = rng.choice([known.etag, known.etag, *self._etags[known.name], ""])
        agent = Agent(name=known.name, etag=etag, labels={TAG: self._tag(), "zone": rng.choice("ab")})
        fence = known.fence if rng.random() < 0.3 else 0
        request = UpdateAgentRequest(agent=agent, fence=fence, update_mask=FieldMask(paths=["labels"]))
        await self._send(rng, connection, process, "UpdateAgent", request)
        return None

    async def _update_bulky(self, rng: random.Random, connection: Connection, process: str) -> None:
        """An update of 100 KB."""
        name = f"{PARENT}/agents/bulky-{process}"
        if name not in self._agents:
            return await self._find_or_register(rng, connection, process, name)
        tags = [f"{rng.getrandbits(250):063x}" for _ in range(32)]
        capabilities = [Capability(id=f"c{index}", tags=tags) for index in range(48)]
        agent = Agent(name=name, capabilities=capabilities, labels={TAG: self._tag()})
        request = UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=["labels", "capabilities"]))
        return await self._send(rng, connection, process, "UpdateAgent", request)

    async def _find_or_register(self, rng: random.Random, connection: Connection, process: str, name: str) -> None:
        """An agent of one client alone; a crash may have left it unknown whether it is there."""
        await self._send(rng, connection, process, "GetAgent", GetAgentRequest(name=name))
        if name not in self._agents and not connection.is_lost:
            request = self._registration(rng, name.rsplit("/", 1)[1])
            request.ttl.seconds = LONG_TTL_S
            await self._send(rng, connection, process, "RegisterAgent", request)

    async def _deregister(self, rng: random.Random, connection: Connection, process: str) -> None:
        known = self._any_agent(rng)
        if known is not None:
            etag = known.etag if rng.random() < 0.5 else ""
            request = DeregisterAgentRequest(name=known.name, etag=etag)
            await self._send(rng, connection, process, "DeregisterAgent", request)

    async def _rule(self, rng: random.Random, connection: Connection, process: str) -> None:
        """Mostly back what is away, so that most agents can be worked with."""
        known = self._any_agent(rng)
        if known is not None:
            back = BACK.get(known.admin_state)
            op = back if back is not None and rng.random() < 0.7 else rng.choice(list(RULINGS))
            await self._send(rng, connection, process, op, RULINGS[op](name=known.name, reason="test"))

    async def _grant(self, rng: random.Random, connection: Connection, process: str) -> None:
        request = GrantLeaseRequest(parent=PARENT, ttl=Duration(seconds=self._any_ttl_s(rng)))
        if rng.random() < 0.5:
            request.request_id = self._request_id(process)
            self._repeatable.append(("GrantLease", request))
        await self._send(rng, connection, process, "GrantLease", request)

    async def _revoke(self, rng: random.Random, connection: Connection, process: str) -> None:
        if self._shared:
            name = rng.choice(list(self._shared))
            del self._shared[name]
            await self._send(rng, connection, process, "RevokeLease", RevokeLeaseRequest(name=name))

    async def _repeat(self, rng: random.Random, connection: Connection, process: str) -> None:
        """A request from before, most likely one of the last, which a crash may have left unanswered."""
        if self._repeatable:
            back = min(int(rng.expovariate(0.1)), len(self._repeatable) - 1)
            op, request = self._repeatable[-1 - back]
            await self._send(rng, connection, process, op, request)

    # Reads.

    async def _read(self, rng: random.Random, connection: Connection, process: str) -> None:
        known = self._any_agent(rng)
        if known is not None:
            await self._send(rng, connection, process, "GetAgent", GetAgentRequest(name=known.name))

    async def _list(self, rng: random.Random, connection: Connection, process: str) -> None:
        await self._send(rng, connection, process, "ListAgents", ListAgentsRequest(parent=PARENT, page_size=20))

    async def _read_lease(self, rng: random.Random, connection: Connection, process: str) -> None:
        """Of a lease that may have been kept, let go or revoked meanwhile, or of one from before a crash."""
        if leases := [*self._shared, *self._kept]:
            await self._send(rng, connection, process, "GetLease", GetLeaseRequest(name=rng.choice(leases)))

    # What is known.

    async def _send(self, rng: random.Random, connection: Connection, process: str, op: str, request: Any) -> None:
        response = await connection.call(process, op, request)
        if response is None:
            if op in ("GetAgent", "UpdateAgent", "DeregisterAgent") and not connection.is_lost:
                self._agents.pop(request.agent.name if op == "UpdateAgent" else request.name, None)
            return
        if op == "ListAgents":
            return
        for agent in self._agents_of(response):
            self._learn(rng, agent)
        if op == "GrantLease":
            self._shared[response.lease.name] = rng.randint(0, 20)
        if op == "DeregisterAgent":
            self._agents.pop(request.name, None)

    @staticmethod
    def _agents_of(response: Any) -> list[Agent]:
        if hasattr(response, "agents"):
            return list(response.agents)
        return [response.agent] if hasattr(response, "agent") else []

    def _learn(self, rng: random.Random, agent: Agent) -> None:
        if not agent.uid:  # gone, but for what operators decided
            return
        known = self._agents.get(agent.name)
        if known is not None and known.revision >= agent.revision:
            return
        if agent.lease not in self._shared and (known is None or known.lease != agent.lease):
            self._kept[agent.lease] = rng.randint(0, 8)
        self._agents[agent.name] = agent
        self._etags.setdefault(agent.name, deque(maxlen=3)).append(agent.etag)

    # Choices.

    def _registration(self, rng: random.Random, agent_id: str, tag: str = "") -> RegisterAgentRequest:
        """Of an agent that may be there already; some present the fence that takes over."""
        known = self._agents.get(f"{PARENT}/agents/{agent_id}")
        return RegisterAgentRequest(
            parent=PARENT,
            agent_id=agent_id,
            agent=Agent(labels={TAG: tag or self._tag(), "zone": rng.choice("ab")}),
            ttl=Duration(seconds=self._any_ttl_s(rng)),
            fence=known.fence if known is not None and rng.random() < 0.6 else 0,
        )

    @staticmethod
    def _any_ttl_s(rng: random.Random) -> int:
        return SHORT_TTL_S if rng.random() < 0.5 else LONG_TTL_S

    @staticmethod
    def _any_id(rng: random.Random) -> str:
        return f"agent-{rng.randrange(AGENTS)}"

    def _any_agent(self, rng: random.Random) -> Agent | None:
        return rng.choice(list(self._agents.values())) if self._agents else None

    def _tag(self) -> str:
        self._tags += 1
        return f"t{self._tags}"

    def _request_id(self, process: str) -> str:
        return f"{process}-{self._tag()}"
