"""What becomes of a call when its connection is not there any more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.service.context import CallContext
from holdfast.service.transport import Gate, Transport


class Gone:
    """A call's context whose peer has just gone, as grpcio shows it."""

    def set_trailing_metadata(self, _metadata: object) -> None:
        """Nobody reads it."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:192.0.2.1:40312"

    def time_remaining(self) -> None:
        return None

    async def write(self, _message: object) -> None:
        raise grpc.aio.InternalError("Failed to execute a batch")


class Watching:
    """A handler with one message to send."""

    async def watch_agents(
        self, _request: pb.WatchAgentsRequest, _context: CallContext
    ) -> AsyncIterator[pb.WatchAgentsResponse]:
        yield pb.WatchAgentsResponse(revision=1)


class Codes:
    """Counts calls."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []

    def started(self) -> None:
        """One more."""

    def handled(self, code: grpc.StatusCode, _seconds: float) -> None:
        self.codes.append(code)


async def test_a_stream_whose_peer_is_gone_ends_as_cancelled_by_its_caller() -> None:
    """It is no defect of the server, which would be INTERNAL and a line in its log."""
    gate, codes = Gate(), Codes()
    gate.open()
    service = pb.DESCRIPTOR.services_by_name["AgentRegistryService"]
    handlers: Any = Transport(gate, lambda *_: codes).service(service, Watching())
    method = handlers.service(_Details(f"/{service.full_name}/WatchAgents"))
    with pytest.raises(asyncio.CancelledError):
        await method.unary_stream(pb.WatchAgentsRequest(parent="namespaces/test"), Gone())
    assert codes.codes == [grpc.StatusCode.CANCELLED]


class _Details:
    def __init__(self, method: str) -> None:
        self.method = method
