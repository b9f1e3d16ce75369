"""A disk that is full, and one that fails: what was acknowledged stays, and nobody is told what nobody knows."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.serving.server import EXIT_STORE_FAILED
from support.server import AN_HOUR, PARENT, ServerProcess, wait_for


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "fail_disk.so"
    source = Path(__file__).parents[2] / "support" / "fail_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def server(tmp_path: Path, shim: Path) -> Iterator[ServerProcess]:
    env = {"LD_PRELOAD": str(shim), "FAIL_PREFIX": str(tmp_path / "h.db"), "FAIL_DIR": str(tmp_path)}
    with ServerProcess(tmp_path, env=env) as server:
        yield server


def register(server: ServerProcess, agent_id: str) -> grpc.StatusCode:
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            AgentRegistryServiceStub(channel).RegisterAgent(
                pb.RegisterAgentRequest(parent=PARENT, agent_id=agent_id, ttl=AN_HOUR)
            )
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def listed(server: ServerProcess) -> list[str]:
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        found = AgentRegistryServiceStub(channel).ListAgents(pb.ListAgentsRequest(parent=PARENT))
        return [agent.name.rsplit("/", 1)[1] for agent in found.agents]


def serving(server: ServerProcess) -> tuple[bool, bool]:
    """Whether the health service, and the probe, say that it serves."""
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs do not say what it can do
        told = stub.Check(health_pb2.HealthCheckRequest()).status
    ready = requests.get(f"http://{server.http}/health/ready", timeout=10)
    return told == health_pb2.HealthCheckResponse.SERVING, ready.ok


def test_a_full_disk_is_told_to_callers_and_health_until_there_is_room(server: ServerProcess) -> None:
    assert register(server, "before") is grpc.StatusCode.OK
    (server.folder / "full").touch()
    assert register(server, "meanwhile") is grpc.StatusCode.UNAVAILABLE
    assert serving(server) == (False, False)
    assert listed(server) == ["before"]
    (server.folder / "full").unlink()
    wait_for(lambda: serving(server) == (True, True), "the server to notice that there is room")
    assert register(server, "after") is grpc.StatusCode.OK
    server.kill()
    with ServerProcess(server.folder) as again:
        assert listed(again) == ["after", "before"]


def test_a_failed_sync_ends_the_server(server: ServerProcess) -> None:
    """What is durable is unknown then; a new process reads it from the disk. What was acknowledged before is there."""
    assert register(server, "before") is grpc.StatusCode.OK
    (server.folder / "sync").touch()
    assert register(server, "unknown") is grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(20) == EXIT_STORE_FAILED
    assert "store_failed" in server.log.read_text()
    (server.folder / "sync").unlink()
    with ServerProcess(server.folder) as again:
        assert "before" in listed(again)
