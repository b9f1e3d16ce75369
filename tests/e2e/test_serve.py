"""`holdfast serve` as its users meet it: a process, ports, signals, and clients that know nothing of the repo."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1 import lease_service_pb2
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub
from support.server import AN_HOUR, PARENT, ServerProcess, run_serve, wait_for

REPO = Path(__file__).parents[2]
SERVICE = "holdfast.registry.v1.AgentRegistryService"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def grpcurl() -> str:
    found = REPO / ".tools" / "bin" / "grpcurl"
    path = str(found) if found.exists() else shutil.which("grpcurl")
    assert path, "grpcurl is missing: run make tools"
    return path


def page(server: ServerProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.http}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_stock_client_needs_nothing_but_reflection(server: ServerProcess, grpcurl: str) -> None:
    """List services, register with only parent and id, watch, and see it expire after its TTL."""

    def call(*args: str) -> str:
        return subprocess.run(
            [grpcurl, "-plaintext", *args], check=True, capture_output=True, text=True, timeout=30
        ).stdout

    listed = call(server.grpc, "list").split()
    assert {SERVICE, "holdfast.registry.v1.LeaseService", "grpc.health.v1.Health"} <= set(listed)
    watching = subprocess.Popen(
        [grpcurl, "-plaintext", "-d", json.dumps({"parent": "namespaces/curl"}), server.grpc, f"{SERVICE}/WatchAgents"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        request = {"parent": "namespaces/curl", "agent_id": "plain"}
        agent = json.loads(call("-d", json.dumps(request), server.grpc, f"{SERVICE}/RegisterAgent"))["agent"]
        assert agent["name"] == "namespaces/curl/agents/plain"
        assert agent["lease"]
        request = {"parent": "namespaces/curl", "agent_id": "brief", "ttl": "1s"}
        call("-d", json.dumps(request), server.grpc, f"{SERVICE}/RegisterAgent")
        seen = ""
        assert watching.stdout is not None
        for line in watching.stdout:
            seen += line
            if "AGENT_EVENT_TYPE_EXPIRED" in line:
                break
        assert "namespaces/curl/agents/plain" in seen
        assert "AGENT_EVENT_TYPE_EXPIRED" in seen
    finally:
        watching.kill()
        watching.communicate()


def test_a_stock_client_can_ask_for_health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, "holdfast.registry.v1.LeaseService"):
        response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_pages_tell_how_the_server_is(server: ServerProcess) -> None:
    assert page(server, "/health/live")[0] == 200
    assert page(server, "/health/ready")[0] == 200
    status, body = page(server, "/health/detailed")
    details = json.loads(body)
    assert (status, details["status"], details["pid"]) == (200, "ok", server.process.pid)
    assert set(details["components"].values()) == {"ok"}
    assert page(server, "/nowhere")[0] == 404


def test_a_hung_event_loop_is_told(tmp_path: Path) -> None:
    """A process that stands still answers nothing at all; the pages answer again once it goes on."""
    with ServerProcess(tmp_path, store="memory") as server:
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(OSError, match="timed out"):
            urllib.request.urlopen(f"http://{server.http}/health/live", timeout=0.3)
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: page(server, "/health/live")[0] == 200, "the pages to answer again")


def test_calls_are_counted_by_method_and_code(server: ServerProcess, channel: grpc.Channel) -> None:
    stub = AgentRegistryServiceStub(channel)
    stub.RegisterAgent(pb.RegisterAgentRequest(parent="namespaces/counted", agent_id="a"))
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            stub.RegisterAgent(pb.RegisterAgentRequest(parent="namespaces/counted", agent_id="a"))
    labels = f'grpc_method="RegisterAgent",grpc_service="{SERVICE}",grpc_type="unary"'
    counted = f'grpc_server_handled_total{{grpc_code="AlreadyExists",{labels}}} 2.0'
    wait_for(lambda: counted in page(server, "/metrics")[1], "a call to be counted, which follows its answer")
    metrics = page(server, "/metrics")[1]
    assert "grpc_server_handling_seconds_bucket{" in metrics
    assert 'holdfast_agents{liveness="live",tier="unspecified"}' in metrics
    assert "holdfast_store_commit_batch_size_count" in metrics


def test_an_error_carries_its_reason_and_the_callers_correlation_id(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        AgentRegistryServiceStub(channel).RegisterAgent(
            pb.RegisterAgentRequest(parent="nonsense", agent_id="a"), metadata=(("x-correlation-id", "my-id-1"),)
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = {entry.key: entry.value for entry in refused.value.trailing_metadata()}
    assert trailers["x-correlation-id"] == "my-id-1"
    status, bad = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "parent"


def test_filters_and_matches_work_over_the_wire(channel: grpc.Channel) -> None:
    stub, parent = AgentRegistryServiceStub(channel), "namespaces/filtered"
    for tier in (1, 2, 3):
        stub.RegisterAgent(
            pb.RegisterAgentRequest(parent=parent, agent_id=f"t{tier}", agent={"tier": tier}, ttl=AN_HOUR)
        )
    found = stub.ListAgents(pb.ListAgentsRequest(parent=parent, filter="tier = 1_CORE OR tier = 3_TASK"))
    assert [agent.tier for agent in found.agents] == [1, 3]
    matched = stub.MatchAgents(pb.MatchAgentsRequest(parent=parent, tier_max=2))
    assert [match.agent.tier for match in matched.matches] == [1, 2]
    assert [exclusion.agent.rsplit("/", 1)[1] for exclusion in matched.exclusions] == ["t3"]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ListAgents(pb.ListAgentsRequest(parent=parent, filter="tier = 1"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "AGENT_TIER_1_CORE" in refused.value.details()


def test_lists_come_in_pages_that_belong_to_their_query(channel: grpc.Channel) -> None:
    stub, parent = AgentRegistryServiceStub(channel), "namespaces/paged"
    names = [f"a{number}" for number in range(7)]
    for name in reversed(names):
        stub.RegisterAgent(pb.RegisterAgentRequest(parent=parent, agent_id=name, ttl=AN_HOUR))
    found, token, pages = [], "", 0
    while pages == 0 or token:
        response = stub.ListAgents(pb.ListAgentsRequest(parent=parent, page_size=3, page_token=token))
        found += [agent.name.rsplit("/", 1)[1] for agent in response.agents]
        token, pages = response.next_page_token, pages + 1
        if pages == 1:
            first = token
    assert (found, pages) == (names, 3)
    for wrong in (
        pb.ListAgentsRequest(parent=PARENT, page_token=first),
        pb.ListAgentsRequest(parent=parent, page_token="?"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListAgents(wrong)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_sigterm_ends_streams_and_the_server_in_order(tmp_path: Path) -> None:
    """NOT_SERVING is heard, watches end with UNAVAILABLE, the exit code is 0 and the ready file goes."""
    heard: list[int] = []
    ended: list[grpc.StatusCode] = []

    def health(channel: grpc.Channel) -> None:
        try:
            responses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            heard.extend(response.status for response in responses)
        except grpc.RpcError as error:
            ended.append(error.code())

    def watch(responses: grpc.Call) -> None:
        try:
            for _ in responses:
                pass
        except grpc.RpcError as error:
            ended.append(error.code())

    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = AgentRegistryServiceStub(channel)
        kept = LeaseServiceStub(channel).KeepLeaseAlive(iter(lambda: threading.Event().wait(30), None))
        threads = [
            threading.Thread(target=health, args=(channel,)),
            threading.Thread(target=watch, args=(stub.WatchAgents(pb.WatchAgentsRequest(parent=PARENT)),)),
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: "holdfast_watchers 1.0" in page(server, "/metrics")[1] and heard, "the streams to be open")
        kept.cancel()
        assert server.stop() == 0
        for thread in threads:
            thread.join(10)
    assert heard == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert ended == [grpc.StatusCode.UNAVAILABLE] * 2
    assert not (tmp_path / "ready.json").exists()
    assert "stopped" in server.log.read_text().splitlines()[-1]


@pytest.mark.parametrize("flag", ["--listen", "--http"])
def test_a_busy_port_is_named(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = {"--listen": "127.0.0.1:0", "--http": "127.0.0.1:0", flag: address}
        store = tmp_path / "h.db"
        result = run_serve(*(part for pair in addresses.items() for part in pair), "--store", f"sqlite:{store}")
    assert result.returncode == 3
    assert f"{flag} {address}" in result.stderr
    assert not store.exists()


@pytest.mark.parametrize("flag", ["--listen", "--http"])
def test_other_machines_are_let_in_only_on_demand(tmp_path: Path, flag: str) -> None:
    result = run_serve(flag, "0.0.0.0:0", "--store", f"sqlite:{tmp_path / 'h.db'}")
    assert result.returncode == 3
    assert "--insecure" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_insecure_lets_them_in(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--insecure", "--listen", "0.0.0.0:0", store="memory") as server:
        assert server.grpc.startswith("0.0.0.0:")


def test_two_servers_cannot_share_a_store(tmp_path: Path) -> None:
    with ServerProcess(tmp_path):
        result = run_serve("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", f"sqlite:{tmp_path / 'h.db'}")
    assert result.returncode == 3
    assert "another server is using this store" in result.stderr


@pytest.mark.parametrize("kind", ["newer", "damaged"])
def test_a_store_that_cannot_be_trusted_is_left_alone(tmp_path: Path, kind: str) -> None:
    with ServerProcess(tmp_path) as server:
        assert server.stop() == 0
    path = tmp_path / "h.db"
    if kind == "newer":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        path.write_bytes(os.urandom(8192))
    before = path.read_bytes()
    result = run_serve("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", f"sqlite:{path}")
    assert result.returncode == 3
    assert str(path) in result.stderr
    assert "Traceback" not in result.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('listen = "127.0.0.1:0"\nstoer = "memory"\n', "serve.toml:2: stoer: no such key. Did you mean 'store'?"),
        ('log-level = "info"\nlisten = 7\n', "serve.toml:2: listen: '7'"),
        ("retain-revisions = 0\n", "serve.toml:1: retain-revisions: 0 is not in the range"),
        ("insecure = 1\n", "serve.toml:1: insecure: 1 is not true or false"),
        ("[listen]\nport = 1\n", "serve.toml:1: listen:"),
        ("listen =\n", "not TOML"),
    ],
)
def test_a_wrong_config_is_refused_by_line_and_key(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(content)
    result = run_serve("--config", str(path))
    assert result.returncode == 3
    assert expected.replace("'7'", "7") in result.stderr.replace("'7'", "7")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--store", "etcd:127.0.0.1:2379"], "not built yet"),
        (["--store", "redis"], "'redis' is no store"),
        (["--listen", "127.0.0.1"], "is no HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "is no HOST:PORT"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--ready-file", "no/such/folder/ready.json"], "its folder does not exist"),
    ],
)
def test_wrong_arguments_are_refused_with_their_value(args: list[str], expected: str) -> None:
    result = run_serve(*args)
    assert result.returncode == 3
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_a_config_file_sets_what_flags_do_not(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('store = "memory"\nlisten = "0.0.0.0:1"\nlog-level = "debug"\n')
    with ServerProcess(tmp_path, "--config", str(path)) as server:  # the flags' store and addresses win
        assert server.grpc.startswith("127.0.0.1:")
        assert (tmp_path / "h.db").exists()


def test_leases_are_kept_over_one_stream(channel: grpc.Channel) -> None:
    stub = LeaseServiceStub(channel)
    lease = stub.GrantLease(lease_service_pb2.GrantLeaseRequest(parent=PARENT, ttl=Duration(seconds=5))).lease
    requests = [lease_service_pb2.KeepLeaseAliveRequest(leases=[lease.name])] * 3
    answers = list(stub.KeepLeaseAlive(iter(requests)))
    assert [answer.results[0].ttl.seconds for answer in answers] == [5, 5, 5]
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.KeepLeaseAlive(iter([lease_service_pb2.KeepLeaseAliveRequest()])))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
