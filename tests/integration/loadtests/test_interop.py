"""The load engine against servers that are not ours: gRPC's interop cases, in the open and over TLS."""

import base64
from collections import Counter

import pytest

from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.engine import LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.records import read_calls
from holdfast_loadtests.reflection import fetch
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.targets import target_of
from support.codec_server import until
from support.interop_cases import (
    ANSWER_SIZES,
    CASES,
    LACKS,
    LARGE,
    LARGE_ANSWER,
    METADATA,
    REQUEST_SIZES,
    TEST,
    UNIMPLEMENTED,
    InteropClient,
    NotAsAskedError,
    body_of,
    output,
)
from support.interop_servers import IMPLEMENTATIONS, descriptor_set, interop_server
from support.prometheus_server import poll

SERVERS = [(name, tls) for name in IMPLEMENTATIONS for tls in (False, True)]


@pytest.fixture(scope="module", params=SERVERS, ids=lambda one: f"{one[0]}{'-tls' if one[1] else ''}")
def server(request, tmp_path_factory):
    name, tls = request.param
    with interop_server(name, tmp_path_factory.mktemp(name), tls) as running:
        yield running


@pytest.mark.parametrize("case", CASES)
async def test_interop_case(server, case):
    async with InteropClient(server) as client:
        if case in LACKS[server.name]:
            with pytest.raises(NotAsAskedError):  # else it has learned to, and the table says too little
                await CASES[case](client)
        else:
            await CASES[case](client)


async def test_channel_soak(server):
    for _ in range(10):
        async with InteropClient(server) as client:
            await CASES["large_unary"](client)


def zeros(size):
    return base64.b64encode(bytes(size)).decode()


TURNS = [output([answer], request) for answer, request in zip(ANSWER_SIZES, REQUEST_SIZES, strict=True)]
ECHOED = {"response_status": {"code": 2, "message": "m"}}
STEPS = [
    {"call": f"{TEST}/EmptyCall"},
    {"call": f"{TEST}/UnaryCall", "request": LARGE, "assert": {"payload.body": zeros(LARGE_ANSWER)}},
    {"call": f"{TEST}/UnaryCall", "request": LARGE, "metadata": METADATA},
    {"call": f"{TEST}/UnaryCall", "request": ECHOED, "expect": ["Unknown"]},
    {
        "call": f"{TEST}/StreamingInputCall",
        "messages": [{"payload": body_of(size)} for size in REQUEST_SIZES],
        "assert": {"aggregated_payload_size": 74922},
    },
    {
        "call": f"{TEST}/StreamingOutputCall",
        "request": output(ANSWER_SIZES),
        "receive": 4,
        "assert": {"payload.body": zeros(ANSWER_SIZES[-1])},
    },
    {
        "call": f"{TEST}/FullDuplexCall",
        "messages": TURNS,
        "pace": "on_answer",
        "assert": {"payload.body": zeros(ANSWER_SIZES[-1])},
    },
    {
        "call": f"{TEST}/FullDuplexCall",
        "messages": TURNS,
        "pace": "on_answer",
        "receive": 1,
        "assert": {"payload.body": zeros(ANSWER_SIZES[0])},
    },
    {"call": f"{TEST}/FullDuplexCall", "messages": TURNS, "pace": "5ms"},
    {"call": f"{TEST}/FullDuplexCall", "messages": []},
    {
        "call": f"{TEST}/FullDuplexCall",
        "messages": [{}, {}],
        "pace": "on_answer",
        "deadline": "1ms",
        "expect": ["DeadlineExceeded"],
    },
    {"call": f"{TEST}/UnimplementedCall", "expect": ["Unimplemented"]},
    {"call": f"{UNIMPLEMENTED}/UnimplementedCall", "expect": ["Unimplemented"]},
]


def test_the_cases_as_steps_of_a_load(server, tmp_path):
    spec = LoadSpec.model_validate(
        {"users": 3, "connections": 2, "deadline": "20s", "scenarios": [{"name": "all", "steps": STEPS}]}
    )
    plan = LoadPlan(server.address, spec, {}, 1, descriptors=descriptor_set(), security=server.security)
    with LoadRun.start(plan, tmp_path) as run:
        poll(lambda: run.snapshot().sent > 6 * len(STEPS), "some scenarios to end", 60)
        summary = run.finish()
    assert summary.errors == 0, summary.wrong_answers
    made = Counter(call.step for call in read_calls(run.record))
    assert made[0] >= 3
    assert made[len(STEPS) - 1] >= 3, made


@pytest.mark.parametrize("name", ["go", "python"])  # grpc-js has no reflection of its own
def test_reflection_describes_what_is_served_and_nothing_beside_it(name, tmp_path):
    with interop_server(name, tmp_path, tls=True) as server:
        found = fetch(target_of(server.address, server.security))
    assert TEST in found.services
    assert UNIMPLEMENTED in Descriptors(descriptor_set()).services
    assert UNIMPLEMENTED not in found.services


async def test_the_server_saw_what_was_cancelled(tmp_path):
    seen = 'grpc_service="grpc.testing.TestService",grpc_method="StreamingInputCall",grpc_code="Canceled"} 1\n'
    with interop_server("go", tmp_path) as server:
        async with InteropClient(server) as client:
            await CASES["cancel_after_begin"](client)
            await until(lambda: seen in server.metrics())
