"""The bare peer: a grpc.aio server that parses a registration and answers with a message of the usual size."""

import asyncio
import json
import sys
from pathlib import Path

import grpc
import grpc.aio

from holdfast.registry.v1 import agent_registry_service_pb2 as messages


async def echo(request: messages.RegisterAgentRequest, _context: object) -> messages.RegisterAgentResponse:
    """What RegisterAgent answers, without doing anything for it."""
    response = messages.RegisterAgentResponse()
    agent = response.agent
    agent.name = f"{request.parent}/agents/{request.agent_id}"
    agent.uid, agent.etag, agent.lease = "0" * 32, "0" * 8, f"{request.parent}/leases/{'0' * 32}"
    agent.coordination_priority, agent.max_concurrency, agent.status = 50, 1, 1
    agent.liveness, agent.admin_state, agent.breaker_state = 1, 1, 1
    agent.fence, agent.revision = (1 << 40) + 1, 1
    agent.create_time.FromSeconds(1)
    agent.update_time.FromSeconds(1)
    return response


async def main(ready: Path) -> None:
    """Serves until ended."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        echo,
        request_deserializer=messages.RegisterAgentRequest.FromString,
        response_serializer=messages.RegisterAgentResponse.SerializeToString,
    )
    service = "holdfast.registry.v1.AgentRegistryService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"RegisterAgent": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready.write_text(json.dumps({"grpc": f"127.0.0.1:{port}"}))  # noqa: ASYNC240  # nobody is served yet
    await server.wait_for_termination()


asyncio.run(main(Path(sys.argv[2])))
