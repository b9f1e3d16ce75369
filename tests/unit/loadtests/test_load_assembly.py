import pytest
from google.protobuf.wrappers_pb2 import UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from holdfast.registry.v1 import agent_registry_service_pb2 as registry
from holdfast_loadtests.assembly import compile_message, varint
from holdfast_loadtests.draws import Draws
from holdfast_loadtests.messages import MisfitError, encode
from holdfast_loadtests.templates import Scope, compile_template

REGISTER = registry.RegisterAgentRequest


def scope_of(captured, row=None):
    return Scope(row or {}, captured, 7, Draws(1, 7, 0))


CAPTURED = {"text": "täxt", "small": 2, "big": 2**52, "digits": "12", "tier": "AGENT_TIER_3_TASK", "long": "x" * 300}
TEMPLATES = st.recursive(
    st.sampled_from(["{{text}}", "a {{small}} b", "constant", "{{long}}{{text}}", "{{agents.id}}", ""]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=3,
)
TEXTS = TEMPLATES.filter(lambda value: isinstance(value, str))


@given(
    agent_id=TEXTS,
    labels=st.dictionaries(st.text("abc", min_size=1, max_size=3), TEXTS, max_size=3),
    capabilities=st.lists(st.fixed_dictionaries({"id": TEXTS, "tags": st.lists(TEXTS, max_size=3)}), max_size=3),
    priority=st.sampled_from([0, 5, "{{small}}", "{{digits}}"]),
    tier=st.sampled_from(["{{tier}}", "{{small}}", 1]),
    fence=st.sampled_from(["{{big}}", "{{small}}", 3]),
    ttl=st.sampled_from(["{{small}}s", "5s"]),
)
def test_an_assembled_message_is_byte_for_byte_what_protobuf_makes_of_the_filled_object(
    agent_id, labels, capabilities, priority, tier, fence, ttl
):
    agent = {"coordination_priority": priority, "tier": tier, "labels": labels, "fence": fence}
    template = {"ttl": ttl, "agentId": agent_id, "agent": {**agent, "capabilities": capabilities}}
    scope = scope_of(CAPTURED, {"id": "a-1"})
    assembled = REGISTER.FromString(compile_message(REGISTER, template)(scope))
    filled = encode(REGISTER, compile_template(template)(scope_of(CAPTURED, {"id": "a-1"})))
    assert assembled == REGISTER.FromString(filled)
    if len(labels) < 2:  # maps have no order of their own
        assert compile_message(REGISTER, template)(scope) == filled


@given(st.integers(1, 2**64 - 1))
def test_a_varint_is_what_protobuf_writes(value):
    assert varint(1 << 3) + varint(value) == UInt64Value(value=value).SerializeToString()


@pytest.mark.parametrize(
    ("template", "captured"),
    [
        ({"agent_id": "{{x}}"}, {"x": 7}),
        ({"agent_id": "{{x}}"}, {"x": "\ud800"}),
        ({"agent": {"fence": "{{x}}"}}, {"x": "many"}),
        ({"agent": {"fence": "{{x}}"}}, {"x": 2**63}),
        ({"agent": {"tier": "{{x}}"}}, {"x": "TIER"}),
        ({"ttl": "{{x}}"}, {"x": "soon"}),
        ({"agent": "{{x}}"}, {"x": 7}),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_filled_in(template, captured):
    fill = compile_message(REGISTER, template)
    with pytest.raises(MisfitError):
        fill(scope_of(captured))
