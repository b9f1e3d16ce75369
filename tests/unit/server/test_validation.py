"""Requests outside the field rules are refused by field, and others pass."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from holdfast import validation
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import RegisterAgentRequest
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveRequest


def request(**fields) -> RegisterAgentRequest:
    return RegisterAgentRequest(**{"parent": "namespaces/n", "agent_id": "a", **fields})


WRONG = {
    "parent": request(parent=""),
    "agent_id": request(agent_id="-starts-with-a-dash"),
    "ttl": request(ttl=Duration(nanos=999_000_000)),
    "request_id": request(request_id="x y"),
    "fence": request(fence=-1),
    "agent.name": request(agent=Agent(name="nonsense")),
    "agent.tier": request(agent=Agent(tier=99)),
    "agent.display_name": request(agent=Agent(display_name="é" * 129)),
    "agent.coordination_priority": request(agent=Agent(coordination_priority=101)),
    "agent.max_concurrency": request(agent=Agent(max_concurrency=-1)),
    "agent.capabilities[2].id": request(
        agent=Agent(capabilities=[Capability(id="a"), Capability(id="b"), Capability()])
    ),
    "agent.capabilities[0].tags[1]": request(agent=Agent(capabilities=[Capability(id="a", tags=["t", "t" * 65])])),
    "agent.capabilities": request(agent=Agent(capabilities=[Capability(id=f"c{n}") for n in range(257)])),
    'agent.labels["Upper"]': request(agent=Agent(labels={"Upper": "x"})),
    'agent.labels["long"]': request(agent=Agent(labels={"long": "x" * 257})),
    "leases": KeepLeaseAliveRequest(),
}


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(nanos=2_000_000_000),
        Duration(seconds=30, nanos=-1),
        Duration(seconds=30, nanos=1_000_000_000),
        Duration(seconds=315_576_000_001),
        Duration(seconds=-(1 << 63), nanos=-(1 << 31)),
        Duration(seconds=-30),
    ],
)
def test_a_duration_is_what_protobuf_says_or_refused(ttl: Duration) -> None:
    """Two billion nanoseconds are not two seconds: other clients could not read what is made of it."""
    with pytest.raises(HoldfastError) as refused:
        validation.check(request(ttl=ttl))
    assert {violation.field for violation in refused.value.field_violations} == {"ttl"}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_field_is_named_by_its_path(field: str) -> None:
    with pytest.raises(HoldfastError) as refused:
        validation.check(WRONG[field])
    assert refused.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refused.value.field_violations] == [field]
    info, bad = ErrorInfo(), BadRequest()
    status = refused.value.to_status()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "holdfast")
    assert bad.field_violations[0].field == field


def test_every_wrong_field_is_told_at_once() -> None:
    with pytest.raises(HoldfastError) as refused:
        validation.check(RegisterAgentRequest(ttl=Duration(seconds=90_000), agent=Agent(tier=9)))
    assert {violation.field for violation in refused.value.field_violations} == {
        "parent",
        "agent_id",
        "ttl",
        "agent.tier",
    }


def test_what_only_the_server_writes_is_ignored() -> None:
    sent = request(agent=Agent(uid="mine", fence=7, revision=9, display_name="kept"))
    validation.check(sent)
    assert sent.agent == Agent(display_name="kept")


def test_limits_are_inclusive_and_absence_is_allowed() -> None:
    agent = Agent(
        coordination_priority=100, max_concurrency=10_000, display_name="x" * 256, labels={"a.b/c-d": "x" * 256}
    )
    for seconds in (1, 86_400):
        validation.check(request(agent=agent, ttl=Duration(seconds=seconds)))
    validation.check(request())


def test_what_no_rule_limits_is_dropped() -> None:
    """Fields that this version does not know would otherwise be stored and sent to everyone, whatever their size."""
    content = b"z" * 1000
    field_1007 = b"\xfa\x3e" + b"\xe8\x07" + content
    known = Agent(display_name="known")
    sent = RegisterAgentRequest.FromString(request().SerializeToString() + field_1007)
    sent.agent.MergeFromString(known.SerializeToString() + field_1007)
    assert sent.ByteSize() > 2000
    validation.check(sent)
    assert sent == request(agent=known)
    assert sent.ByteSize() == request(agent=known).ByteSize()
