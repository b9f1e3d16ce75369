"""Peers that take more than they should: memory stays within a stated bound, and others are answered meanwhile."""

import asyncio
import contextlib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from holdfast.history import HISTORY_BYTES_MAX
from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1 import lease_service_pb2 as leases_pb
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub
from holdfast.service.audience import WATCHERS_MAX
from holdfast.service.transport import REQUEST_BYTES_MAX
from support import raw_http2 as raw
from support.server import AN_HOUR, PARENT, ServerProcess, wait_for

LOCAL = [("grpc.use_local_subchannel_pool", 1)]
SENDS_ANYTHING = [*LOCAL, ("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
REGISTRY = "/holdfast.registry.v1.AgentRegistryService"
NOTHING_MORE_IN_WINDOW = b"\0\x04\0\0\0\0"  # SETTINGS_INITIAL_WINDOW_SIZE = 0: the peer reads nothing
MB = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, store="memory") as server:
        assert_others_are_answered(server)
        yield server
        assert server.process.poll() is None
        assert "call_failed" not in server.log.read_text()


def assert_others_are_answered(server: ServerProcess) -> None:
    """A client on a connection of its own gets its answer."""
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel, pytest.raises(grpc.RpcError) as refused:
        AgentRegistryServiceStub(channel).GetAgent(pb.GetAgentRequest(name=f"{PARENT}/agents/none"), timeout=60)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@contextlib.contextmanager
def growing_at_most(server: ServerProcess, bound_mb: int) -> Iterator[None]:
    """The server's memory grows by no more than so much while the block runs, and others are answered at its end."""
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    yield
    assert_others_are_answered(server)
    grown_mb = (process.memory_info().rss - before) / MB
    assert grown_mb <= bound_mb, f"the server grew by {grown_mb:.0f} MB"


def metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def reason_and_fields(error: grpc.RpcError) -> tuple[str, list[str]]:
    """The reason of a refusal, and the fields or subjects it names."""
    trailers = {entry.key: entry.value for entry in error.trailing_metadata()}
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, bad, quota = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.QuotaFailure()
    assert status.details[0].Unpack(info)
    if status.details[1].Unpack(bad):
        return info.reason, [violation.field for violation in bad.field_violations]
    assert status.details[1].Unpack(quota)
    return info.reason, [violation.subject for violation in quota.violations]


def register(agent: Agent | None = None) -> pb.RegisterAgentRequest:
    return pb.RegisterAgentRequest(parent=PARENT, agent_id="a", agent=agent, ttl=AN_HOUR)


def empty_capabilities() -> bytes:
    """Four megabytes that take thirty times as many to read: each two bytes are a message."""
    body = b"\x32\x00" * 1_900_000
    length = bytes([len(body) & 127 | 128, len(body) >> 7 & 127 | 128, len(body) >> 14 & 127 | 128, len(body) >> 21])
    return register().SerializeToString() + b"\x1a" + length + body


OVERSIZED: dict[str, tuple[Callable[[], bytes], str]] = {
    "10 MB label": (lambda: register(Agent(labels={"k": "v" * 10_000_000})).SerializeToString(), "request"),
    "15 MB of nothing": (lambda: bytes(15 * MB), "request"),
    "4 MB of label": (
        lambda: register(Agent(labels={"k": "v" * (4 * MB - 100)})).SerializeToString(),
        'agent.labels["k"]',
    ),
    "100 000 capabilities": (
        lambda: register(
            agent=Agent(capabilities=[Capability(id=f"c{each}") for each in range(100_000)])
        ).SerializeToString(),
        "agent.capabilities",
    ),
    "millions of empty messages": (empty_capabilities, "agent.capabilities"),
    "100 000 labels": (
        lambda: register(Agent(labels={f"k{each}": "" for each in range(100_000)})).SerializeToString(),
        "agent.labels",
    ),
    "messages in messages": (lambda: b"\x1a\x80\x80\x02" * 100_000, "request"),
    "groups in groups": (lambda: b"\x1b" * 1_000_000, "request"),
    "a length beyond the end": (lambda: b"\x0a\xff\xff\xff\xff\x07x", "request"),
    "a number as a string's type": (lambda: b"\x09" + bytes(7), "request"),
}


def test_oversized_requests_are_told_what_is_wrong(server: ServerProcess) -> None:
    """Not gRPC's bare RESOURCE_EXHAUSTED; reading them takes at most 150 MB, once."""
    with growing_at_most(server, 250), grpc.insecure_channel(server.grpc, options=SENDS_ANYTHING) as channel:
        call = channel.unary_unary(f"{REGISTRY}/RegisterAgent")
        for name, (made, field) in OVERSIZED.items():
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                with pytest.raises(grpc.RpcError) as refused:
                    call(made(), compression=compression, timeout=60)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (name, refused.value)
                assert reason_and_fields(refused.value) == ("INVALID_FIELD", [field]), name


def test_bytes_that_grow_when_unpacked_are_not_unpacked(server: ServerProcess) -> None:
    """256 MB in 256 KB."""
    with growing_at_most(server, 60), grpc.insecure_channel(server.grpc, options=SENDS_ANYTHING) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"{REGISTRY}/RegisterAgent")(
                bytes(256 * MB), compression=grpc.Compression.Gzip, timeout=60
            )
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_huge_metadata_is_refused(server: ServerProcess) -> None:
    with growing_at_most(server, 60), grpc.insecure_channel(server.grpc, options=SENDS_ANYTHING) as channel:
        call = channel.unary_unary(f"{REGISTRY}/RegisterAgent")
        for metadata in ((("x-big", "v" * 100_000),), tuple((f"k{number}", "v") for number in range(3000))):
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", metadata=metadata, timeout=60)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_method_that_is_not_there_is_unimplemented(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        for path in (f"{REGISTRY}/Nope", "/no.Such/Service", f"/{'x' * 5000}", f"{REGISTRY}/RegisterAgent/more"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path)(b"", timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) * 100,
        raw.PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        raw.PREFACE + raw.frame(raw.SETTINGS, b"odd"),
        raw.PREFACE + raw.frame(raw.SETTINGS) + raw.frame(raw.HEADERS, b"\xff" * 100, 1, raw.END_HEADERS),
        raw.PREFACE + raw.frame(raw.SETTINGS) + raw.frame(raw.CONTINUATION, b"", 1),
    ],
    ids=["HTTP/1", "noise", "a frame of 16 MB", "bad settings", "bad header block", "a continuation of nothing"],
)
def test_what_is_not_http2_is_closed(server: ServerProcess, sent: bytes) -> None:
    with growing_at_most(server, 60), raw.Connection(server.grpc, greets=False) as connection:
        connection.send(sent)
        assert connection.is_closed_within(60)


