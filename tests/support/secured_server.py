"""A real grpcio server with TLS, that wants certificates and tokens, and keeps what it was told."""

# ruff: noqa: N802  # names are the generated stubs'

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from grpc_reflection.v1alpha import reflection

from holdfast.registry.v1 import agent_registry_service_pb2 as registry
from holdfast.registry.v1 import agent_registry_service_pb2_grpc as registry_grpc
from support.certificates import Authority

SERVICE = "holdfast.registry.v1.AgentRegistryService"


@dataclass
class Seen(registry_grpc.AgentRegistryServiceServicer):
    """Answers ListAgents and keeps what it was told; GetAgent waits until its call has ended."""

    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def ListAgents(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        self.left_s.append(context.time_remaining())
        return registry.ListAgentsResponse(revision=7)

    def GetAgent(self, request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(30)
        self.cancelled.set()
        return registry.GetAgentResponse()


class Needing(grpc.ServerInterceptor):
    """Refuses every call, reflection's too, without the token."""

    def intercept_service(self, continuation, details):
        if ("x-token", "secret") in details.invocation_metadata:
            return continuation(details)

        def refuse(_requests, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

        return grpc.stream_stream_rpc_method_handler(refuse)


def credentials(authority: Authority, *names: str, asks_for_own: bool = False) -> grpc.ServerCredentials:
    """Of a server with those names, by default 127.0.0.1 and registry.test."""
    cert, key = authority.issue("server", *(names or ("IP:127.0.0.1", "DNS:registry.test")))
    pair = [(key.read_bytes(), cert.read_bytes())]
    ca = authority.ca.read_bytes() if asks_for_own else None
    return grpc.ssl_server_credentials(pair, root_certificates=ca, require_client_auth=asks_for_own)


@contextmanager
def serving(
    secured: grpc.ServerCredentials | None = None, interceptors: Sequence[grpc.ServerInterceptor] = ()
) -> Iterator[tuple[str, Seen]]:
    """A server of the registry with reflection: its address, and what it saw."""
    server = grpc.server(ThreadPoolExecutor(4), interceptors=interceptors)
    seen = Seen()
    registry_grpc.add_AgentRegistryServiceServicer_to_server(seen, server)
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, secured) if secured else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}", seen
    finally:
        server.stop(0).wait()
