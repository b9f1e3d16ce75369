"""Requests that ask for what cannot be, over the wire: the right status and details, and no defect."""

import base64
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1 import lease_service_pb2 as leases_pb
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from support.hostile import requests
from support.server import AN_HOUR, PARENT, ServerProcess, wait_for
from support.surface import METHODS, Answer, assert_fitting

LOCAL = [("grpc.use_local_subchannel_pool", 1)]
FORGED = base64.urlsafe_b64encode(bytes(8) + f"{PARENT}/agents/a".encode()).decode()
LATER = 1 << 60
BY_NAME = {method.name: method for method in METHODS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), store="memory") as server:
        yield server
        assert server.process.poll() is None
        assert "call_failed" not in server.log.read_text()


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        yield channel


WAITING = {"AcquireLock", "Campaign", "FetchAssignments", "StreamAssignments", "WatchActivations", "WatchDecisions"}
"""Calls that may rightly have nothing to say for a while: a wait in line, or a watch of what is still to come."""


def call(channel: grpc.Channel, method: MethodDescriptor, data: bytes, timeout_s: float = 60.0) -> Answer:
    """One call with one message, over the wire; of a stream, what it says first."""
    path, answer = f"/{method.containing_service.full_name}/{method.name}", Answer()
    try:
        if not method.server_streaming:
            answer.responses.append(channel.unary_unary(path)(data, timeout=timeout_s))
            return answer
        if method.client_streaming:
            stream = channel.stream_stream(path)(iter([data]), timeout=timeout_s)
        else:
            stream = channel.unary_stream(path)(data, timeout=timeout_s)
        answer.responses.append(next(stream))
        stream.cancel()
    except grpc.RpcError as error:
        answer.code = error.code()
        trailers = {entry.key: entry.value for entry in error.trailing_metadata()}
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # the client's own, without details
            answer.status = Status.FromString(trailers["grpc-status-details-bin"])
    return answer