def test_a_flood_of_frames_is_borne(server: ServerProcess) -> None:
    """Pings, settings, and headers without an end: each is answered, or its connection closed."""
    with growing_at_most(server, 60):
        for flood in (
            raw.frame(raw.PING, bytes(8)) * 20_000,
            raw.frame(raw.SETTINGS) * 20_000,
            raw.headers(1, flags=0) + raw.frame(raw.CONTINUATION, b"\x10\x01a\x64" + b"v" * 100, 1) * 20_000,
            raw.frame(raw.WINDOW_UPDATE, b"\x7f\xff\xff\xff") * 20,
        ):
            with raw.Connection(server.grpc) as connection:
                connection.send(flood)
                assert_others_are_answered(server)


@pytest.mark.parametrize("method", ["GetAgent", "WatchAgents"])
def test_calls_reset_as_soon_as_they_are_made_are_borne(server: ServerProcess, method: str) -> None:
    """Thirty thousand of them, the attack of CVE-2023-44487."""
    request = raw.message(pb.WatchAgentsRequest(parent=PARENT).SerializeToString())
    reset = b"\0\0\0\x08"
    with growing_at_most(server, 250), raw.Connection(server.grpc) as connection:
        for first in range(0, 30_000, 100):
            calls = b"".join(
                raw.headers(stream, raw.call_to(f"{REGISTRY}/{method}"))
                + raw.frame(raw.DATA, request, stream, raw.END_STREAM)
                + raw.frame(raw.RST_STREAM, reset, stream)
                for stream in range(2 * first + 1, 2 * first + 201, 2)
            )
            if not connection.send(calls):
                break
        assert_others_are_answered(server)
    wait_for(lambda: metric(server, "holdfast_watchers") == 0, "the watches to end", timeout_s=60)


def test_connections_that_say_nothing_are_borne(server: ServerProcess) -> None:
    with growing_at_most(server, 100), contextlib.ExitStack() as idle:
        for number in range(1000):
            idle.enter_context(raw.Connection(server.grpc, greets=number % 2 == 0))
        assert_others_are_answered(server)


