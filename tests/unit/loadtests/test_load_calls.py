import pytest
from google.protobuf import json_format

from holdfast.cli import InputError
from holdfast.registry.v1 import agent_pb2, agent_registry_service_pb2
from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.draws import Draws
from holdfast_loadtests.messages import MisfitError, Path, descriptor_of
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.templates import Scope
from support.echo_server_descriptors import registry_descriptors

REGISTRY = "holdfast.registry.v1.AgentRegistryService"
REGISTER = f"{REGISTRY}/RegisterAgent"
TABLES = {"agents": [{"id": "a", "tier": "2"}, {"id": "b", "tier": "core"}]}


def scope_of(row=None, captured=None, ordinal=0, seed=1):
    return Scope(row or {}, captured or {}, ordinal, Draws(seed, ordinal, 0))


def compiled(**step):
    spec = LoadSpec.model_validate({"users": 1, "scenarios": [{"name": "one", "steps": [step]}]})
    return compile_calls(spec, registry_descriptors(), TABLES)["one"][0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"call": "holdfast.registry.v1.AgentRegistry/Get"}, f"did you mean {REGISTRY!r}?"),
        ({"call": f"{REGISTRY}/RegisterAgnet"}, "did you mean 'RegisterAgent'?"),
        ({"call": REGISTER, "request": {"agentt_id": "x"}}, "has no field 'agentt_id'; did you mean 'agent_id'?"),
        ({"call": REGISTER, "request": {"agent": {"teir": 1}}}, "has no field 'agent.teir'; did you mean 'tier'?"),
        (
            {"call": REGISTER, "request": {"agent": {"capabilities": [{"idd": "x"}]}}},
            "no field 'agent.capabilities.idd'",
        ),
        ({"call": REGISTER, "request": {"ttl": "soon"}}, "RegisterAgentRequest"),
        ({"call": REGISTER, "request": {"agent": 5}}, "RegisterAgentRequest"),
        ({"call": REGISTER, "request": {"agent": {"tier": "{{agents.tier}}"}}}, "(row 2 of agents)"),
        ({"call": REGISTER, "capture": {"f": "agent.fense"}}, "did you mean 'fence'?"),
        ({"call": REGISTER, "assert": {"agent.capabilities": 1}}, "say which with an index"),
        ({"call": REGISTER, "assert": {"agent.name.x": 1}}, "a plain value"),
        ({"call": REGISTER, "messages": [{}]}, "takes no stream"),
        ({"call": REGISTER, "receive": 2}, "gives one answer"),
        ({"call": REGISTER, "pace": "20ms"}, "takes one message"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_before_anything_starts(step, message):
    with pytest.raises(InputError) as refused:
        compiled(**step)
    assert message in refused.value.message
    assert "load.scenarios.0.steps.0" in refused.value.message


def test_a_request_becomes_the_message_its_json_describes():
    step = compiled(call=REGISTER, request={"agentId": "x", "ttl": "30s", "agent": {"tier": 2, "labels": {"a": "b"}}})
    [body] = step.bodies(scope_of())
    request = agent_registry_service_pb2.RegisterAgentRequest.FromString(body)
    assert (request.agent_id, request.ttl.seconds, request.agent.tier) == ("x", 30, agent_pb2.AGENT_TIER_2_SPECIALIST)


def test_captured_values_fill_later_requests_with_their_type():
    steps = [
        {"call": REGISTER, "capture": {"fence": "agent.fence", "tier": "agent.tier"}},
        {"call": f"{REGISTRY}/DeregisterAgent", "request": {"name": "n", "fence": "{{fence}}"}},
        {"call": REGISTER, "request": {"agent": {"tier": "{{tier}}"}}},
    ]
    spec = LoadSpec.model_validate({"users": 1, "scenarios": [{"name": "life", "steps": steps}]})
    ready = compile_calls(spec, registry_descriptors())["life"]
    answer = agent_registry_service_pb2.RegisterAgentResponse(agent={"fence": 2**50, "tier": 3})
    found = {name: path.value_in(answer) for name, path in ready[0].captures}
    assert found == {"fence": 2**50, "tier": "AGENT_TIER_3_TASK"}
    [body] = ready[1].bodies(scope_of(captured=found))
    assert agent_registry_service_pb2.DeregisterAgentRequest.FromString(body).fence == 2**50


ANSWER = agent_registry_service_pb2.GetAgentResponse(
    agent={"name": "n", "fence": 4, "capabilities": [{"id": "c0"}, {"id": "c1", "tags": ["t"]}], "labels": {"k": "v"}},
    revision=9,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("revision", 9),
        ("agent.fence", 4),
        ("agent.capabilities.1.id", "c1"),
        ("agent.capabilities.1.tags.0", "t"),
        ("agent.capabilities.0", {"id": "c0"}),
        ("agent.capabilities.7.id", None),
        ("agent.labels.k", "v"),
        ("agent.labels.absent", None),
        ("agent.liveness", "AGENT_LIVENESS_UNSPECIFIED"),
    ],
)
def test_a_dotted_path_leads_to_a_value(path, expected):
    found = Path(descriptor_of(type(ANSWER)), path).value_in(ANSWER)
    assert found == expected
    assert json_format.MessageToDict(ANSWER)["revision"] == "9", (
        "64-bit numbers are text in JSON, hence compared as text"
    )


@pytest.mark.parametrize("path", ["", "agent.", "nothing", "agent.capabilities.x.id", "agent.labels", "revision.x"])
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(MisfitError):
        Path(descriptor_of(type(ANSWER)), path)


@pytest.mark.parametrize(("expected", "violated"), [(9, False), ("9", False), (8, True), ("nine", True)])
def test_an_assertion_compares_as_text(expected, violated):
    step = compiled(call=f"{REGISTRY}/GetAgent", **{"assert": {"revision": expected}})
    assert bool(step.violation(ANSWER, scope_of())) is violated