WRONG: dict[str, tuple[str, Message, str, list[str]]] = {
    "a negative TTL": (
        "RegisterAgent",
        pb.RegisterAgentRequest(parent=PARENT, agent_id="c", ttl=Duration(seconds=-1)),
        "INVALID_FIELD",
        ["ttl"],
    ),
    "a TTL of two billion nanoseconds": (
        "GrantLease",
        leases_pb.GrantLeaseRequest(parent=PARENT, ttl=Duration(nanos=2_000_000_000)),
        "INVALID_FIELD",
        ["ttl"],
    ),
    "a TTL of ages": (
        "GrantLease",
        leases_pb.GrantLeaseRequest(parent=PARENT, ttl=Duration(seconds=(1 << 63) - 1)),
        "INVALID_FIELD",
        ["ttl", "ttl"],
    ),
    "a filter nested 10 000 deep": (
        "ListAgents",
        pb.ListAgentsRequest(parent=PARENT, filter="(" * 10_000 + "domain=d" + ")" * 10_000),
        "INVALID_FIELD",
        ["filter"],
    ),
    "a filter as deep as fits": (
        "ListLeases",
        leases_pb.ListLeasesRequest(parent=PARENT, filter="(" * 2000 + "name=d" + ")" * 2000),
        "INVALID_FIELD",
        ["filter"],
    ),
    "a filter of negations": (
        "WatchAgents",
        pb.WatchAgentsRequest(parent=PARENT, filter="NOT " * 1000 + "domain=d"),
        "INVALID_FIELD",
        ["filter"],
    ),
    "a filter of many terms": (
        "ListAgents",
        pb.ListAgentsRequest(parent=PARENT, filter=" ".join(["tier=1"] * 500)),
        "INVALID_FIELD",
        ["filter"],
    ),
    "a forged page token": (
        "ListAgents",
        pb.ListAgentsRequest(parent=PARENT, page_token=FORGED),
        "INVALID_FIELD",
        ["page_token"],
    ),
    "a page token of noise": (
        "ListLeases",
        leases_pb.ListLeasesRequest(parent=PARENT, page_token="\u00e9" * 300),
        "INVALID_FIELD",
        ["page_token"],
    ),
    "a negative page size": (
        "MatchAgents",
        pb.MatchAgentsRequest(parent=PARENT, page_size=-1),
        "INVALID_FIELD",
        ["page_size"],
    ),
    "a revision to come": (
        "WatchAgents",
        pb.WatchAgentsRequest(parent=PARENT, start_revision=LATER),
        "REVISION_FUTURE",
        [],
    ),
    "a negative revision": (
        "WatchAgents",
        pb.WatchAgentsRequest(parent=PARENT, start_revision=-1),
        "INVALID_FIELD",
        ["start_revision"],
    ),
    "a mask of another's field": (
        "UpdateAgent",
        pb.UpdateAgentRequest(agent=Agent(name=f"{PARENT}/agents/a"), update_mask=FieldMask(paths=["uid"])),
        "INVALID_FIELD",
        ["update_mask"],
    ),
    "a name with a line's end": (
        "GetAgent",
        pb.GetAgentRequest(name=f"{PARENT}/agents/a\n"),
        "INVALID_FIELD",
        ["name"],
    ),
    "a name with a nought": ("BanAgent", pb.BanAgentRequest(name=f"{PARENT}/agents/a\0"), "INVALID_FIELD", ["name"]),
    "capabilities of one id": (
        "RegisterAgent",
        pb.RegisterAgentRequest(
            parent=PARENT, agent_id="c", agent=Agent(capabilities=[Capability(id="x"), Capability(id="x")])
        ),
        "INVALID_FIELD",
        ["agent.capabilities[1].id"],
    ),
    "ten thousand and one in a batch": (
        "BatchRegisterAgents",
        pb.BatchRegisterAgentsRequest(
            parent=PARENT, requests=[pb.RegisterAgentRequest(agent_id=f"c{number}") for number in range(10_001)]
        ),
        "INVALID_FIELD",
        ["requests"],
    ),
    "ten thousand and one leases": (
        "KeepLeaseAlive",
        leases_pb.KeepLeaseAliveRequest(leases=[f"{PARENT}/leases/x"] * 10_001),
        "INVALID_FIELD",
        ["leases"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_by_reason_and_field(channel: grpc.Channel, case: str) -> None:
    name, request, reason, fields = WRONG[case]
    answer = call(channel, BY_NAME[name], request.SerializeToString())
    assert_fitting(answer, BY_NAME[name].input_type)
    assert answer.reason == reason
    if fields:
        assert answer.fields == fields


def test_a_page_token_is_good_for_its_own_query_only(channel: grpc.Channel) -> None:
    """Not for another namespace, filter or call, nor with a bit of it changed."""
    parent = "namespaces/pages"
    for agent_id in ("a", "b"):
        register = pb.RegisterAgentRequest(parent=parent, agent_id=agent_id, ttl=AN_HOUR)
        assert call(channel, BY_NAME["RegisterAgent"], register.SerializeToString()).responses
    first = pb.ListAgentsRequest(parent=parent, page_size=1)
    (sent,) = call(channel, BY_NAME["ListAgents"], first.SerializeToString()).responses
    token = pb.ListAgentsResponse.FromString(sent).next_page_token
    assert token
    flipped = ("A" if token[0] != "A" else "B") + token[1:]
    others: list[tuple[str, Message]] = [
        ("ListAgents", pb.ListAgentsRequest(parent="namespaces/other", page_token=token)),
        ("ListAgents", pb.ListAgentsRequest(parent=parent, filter="domain = d", page_token=token)),
        ("ListLeases", leases_pb.ListLeasesRequest(parent=parent, page_token=token)),
        ("ListAgents", pb.ListAgentsRequest(parent=parent, page_token=flipped)),
        ("ListAgents", pb.ListAgentsRequest(parent=parent, page_token=token[:-4])),
    ]
    for name, request in others:
        answer = call(channel, BY_NAME[name], request.SerializeToString())
        assert (answer.reason, answer.fields) == ("INVALID_FIELD", ["page_token"]), request
    again = pb.ListAgentsRequest(parent=parent, page_size=5, page_token=token)
    (sent,) = call(channel, BY_NAME["ListAgents"], again.SerializeToString()).responses
    assert [agent.name for agent in pb.ListAgentsResponse.FromString(sent).agents] == [f"{parent}/agents/b"]


def test_a_compacted_revision_is_told_in_the_stream_and_its_status(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path, "--retain-revisions", "10", store="memory") as server,
        grpc.insecure_channel(server.grpc, options=LOCAL) as channel,
    ):
        stub = AgentRegistryServiceStub(channel)
        for number in range(20):
            stub.RegisterAgent(pb.RegisterAgentRequest(parent=PARENT, agent_id=f"a{number}", ttl=AN_HOUR), timeout=60)

        def first() -> pb.WatchAgentsResponse:
            watch = stub.WatchAgents(pb.WatchAgentsRequest(parent=PARENT, start_revision=1), timeout=60)
            response = next(watch)
            watch.cancel()
            return response

        wait_for(lambda: first().HasField("reset"), "the history to be dropped", timeout_s=60)
        watch = stub.WatchAgents(pb.WatchAgentsRequest(parent=PARENT, start_revision=1), timeout=60)
        assert next(watch).reset.compact_revision > 1
        with pytest.raises(grpc.RpcError) as ended:
            next(watch)
        assert ended.value.code() is grpc.StatusCode.OUT_OF_RANGE


def calls_of(method: MethodDescriptor) -> st.SearchStrategy[tuple[MethodDescriptor, bytes]]:
    return st.tuples(st.just(method), requests(method.input_type).map(lambda request: request.SerializeToString()))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(calls=st.lists(st.sampled_from(METHODS).flatmap(calls_of), min_size=1, max_size=8))
def test_any_calls_over_the_wire_get_an_answer_of_the_table(
    channel: grpc.Channel, calls: list[tuple[MethodDescriptor, bytes]]
) -> None:
    """What may wait excepted, which is not waited for; a watch of agents is asked for progress."""
    for method, data in calls:
        if method.name == "WatchAgents":
            data += b"\x20\x01"  # progress_notify
        waits = method.name in WAITING
        answer = call(channel, method, data, timeout_s=0.5 if waits else 60)
        if waits and answer.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            continue
        assert_fitting(answer, method.input_type)
        assert answer.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), answer