def test_uploads_that_never_end_wait_in_the_window(server: ServerProcess) -> None:
    """What is not read to its end is held for a connection as a whole: some 4 MB."""
    with growing_at_most(server, 60), raw.Connection(server.grpc) as connection:
        wait_for(lambda: connection.frames(0.5) and connection.window > 65_535, "the server's window", timeout_s=60)
        for stream in range(1, 200, 2):
            connection.send(raw.headers(stream, raw.call_to(f"{REGISTRY}/RegisterAgent")))
            connection.send(raw.frame(raw.DATA, raw.message(b"", claimed_bytes=REQUEST_BYTES_MAX), stream))
            room = min(connection.window // 2, MB)
            for _ in range(room // 16_000):
                connection.send(raw.frame(raw.DATA, bytes(16_000), stream))
            connection.window -= 5 + room
        assert_others_are_answered(server)


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 200_000,
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
        b"POST /health/live HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + bytes(200_000),
        b"GET /health/live HTTP/9.9\r\n\r\n",
        raw.PREFACE,
    ],
    ids=["noise", "a long path", "many headers", "a body", "another version", "HTTP/2"],
)
def test_the_pages_for_probes_are_there_whatever_others_send(server: ServerProcess, sent: bytes) -> None:
    with growing_at_most(server, 60), raw.Connection(server.http, greets=False) as connection:
        connection.send(sent)
        assert metric(server, "holdfast_ready") == 1


def largest_agent() -> Agent:
    """Of some 700 KB."""
    tags = [f"{number:02}{'t' * 62}" for number in range(32)]
    capabilities = [Capability(id=f"{number:03}{'c' * 124}", version="v" * 64, tags=tags) for number in range(256)]
    return Agent(capabilities=capabilities)


def register_largest(server: ServerProcess, count: int) -> None:
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        for number in range(count):
            AgentRegistryServiceStub(channel).RegisterAgent(
                pb.RegisterAgentRequest(parent=PARENT, agent_id=f"a{number}", agent=largest_agent(), ttl=AN_HOUR)
            )


@pytest.mark.parametrize(
    ("asked", "bound_mb"),
    [
        (pb.WatchAgentsRequest(parent=PARENT), 400),
        (pb.WatchAgentsRequest(parent=PARENT, start_revision=1), 400),
        (pb.ListAgentsRequest(parent=PARENT), 500),
    ],
    ids=["snapshots", "changes", "lists"],
)
def test_answers_that_nobody_reads_do_not_pile_up(server: ServerProcess, asked: Message, bound_mb: int) -> None:
    """Five hundred large ones: without a bound they took gigabytes, and every other call waited."""
    register_largest(server, 5)
    method, request = type(asked).__name__.removesuffix("Request"), raw.message(asked.SerializeToString())
    started = f'grpc_server_started_total{{grpc_method="{method}"'
    with (
        growing_at_most(server, bound_mb),
        raw.Connection(server.grpc, settings=NOTHING_MORE_IN_WINDOW) as connection,
    ):
        for stream in range(1, 1001, 2):
            connection.send(raw.headers(stream, raw.call_to(f"{REGISTRY}/{method}")))
            connection.send(raw.frame(raw.DATA, request, stream, raw.END_STREAM))
        wait_for(lambda: metric(server, started) == 500, "the calls to arrive", timeout_s=60)
        assert_others_are_answered(server)
    wait_for(lambda: metric(server, "holdfast_watchers") == 0, "the watches to end", timeout_s=60)


def test_kept_leases_whose_answers_nobody_reads_do_not_pile_up(server: ServerProcess) -> None:
    """Thirty kilobytes of unknown names make three megabytes of answer; once they are gone, others have their room."""
    request = leases_pb.KeepLeaseAliveRequest(leases=["x"] * 10_000)
    data, path = raw.message(request.SerializeToString()), "/holdfast.registry.v1.LeaseService/KeepLeaseAlive"
    pieces = [data[start : start + 16_000] for start in range(0, len(data), 16_000)]
    started = 'grpc_server_started_total{grpc_method="KeepLeaseAlive"'
    with (
        growing_at_most(server, 500),
        raw.Connection(server.grpc, settings=NOTHING_MORE_IN_WINDOW) as connection,
    ):
        wait_for(lambda: connection.frames(0.5) and connection.window > 65_535, "the server's window", timeout_s=60)
        for stream in range(1, 641, 2):
            connection.send(raw.headers(stream, raw.call_to(path)))
            connection.send(b"".join(raw.frame(raw.DATA, piece, stream) for piece in pieces))
        wait_for(lambda: metric(server, started) == 320, "the calls to arrive", timeout_s=60)
        assert_others_are_answered(server)
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        for _ in range(10):
            (answer,) = LeaseServiceStub(channel).KeepLeaseAlive(iter([request]), timeout=60)
            assert len(answer.results) == 10_000


