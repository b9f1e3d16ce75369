"""The registry of agents."""

from collections.abc import AsyncIterator, Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace, duration
from holdfast.client.service import Service
from holdfast.client.watching import Changes, Snapshot, Watching
from holdfast.registry.v1.agent_pb2 import Agent, AgentTier
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentEvent,
    AgentEvents,
    BanAgentRequest,
    BatchRegisterAgentsRequest,
    CordonAgentRequest,
    DeregisterAgentRequest,
    DrainAgentRequest,
    GetAgentRequest,
    ListAgentsRequest,
    MatchAgentsRequest,
    MatchAgentsResponse,
    RegisterAgentRequest,
    UnbanAgentRequest,
    UncordonAgentRequest,
    UpdateAgentRequest,
    WatchAgentsRequest,
)
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.registry.v1.consistency_pb2 import Consistency


class Agents(Service):
    """Calls of `holdfast.registry.v1.AgentRegistryService`. Agents are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = AgentRegistryServiceStub(caller.connection.channel)

    async def register(
        self,
        agent_id: str,
        agent: Agent | None = None,
        *,
        ttl_s: float | None = None,
        fence: int = 0,
        request_id: str = "",
    ) -> Agent:
        """Registers an agent; a session does it with less to think of, and keeps its lease.

        Args:
            agent_id: The last part of its name.
            agent: What it is; with `lease` set it joins that lease.
            ttl_s: TTL of the lease it is given otherwise, in seconds.
            fence: Of the incarnation to take the place of.
            request_id: Yours, where more than this process may repeat the call.
        """
        if ttl_s is not None and agent is not None and agent.lease:
            raise ValueError(
                f"ttl_s is {ttl_s} beside agent.lease {agent.lease!r}: the lease has a TTL: give one of them."
            )
        request = RegisterAgentRequest(
            parent=self._namespace.parent,
            agent_id=agent_id,
            agent=agent,
            ttl=None if ttl_s is None else duration(ttl_s, "ttl_s"),
            fence=fence,
            request_id=request_id,
        )
        return (await self._caller.call(self._stub.RegisterAgent, request)).agent

    async def register_batch(
        self, agents: Mapping[str, Agent], *, ttl_s: float | None = None, request_id: str = ""
    ) -> Sequence[Agent]:
        """Registers agents by id, all or none, in one revision. `ttl_s` is of the leases that the server grants."""
        ttl = None if ttl_s is None else duration(ttl_s, "ttl_s")
        request = BatchRegisterAgentsRequest(parent=self._namespace.parent, request_id=request_id)
        for agent_id, agent in agents.items():
            request.requests.add(agent_id=agent_id, agent=agent, ttl=None if agent.lease else ttl)
        return (await self._caller.call(self._stub.BatchRegisterAgents, request)).agents

    async def get(self, agent: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED) -> Agent:
        """Reads one agent, EXPIRED ones included."""
        request = GetAgentRequest(name=self._name(agent), consistency=consistency)
        return (await self._caller.call(self._stub.GetAgent, request)).agent

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Agent]:
        """Agents by name, a page at a time. EXPIRED ones are left out unless the filter names `liveness`."""
        request = ListAgentsRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self._stub.ListAgents, request, lambda response: response.agents)

    async def update(self, agent: Agent, *mask: str, fence: int = 0) -> Agent:
        """Changes the fields in the mask; without one, every field that is set. `agent.etag` makes it conditional."""
        request = UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=mask), fence=fence)
        return (await self._caller.call(self._stub.UpdateAgent, request)).agent

    async def deregister(self, agent: str, *, fence: int = 0, etag: str = "") -> int:
        """Removes an agent; the revision at which it went."""
        request = DeregisterAgentRequest(name=self._name(agent), fence=fence, etag=etag)
        return (await self._caller.call(self._stub.DeregisterAgent, request)).revision

    def watch(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        start_revision: int = 0,
    ) -> AsyncIterator[Snapshot[Agent] | Changes[AgentEvent]]:
        """What is there, then every change, without holes, over lost connections and restarts of the server.

        The first is a snapshot, unless `start_revision` says from where to go on. Another comes wherever the history
        between is gone: it takes the place of everything told before.
        """
        request = WatchAgentsRequest(parent=self._namespace.parent, filter=filter, start_revision=start_revision)
        method = self._stub.WatchAgents
        watching: Watching[Agent, AgentEvent] = Watching(self._caller, method, request, _agents_of, _events_of)
        return watching.steps()

    async def match(
        self,
        *,
        all_of: Sequence[str] = (),
        any_of: Sequence[str] = (),
        tier_max: AgentTier.ValueType = AgentTier.AGENT_TIER_UNSPECIFIED,
        labels: Mapping[str, str] | None = None,
        free_slots_min: int = 0,
        page_size: int = 0,
    ) -> MatchAgentsResponse:
        """Ranks the agents that could do a piece of work, and says why the others could not."""
        request = MatchAgentsRequest(
            parent=self._namespace.parent,
            all_of=all_of,
            any_of=any_of,
            tier_max=tier_max,
            labels=labels,
            free_slots_min=free_slots_min,
            page_size=page_size,
        )
        return await self._caller.call(self._stub.MatchAgents, request)

    async def cordon(self, agent: str, reason: str = "") -> Agent:
        """Operator: no new work for this agent."""
        request = CordonAgentRequest(name=self._name(agent), reason=reason)
        return (await self._caller.call(self._stub.CordonAgent, request)).agent

    async def uncordon(self, agent: str, reason: str = "") -> Agent:
        """Operator: takes work again."""
        request = UncordonAgentRequest(name=self._name(agent), reason=reason)
        return (await self._caller.call(self._stub.UncordonAgent, request)).agent

    async def drain(self, agent: str, reason: str = "") -> Agent:
        """Operator: no new work, and finish what is there."""
        request = DrainAgentRequest(name=self._name(agent), reason=reason)
        return (await self._caller.call(self._stub.DrainAgent, request)).agent

    async def ban(self, agent: str, reason: str = "") -> Agent:
        """Operator: shut the agent out."""
        request = BanAgentRequest(name=self._name(agent), reason=reason)
        return (await self._caller.call(self._stub.BanAgent, request)).agent

    async def unban(self, agent: str, reason: str = "") -> Agent:
        """Operator: let a banned agent back in, CORDONED."""
        request = UnbanAgentRequest(name=self._name(agent), reason=reason)
        return (await self._caller.call(self._stub.UnbanAgent, request)).agent

    def _name(self, agent: str) -> str:
        return self._namespace.name("agents", agent)


def _agents_of(events: AgentEvents) -> Sequence[Agent]:
    return [event.agent for event in events.events]


def _events_of(events: AgentEvents) -> Sequence[AgentEvent]:
    return events.events
