"""One replica's state under a clock that the test moves: handlers without gRPC, no time that passes by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from holdfast import validation
from holdfast.core.activations.breaker import POLICY_DEFAULT, Policy
from holdfast.registry.v1.agent_pb2 import Agent
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
    WatchAgentsRequest,
    WatchAgentsResponse,
)
from holdfast.registry.v1.lease_service_pb2 import (
    GrantLeaseRequest,
    KeepLeaseAliveRequest,
    KeepLeaseAliveResult,
    Lease,
    RevokeLeaseRequest,
)
from holdfast.service.activations import ActivationHandlers
from holdfast.service.agents import AgentRegistry
from holdfast.service.context import CallContext
from holdfast.service.decisions import DecisionHandlers
from holdfast.service.dispatcher import Dispatcher
from holdfast.service.elections import ElectionHandlers
from holdfast.service.handoffs import HandoffHandlers
from holdfast.service.leases import LeaseHandlers
from holdfast.service.locks import LockHandlers
from holdfast.service.quotas import QuotaHandlers
from holdfast.service.registry import Registry
from holdfast.store.batching import BatchingStore
from holdfast.store.interface import Store
from support.engines import new_store, open_once

PARENT = "namespaces/test"
ADMIN_REQUESTS = {
    "cordon": CordonAgentRequest,
    "uncordon": UncordonAgentRequest,
    "drain": DrainAgentRequest,
    "ban": BanAgentRequest,
    "unban": UnbanAgentRequest,
}
CALL = CallContext("service", "method", "correlation")


@dataclass
class Clock:
    """Seconds that pass when told to."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Replica:
    """A registry and calls to it in a line each."""

    registry: Registry
    clock: Clock
    agents: AgentRegistry = field(init=False)
    leases: LeaseHandlers = field(init=False)
    decisions: DecisionHandlers = field(init=False)
    locks: LockHandlers = field(init=False)
    elections: ElectionHandlers = field(init=False)
    activations: ActivationHandlers = field(init=False)
    handoffs: HandoffHandlers = field(init=False)
    quotas: QuotaHandlers = field(init=False)
    dispatcher: Dispatcher = field(init=False)

    def __post_init__(self) -> None:
        self.registry.audience.watchers_max = 2
        self.agents = AgentRegistry(self.registry, progress_every_s=0.05)
        self.leases = LeaseHandlers(self.registry)
        self.decisions = DecisionHandlers(self.registry, progress_every_s=0.05)
        self.locks = LockHandlers(self.registry)
        self.elections = ElectionHandlers(self.registry)
        self.activations = ActivationHandlers(self.registry, progress_every_s=0.05)
        self.handoffs = HandoffHandlers(self.registry)
        self.quotas = QuotaHandlers(self.registry)
        self.dispatcher = Dispatcher(self.registry)

    async def register(self, agent_id: str, ttl_s: float | None = None, **fields: object) -> Agent:
        request = RegisterAgentRequest(**{"parent": PARENT, "agent_id": agent_id, **fields})
        if ttl_s is not None:
            request.ttl.FromMilliseconds(int(ttl_s * 1000))
        validation.check(request)
        return (await self.agents.register_agent(request, CALL)).agent

    async def get(self, agent_id: str) -> Agent:
        request = GetAgentRequest(name=f"{PARENT}/agents/{agent_id}")
        return (await self.agents.get_agent(request, CALL)).agent

    async def listed(self, only: str = "", page_size: int = 0) -> list[str]:
        """Ids of the agents on all pages of a list."""
        found: list[str] = []
        request = ListAgentsRequest(parent=PARENT, filter=only, page_size=page_size)
        while True:
            response = await self.agents.list_agents(request, CALL)
            found += [agent.name.rsplit("/", 1)[1] for agent in response.agents]
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def deregister(self, agent_id: str, **fields: object) -> int:
        request = DeregisterAgentRequest(name=f"{PARENT}/agents/{agent_id}", **fields)
        return (await self.agents.deregister_agent(request, CALL)).revision

    async def batch(self, agents: dict[str, dict[str, object]], request_id: str = "") -> list[Agent]:
        """BatchRegisterAgents, of agents by id."""
        request = BatchRegisterAgentsRequest(parent=PARENT, request_id=request_id)
        for agent_id, fields in agents.items():
            request.requests.add(parent=PARENT, agent_id=agent_id, agent=Agent(**fields))
        validation.check(request)
        return list((await self.agents.batch_register_agents(request, CALL)).agents)

    async def update(self, agent_id: str, fields: dict[str, object], *mask: str, fence: int = 0) -> Agent:
        """UpdateAgent, with what `agent` has besides its name, and the paths of the mask."""
        agent = Agent(**{"name": f"{PARENT}/agents/{agent_id}", **fields})
        request = UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=mask), fence=fence)
        return (await self.agents.update_agent(request, CALL)).agent

    async def rule(self, call: str, agent_id: str, reason: str = "") -> Agent:
        """One of `cordon`, `uncordon`, `drain`, `ban`, `unban`."""
        request = ADMIN_REQUESTS[call](name=f"{PARENT}/agents/{agent_id}", reason=reason)
        return (await getattr(self.agents, f"{call}_agent")(request, CALL)).agent

    async def grant(self, ttl_s: int = 30, request_id: str = "") -> Lease:
        request = GrantLeaseRequest(parent=PARENT, ttl=Duration(seconds=ttl_s), request_id=request_id)
        return (await self.leases.grant_lease(request, CALL)).lease

    async def revoke(self, lease: str) -> int:
        return (await self.leases.revoke_lease(RevokeLeaseRequest(name=lease), CALL)).revision

    async def keep(self, *leases: str) -> list[KeepLeaseAliveResult]:
        async def requests() -> AsyncIterator[KeepLeaseAliveRequest]:
            yield KeepLeaseAliveRequest(leases=leases)

        responses = [response async for response in self.leases.keep_lease_alive(requests(), CALL)]
        assert len(responses) == 1
        return list(responses[0].results)

    async def pass_time(self, seconds: float) -> None:
        """Lets time pass in steps as small as the keeper's own, and what is due happen."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s = min(end_s, self.clock.now_s + 0.2)
            self.registry.keeper.look()
            await self.registry.deadlines.look()
            await self.settle()

    async def settle(self) -> None:
        """Lets what was started come to its end, and work find its agents."""
        while self.registry.keeper._tasks:  # noqa: ASYNC110 - they set no event when they end
            await asyncio.sleep(0)
        await self.registry.view.reached(self.registry.store.revision)
        while self.registry.view.activations.changed.is_set():
            await self.dispatcher.make_round()

    async def watch(self, count: int, start_revision: int = 0, **fields: object) -> list[WatchAgentsResponse]:
        """The first messages of a watch."""
        request = WatchAgentsRequest(parent=PARENT, start_revision=start_revision, **fields)
        found: list[WatchAgentsResponse] = []
        async with asyncio.timeout(10):
            async with contextlib.aclosing(self.agents.watch_agents(request, CALL)) as responses:
                async for response in responses:
                    encoded = response if isinstance(response, bytes) else response.SerializeToString()
                    found.append(WatchAgentsResponse.FromString(encoded))
                    if len(found) == count:
                        break
        return found


@contextlib.asynccontextmanager
async def replica(
    store: Store | None = None, clock: Clock | None = None, breaker_policy: Policy = POLICY_DEFAULT
) -> AsyncIterator[Replica]:
    """A replica over a store, with its view kept up until the block ends; its keeper only looks when time passes."""
    clock = clock or Clock()
    store = store if store is not None else new_store()
    if isinstance(store, BatchingStore):
        await open_once(store)
    registry = Registry(store, clock=clock, wall_clock=clock, breaker_policy=breaker_policy)
    following = asyncio.create_task(registry.follow_store())
    ready = asyncio.create_task(registry.view.is_ready.wait())
    await asyncio.wait({following, ready}, return_when=asyncio.FIRST_COMPLETED)
    registry.keeper.restart_clocks()
    try:
        yield Replica(registry, clock)
    finally:
        ready.cancel()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