async def test_large_messages_of_keepalives_that_are_read_are_all_answered(server: ServerProcess) -> None:
    """A fleet behind one address keeps its leases in a burst, as after a restart of the server."""
    request = leases_pb.KeepLeaseAliveRequest(leases=[f"{PARENT}/leases/{number:032}" for number in range(1_000)])

    async with grpc.aio.insecure_channel(server.grpc, options=LOCAL) as channel:

        async def keep_thrice() -> int:
            stream = LeaseServiceStub(channel).KeepLeaseAlive(iter([request] * 3), timeout=120)
            return sum([len(answer.results) async for answer in stream])

        assert await asyncio.gather(*(keep_thrice() for _ in range(60))) == [3_000] * 60


def test_large_answers_that_are_read_make_room_for_more(server: ServerProcess) -> None:
    """More of them than may be on their way, one after the other and together."""
    register_largest(server, 3)
    request = pb.ListAgentsRequest(parent=PARENT)
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = AgentRegistryServiceStub(channel)
        for _ in range(12):
            assert len(stub.ListAgents(request, timeout=60).agents) == 3
        for call in [stub.ListAgents.future(request, timeout=60) for _ in range(24)]:
            assert len(call.result().agents) == 3


def test_a_large_agent_that_changes_all_the_time_does_not_fill_the_history(server: ServerProcess) -> None:
    """Nor the serialised changes that watchers get: 700 updates of 700 KB took two gigabytes."""
    register_largest(server, 1)
    request = pb.UpdateAgentRequest(agent=Agent(name=f"{PARENT}/agents/a0"))
    request.update_mask.paths.append("domain")
    with growing_at_most(server, 700), grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = AgentRegistryServiceStub(channel)
        changes = stub.WatchAgents(pb.WatchAgentsRequest(parent=PARENT), timeout=240)
        for number in range(700):
            request.agent.domain = f"d{number}"
            stub.UpdateAgent(request, timeout=60)
            next(changes)
        assert metric(server, "holdfast_history_bytes") <= HISTORY_BYTES_MAX
        start = metric(server, "holdfast_history_start_revision")
        wait_for(lambda: metric(server, "holdfast_store_compact_revision") >= start > 300, "the store to follow")
        changes.cancel()


def test_ten_thousand_watches_of_one_client_leave_room_for_others(server: ServerProcess) -> None:
    """QUOTA_EXCEEDED beyond half of what a replica has, and 300 MB at most; the client's other calls are answered."""
    request = raw.message(pb.WatchAgentsRequest(parent=PARENT).SerializeToString())
    per_connection = 2_500
    with growing_at_most(server, 300), contextlib.ExitStack() as open_ones:
        for _ in range(10_000 // per_connection):
            connection = open_ones.enter_context(raw.Connection(server.grpc))
            for stream in range(1, 2 * per_connection, 2):
                connection.send(
                    raw.headers(stream, raw.call_to(f"{REGISTRY}/WatchAgents"))
                    + raw.frame(raw.DATA, request, stream, raw.END_STREAM)
                )
            connection.frames(0.5)
        refused = 'grpc_server_handled_total{grpc_code="ResourceExhausted",grpc_method="WatchAgents"'
        wait_for(lambda: metric(server, refused) == 10_000 - WATCHERS_MAX // 2, "the refusals", timeout_s=90)
        assert metric(server, "holdfast_watchers") == WATCHERS_MAX // 2
        with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
            with pytest.raises(grpc.RpcError) as one_more:
                next(AgentRegistryServiceStub(channel).WatchAgents(pb.WatchAgentsRequest(parent=PARENT), timeout=60))
            assert reason_and_fields(one_more.value) == ("QUOTA_EXCEEDED", ["ipv4:127.0.0.1"])
            assert_others_are_answered(server)
    wait_for(lambda: metric(server, "holdfast_watchers") == 0, "the watches to end", timeout_s=90)
