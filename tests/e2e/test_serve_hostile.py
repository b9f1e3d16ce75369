"""`holdfast serve` under input and at moments that nobody would choose."""

import asyncio
import queue
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1 import lease_service_pb2
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub
from support import held_server
from support.server import AN_HOUR, PARENT, ServerProcess, run_serve, serve_in_process, wait_for

LOCAL = [("grpc.use_local_subchannel_pool", 1)]
REGISTRY = "/holdfast.registry.v1.AgentRegistryService"
LEASES = "/holdfast.registry.v1.LeaseService"
NOT_UTF8 = b"\x0a\x03\xff\xfe\xfd"  # field 1, a string


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), store="memory") as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        yield channel


def page(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wrong_fields(error: grpc.RpcError) -> list[str]:
    """The fields that the BadRequest of a refusal names."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    trailers = {entry.key: entry.value for entry in error.trailing_metadata()}
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    return [violation.field for violation in bad.field_violations]


def handled(server: ServerProcess, method: str, code: str) -> float:
    """How many calls of a method ended with a code."""
    for line in page(server.http, "/metrics")[1].splitlines():
        if line.startswith("grpc_server_handled_total{") and f'="{method}"' in line and f'="{code}"' in line:
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def test_bytes_that_are_no_request_are_the_callers_fault(server: ServerProcess, channel: grpc.Channel) -> None:
    """However the call is made; nothing is a defect of the server."""
    register = channel.unary_unary(f"{REGISTRY}/RegisterAgent")
    watch = channel.unary_stream(f"{REGISTRY}/WatchAgents")
    keep = channel.stream_stream(f"{LEASES}/KeepLeaseAlive")
    for call in (
        lambda: register(NOT_UTF8),
        lambda: register(b"\xff\xff\xff"),
        lambda: list(watch(NOT_UTF8)),
        lambda: list(keep(iter([NOT_UTF8]))),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert wrong_fields(refused.value) == ["request"]
    assert "call_failed" not in server.log.read_text()
    wait_for(lambda: handled(server, "KeepLeaseAlive", "InvalidArgument") == 1, "the call to be counted")


@pytest.mark.parametrize(
    "agent",
    [
        Agent(labels={"k" * 100_000: "v"}),
        Agent(labels={"\U0001f600" * 1000: "v"}),
        Agent(capabilities=[Capability(id="!" * 127)] * 256),
        Agent(capabilities=[Capability(id="\U0001f600" * 100)] * 256),
    ],
    ids=["a long key", "a long key of wide characters", "many wrong", "many wrong of wide characters"],
)
def test_a_refusal_fits_in_what_clients_read(channel: grpc.Channel, agent: Agent) -> None:
    """Trailers beyond 8 KB would reach the caller as RESOURCE_EXHAUSTED, without a word of what was wrong."""
    with pytest.raises(grpc.RpcError) as refused:
        AgentRegistryServiceStub(channel).RegisterAgent(
            pb.RegisterAgentRequest(parent=PARENT, agent_id="a", agent=agent)
        )
    fields = wrong_fields(refused.value)
    assert fields
    assert all(field.startswith(("agent.labels", "agent.capabilities")) for field in fields)


def largest_agent() -> Agent:
    tags = [f"{number:02}{'t' * 62}" for number in range(32)]
    capabilities = [Capability(id=f"{number:03}{'c' * 124}", version="v" * 64, tags=tags) for number in range(256)]
    labels = {f"{number:02}{'k' * 61}": "v" * 256 for number in range(64)}
    return Agent(capabilities=capabilities, labels=labels, display_name="n" * 256, domain="d" * 256)


def test_the_largest_agents_can_be_listed_and_watched(channel: grpc.Channel) -> None:
    """Pages are cut by size too: no client needs more than gRPC's usual 4 MB."""
    stub, parent, agent = AgentRegistryServiceStub(channel), "namespaces/large", largest_agent()
    names = [f"{parent}/agents/a{number}" for number in range(9)]
    for name in names:
        stub.RegisterAgent(
            pb.RegisterAgentRequest(parent=parent, agent_id=name.rsplit("/", 1)[1], agent=agent, ttl=AN_HOUR)
        )
    listed, token = [], None
    while token != "":
        response = stub.ListAgents(pb.ListAgentsRequest(parent=parent, page_token=token or ""))
        listed += [found.name for found in response.agents]
        token = response.next_page_token
    watched: list[str] = []
    watch = stub.WatchAgents(pb.WatchAgentsRequest(parent=parent))
    for message in watch:
        watched += [event.agent.name for event in message.events.events]
        if message.events.snapshot_end:
            break
    watch.cancel()
    assert (listed, watched) == (names, names)


def test_ten_thousand_ended_leases_are_told_in_one_answer(channel: grpc.Channel) -> None:
    """Those who held them must hear STOP, not that the answer was too large; with the longest names there are."""
    names = [f"namespaces/{'n' * 63}/leases/{number:063}" for number in range(10_000)]
    (answer,) = LeaseServiceStub(channel).KeepLeaseAlive(iter([lease_service_pb2.KeepLeaseAliveRequest(leases=names)]))
    assert [result.lease for result in answer.results] == names
    info, status = error_details_pb2.ErrorInfo(), answer.results[0].status
    assert status.details[0].Unpack(info)
    assert (info.reason, status.code) == ("LEASE_NOT_FOUND", grpc.StatusCode.NOT_FOUND.value[0])
    assert all(result.directive == lease_service_pb2.LEASE_DIRECTIVE_STOP for result in answer.results)


def test_a_deadline_is_counted_as_one(server: ServerProcess, channel: grpc.Channel) -> None:
    before = handled(server, "WatchAgents", "DeadlineExceeded")
    with pytest.raises(grpc.RpcError) as ended:
        list(AgentRegistryServiceStub(channel).WatchAgents(pb.WatchAgentsRequest(parent=PARENT), timeout=0.3))
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: handled(server, "WatchAgents", "DeadlineExceeded") == before + 1, "the watch to be counted")


