"""AgentRegistryService: register, read, list and remove agents; watching has a module of its own."""

from collections.abc import AsyncIterator
from typing import TypeAlias

from holdfast.core import agents, batches, finding, updates
from holdfast.core.admin import Act, Ruling, rule
from holdfast.filtering import compile_filter
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    BanAgentRequest,
    BanAgentResponse,
    BatchRegisterAgentsRequest,
    BatchRegisterAgentsResponse,
    CordonAgentRequest,
    CordonAgentResponse,
    DeregisterAgentRequest,
    DeregisterAgentResponse,
    DrainAgentRequest,
    DrainAgentResponse,
    GetAgentRequest,
    GetAgentResponse,
    ListAgentsRequest,
    ListAgentsResponse,
    MatchAgentsRequest,
    MatchAgentsResponse,
    RegisterAgentRequest,
    RegisterAgentResponse,
    UnbanAgentRequest,
    UnbanAgentResponse,
    UncordonAgentRequest,
    UncordonAgentResponse,
    UpdateAgentRequest,
    UpdateAgentResponse,
    WatchAgentsRequest,
    WatchAgentsResponse,
)
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service import paging
from holdfast.service.context import CallContext
from holdfast.service.matching import match
from holdfast.service.registry import Registry
from holdfast.service.slices import matching
from holdfast.service.watching import PROGRESS_EVERY_S, AgentWatching

_AdminRequest: TypeAlias = (
    CordonAgentRequest | UncordonAgentRequest | DrainAgentRequest | BanAgentRequest | UnbanAgentRequest
)


class AgentRegistry:
    """Handlers of `holdfast.registry.v1.AgentRegistryService`.

    Args:
        registry: The state.
        progress_every_s: See `watching.PROGRESS_EVERY_S`.
    """

    def __init__(self, registry: Registry, progress_every_s: float = PROGRESS_EVERY_S) -> None:
        self._registry = registry
        self._watching = AgentWatching(registry, progress_every_s)

    async def register_agent(self, request: RegisterAgentRequest, _context: CallContext) -> RegisterAgentResponse:
        """RegisterAgent."""
        registry = self._registry
        command = agents.Registration(
            request=request,
            now=registry.now(),
            epoch=registry.store.epoch,
            uid=registry.new_id(),
            lease_id=registry.new_id(),
            replica=registry.replica,
        )
        return await registry.take(lambda reader: agents.register(reader, command))

    async def batch_register_agents(
        self, request: BatchRegisterAgentsRequest, _context: CallContext
    ) -> BatchRegisterAgentsResponse:
        """BatchRegisterAgents."""
        registry = self._registry
        command = batches.Batch(
            request=request,
            now=registry.now(),
            epoch=registry.store.epoch,
            seed=registry.new_id(),
            replica=registry.replica,
        )
        return await registry.take(lambda reader: batches.register(reader, command))

    async def get_agent(self, request: GetAgentRequest, _context: CallContext) -> GetAgentResponse:
        """GetAgent."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        return GetAgentResponse(agent=finding.find(view, request.name).agent, revision=view.revision)

    async def list_agents(self, request: ListAgentsRequest, _context: CallContext) -> ListAgentsResponse:
        """ListAgents."""
        only = compile_filter(request.filter, Agent.DESCRIPTOR)
        tokens = paging.Tokens(f"ListAgents {request.parent} {request.filter}", self._registry.page_key)
        after = await tokens.last(request.page_token)
        await self._registry.await_consistency(request.consistency)
        view, size = self._registry.view, request.page_size or paging.PAGE_SIZE_DEFAULT
        revision, limit = view.revision, size + 1 if only.is_empty else None
        entries = view.entries(request.parent, after, limit, with_expired=only.names("liveness"))
        found = await matching(entries, only, view.turns, size + 1)
        page = found[: paging.fitting(found, 0, size)]
        token = await tokens.after(page[-1].name) if len(found) > len(page) else ""
        return ListAgentsResponse(agents=page, next_page_token=token, revision=revision)

    async def update_agent(self, request: UpdateAgentRequest, _context: CallContext) -> UpdateAgentResponse:
        """UpdateAgent."""
        registry = self._registry
        # A decision that writes nothing is a read, and must be as fresh as one.
        await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
        now = registry.now()
        return await registry.execute(lambda reader: updates.update(reader, request, now))

    async def match_agents(self, request: MatchAgentsRequest, _context: CallContext) -> MatchAgentsResponse:
        """MatchAgents."""
        await self._registry.await_consistency(request.consistency)
        return await match(self._registry.view, request)

    async def cordon_agent(self, request: CordonAgentRequest, _context: CallContext) -> CordonAgentResponse:
        """CordonAgent."""
        return CordonAgentResponse(agent=await self._rule(Act.CORDON, request))

    async def uncordon_agent(self, request: UncordonAgentRequest, _context: CallContext) -> UncordonAgentResponse:
        """UncordonAgent."""
        return UncordonAgentResponse(agent=await self._rule(Act.UNCORDON, request))

    async def drain_agent(self, request: DrainAgentRequest, _context: CallContext) -> DrainAgentResponse:
        """DrainAgent. Answers DRAINING; the drainer goes on from there."""
        return DrainAgentResponse(agent=await self._rule(Act.DRAIN, request))

    async def ban_agent(self, request: BanAgentRequest, _context: CallContext) -> BanAgentResponse:
        """BanAgent."""
        return BanAgentResponse(agent=await self._rule(Act.BAN, request))

    async def unban_agent(self, request: UnbanAgentRequest, _context: CallContext) -> UnbanAgentResponse:
        """UnbanAgent."""
        return UnbanAgentResponse(agent=await self._rule(Act.UNBAN, request))

    async def _rule(self, act: Act, request: _AdminRequest) -> Agent:
        registry = self._registry
        await registry.await_consistency(
            Consistency.CONSISTENCY_LINEARIZABLE
        )  # an answer that writes nothing is a read
        ruling = Ruling(act, request.name, request.reason, registry.now())
        return await registry.execute(lambda reader: rule(reader, ruling))

    async def deregister_agent(self, request: DeregisterAgentRequest, _context: CallContext) -> DeregisterAgentResponse:
        """DeregisterAgent."""
        now = self._registry.now()
        return await self._registry.execute(lambda reader: agents.deregister(reader, request, now))

    def watch_agents(
        self, request: WatchAgentsRequest, context: CallContext
    ) -> AsyncIterator[WatchAgentsResponse | bytes]:
        """WatchAgents."""
        return self._watching.watch_agents(request, context)
