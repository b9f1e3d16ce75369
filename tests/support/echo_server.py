"""A small gRPC server with the registry's messages and reflection, run as `python -m support.echo_server`.

It counts what it answers by method and code; GetAgent of an agent called `counts` answers with the counts as labels.
Agents exist from RegisterAgent to DeregisterAgent.
"""

# ruff: noqa: N802  # names and arguments are the generated stubs'

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator

import grpc
from grpc_reflection.v1alpha import reflection

from holdfast.registry.v1 import agent_pb2 as agents
from holdfast.registry.v1 import agent_registry_service_pb2 as registry
from holdfast.registry.v1 import agent_registry_service_pb2_grpc as registry_grpc
from holdfast.registry.v1 import lease_service_pb2 as leases
from holdfast.registry.v1 import lease_service_pb2_grpc as leases_grpc

COUNTS_AGENT = "namespaces/default/agents/counts"


class CountingRegistry(registry_grpc.AgentRegistryServiceServicer):
    """Registers, tells and forgets agents in memory; `slow` in an agent's id makes its registration take a second."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.agents: dict[str, agents.Agent] = {}

    async def RegisterAgent(self, request, context):
        name = f"{request.parent}/agents/{request.agent_id}"
        if "slow" in request.agent_id:
            await asyncio.sleep(1.0)
        if name in self.agents:
            await self._refuse(context, "RegisterAgent", "AlreadyExists", grpc.StatusCode.ALREADY_EXISTS)
        self.counts["RegisterAgent/OK"] += 1
        agent = agents.Agent(name=name, fence=len(self.counts), lease="namespaces/default/leases/l1")
        self.agents[name] = agent
        return registry.RegisterAgentResponse(agent=agent)

    async def GetAgent(self, request, context):
        if request.name == COUNTS_AGENT:
            labels = {key: str(count) for key, count in self.counts.items()}
            return registry.GetAgentResponse(agent=agents.Agent(name=request.name, labels=labels))
        if request.name not in self.agents:
            await self._refuse(context, "GetAgent", "NotFound", grpc.StatusCode.NOT_FOUND)
        self.counts["GetAgent/OK"] += 1
        return registry.GetAgentResponse(agent=self.agents[request.name])

    async def ListAgents(self, request, context):
        self.counts["ListAgents/OK"] += 1
        return registry.ListAgentsResponse(revision=7)

    async def DeregisterAgent(self, request, context):
        if self.agents.pop(request.name, None) is None:
            await self._refuse(context, "DeregisterAgent", "NotFound", grpc.StatusCode.NOT_FOUND)
        self.counts["DeregisterAgent/OK"] += 1
        return registry.DeregisterAgentResponse(revision=1)

    async def WatchAgents(self, request, context) -> AsyncIterator[registry.WatchAgentsResponse]:
        for revision in range(1, 1000):
            yield registry.WatchAgentsResponse(revision=revision)
            await asyncio.sleep(0.01)

    async def _refuse(self, context, method: str, code: str, status: grpc.StatusCode) -> None:
        self.counts[f"{method}/{code}"] += 1
        await context.abort(status, f"{method}: {code}")


class EchoingLeases(leases_grpc.LeaseServiceServicer):
    """Keeps every lease alive."""

    async def KeepLeaseAlive(self, request_iterator, context) -> AsyncIterator[leases.KeepLeaseAliveResponse]:
        async for request in request_iterator:
            results = [leases.KeepLeaseAliveResult(lease=lease) for lease in request.leases]
            yield leases.KeepLeaseAliveResponse(results=results)


async def main() -> None:
    """Serves on a free port, which it prints; ends with stdin."""
    server = grpc.aio.server()
    registry_grpc.add_AgentRegistryServiceServicer_to_server(CountingRegistry(), server)
    leases_grpc.add_LeaseServiceServicer_to_server(EchoingLeases(), server)
    services = ("holdfast.registry.v1.AgentRegistryService", "holdfast.registry.v1.LeaseService")
    reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