async def test_a_burst_is_served_whole(server: ServerProcess) -> None:
    """gRPC's own bound on calls not yet taken up ended the rest of a burst with CANCELLED."""
    async with grpc.aio.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = AgentRegistryServiceStub(channel)
        calls = [stub.GetAgent(pb.GetAgentRequest(name=f"{PARENT}/agents/none")) for _ in range(4500)]
        codes = {await call.code() for call in calls}
    assert codes == {grpc.StatusCode.NOT_FOUND}


async def test_a_hung_event_loop_is_not_live(tmp_path: Path) -> None:
    """The server runs in the test's own loop, which stands still while the test asks without awaiting."""
    async with serve_in_process(tmp_path) as here:
        status, body = page(here.http, "/health/live")
        assert (status, "hung" in body) == (503, True)
        assert page(here.http, "/health/ready")[0] == 503
        status, body = page(here.http, "/health/detailed")
        assert (status, '"event_loop": "hung"' in body) == (503, True)
        assert page(here.http, "/metrics")[0] == 200
        assert (await asyncio.to_thread(page, here.http, "/health/live"))[0] == 200


def lets_calls_in(stub: AgentRegistryServiceStub) -> bool:
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetAgent(pb.GetAgentRequest(name=f"{PARENT}/agents/none"), timeout=1)
    return refused.value.code() is not grpc.StatusCode.UNAVAILABLE


def test_a_call_under_way_survives_the_drain(tmp_path: Path) -> None:
    """Its write waits to be committed when SIGTERM comes; it is finished, acknowledged and durable."""
    held = tmp_path / "held"
    program = (held_server.__file__, str(held))
    with (
        ServerProcess(tmp_path, program=program) as server,
        grpc.insecure_channel(server.grpc, options=LOCAL) as channel,
    ):
        stub = AgentRegistryServiceStub(channel)
        held.touch()
        try:
            call = stub.RegisterAgent.future(
                pb.RegisterAgentRequest(parent=PARENT, agent_id="late", ttl=AN_HOUR), timeout=20
            )
            started = f'grpc_server_started_total{{grpc_method="RegisterAgent",grpc_service="{REGISTRY[1:]}"'
            wait_for(lambda: f'{started},grpc_type="unary"}} 1.0' in page(server.http, "/metrics")[1], "the call")
            server.process.terminate()
            wait_for(lambda: page(server.http, "/health/ready")[0] == 503, "the drain to begin")
            wait_for(lambda: not lets_calls_in(stub), "new calls to be refused")
            assert not call.done()
        finally:
            held.unlink()
        agent = call.result(10).agent
        assert server.process.wait(20) == 0
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        found = AgentRegistryServiceStub(channel).GetAgent(pb.GetAgentRequest(name=agent.name)).agent
        assert found.uid == agent.uid


def test_an_open_reflection_stream_does_not_hold_the_end_up(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path, "--drain-timeout", "600", store="memory") as server,
        grpc.insecure_channel(server.grpc, options=LOCAL) as channel,
    ):
        requests: queue.Queue[reflection_pb2.ServerReflectionRequest | None] = queue.Queue()
        requests.put(reflection_pb2.ServerReflectionRequest(list_services=""))
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests.get, None))
        services = {service.name for service in next(answers).list_services_response.service}
        assert {REGISTRY[1:], LEASES[1:], "grpc.reflection.v1alpha.ServerReflection"} <= services
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        requests.put(None)


def test_idle_connections_do_not_hold_the_end_up(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, store="memory") as server:
        host, port = server.http.split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(70)]
        try:
            assert server.stop(timeout_s=15) == 0
        finally:
            for connection in idle:
                connection.close()


def test_a_ready_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    result = run_serve("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file", str(tmp_path))
    assert result.returncode == 3
    assert f"--ready-file {tmp_path}: is a folder" in result.stderr


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_health_can_be_asked_over_ipv6(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--http", "[::1]:0", store="memory") as server:
        assert page(server.http, "/health/ready")[0] == 200
