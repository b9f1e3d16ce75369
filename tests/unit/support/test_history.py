"""Histories: what is written is what is read back."""

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentEvent,
    AgentEvents,
    AgentEventType,
    BatchRegisterAgentsRequest,
    GetAgentRequest,
    RegisterAgentRequest,
    RegisterAgentResponse,
    WatchAgentsResponse,
)
from holdfast.registry.v1.lease_service_pb2 import (
    GrantLeaseRequest,
    GrantLeaseResponse,
    KeepLeaseAliveResult,
    Lease,
    ListLeasesResponse,
)
from support.history import TAG, History, Invoke, LeaseSeen, Ok, load, save, to_jsonl

ADDED = AgentEventType.AGENT_EVENT_TYPE_ADDED
AGENT = Agent(name="namespaces/n/agents/a", uid="u", fence=7, revision=7, labels={TAG: "t"})


def recorded() -> History:
    history = History(lambda: 1.5)
    request = RegisterAgentRequest(parent="namespaces/n", agent_id="a", agent=Agent(labels={TAG: "t"}), request_id="r")
    call = history.invoke("client", "RegisterAgent", request)
    history.ok("client", call, "RegisterAgent", RegisterAgentResponse(agent=AGENT))
    call = history.invoke("client", "GrantLease", GrantLeaseRequest(parent="namespaces/n"))
    history.ok("client", call, "GrantLease", GrantLeaseResponse(lease=Lease(name="l", fence=(1 << 40) + 9)))
    history.failed("client", history.invoke("client", "GetAgent", GetAgentRequest()), "X", is_definite=False)
    call = history.keep_sent("client", "l")
    history.keep_answered("client", call, KeepLeaseAliveResult(lease="l"))
    history.keep_lost("client", history.keep_sent("client", "l"), "l")
    watch = history.watch_begun("client", "namespaces/n", "", 1)
    events = AgentEvents(events=[AgentEvent(type=ADDED, agent=AGENT, previous=AGENT)])
    history.watch_message("client", watch, WatchAgentsResponse(revision=7, events=events))
    history.watch_ended("client", watch, "CLOSED")
    history.mark("server", "killed")
    history.final_state("client", "namespaces/n", 9, [AGENT])
    return history


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Saving and loading gives equal events of the same types."""
    events = recorded().events
    save(events, tmp_path / "history.jsonl")
    assert load(tmp_path / "history.jsonl") == events
    assert to_jsonl(load(tmp_path / "history.jsonl")) == to_jsonl(events)


def test_requests_and_responses_are_told_by_their_facts() -> None:
    """A registration says whom it is about and its tag, a grant the revision that its fence holds."""
    registration, registered, _, granted, *_ = recorded().events
    assert isinstance(registration, Invoke)
    assert (registration.about, registration.tag, registration.request_id) == (("namespaces/n/agents/a",), "t", "r")
    assert isinstance(registered, Ok)
    assert (registered.revision, registered.agents[0].fence) == (7, 7)
    assert isinstance(granted, Ok)
    assert granted.revision == 9


@pytest.mark.parametrize(
    ("asked", "ttl_s"),
    [
        (RegisterAgentRequest(ttl=Duration(seconds=1, nanos=500_000_000)), 1.5),
        (RegisterAgentRequest(), 30.0),
        (RegisterAgentRequest(agent=Agent(lease="l")), 0.0),
    ],
    ids=["asked-for", "default", "joined"],
)
def test_a_registration_tells_the_ttl_of_the_lease_it_is_granted(asked: RegisterAgentRequest, ttl_s: float) -> None:
    """As asked for, or the API's default; none where an agent joins a lease. A batch tells one for each agent."""
    history = History(lambda: 1.5)
    history.invoke("client", "RegisterAgent", asked)
    history.invoke(
        "client", "BatchRegisterAgents", BatchRegisterAgentsRequest(requests=[asked, RegisterAgentRequest()])
    )
    alone, batch = history.events
    assert isinstance(alone, Invoke)
    assert alone.ttls_s == (ttl_s,)
    assert isinstance(batch, Invoke)
    assert batch.ttls_s == (ttl_s, 30.0)


def test_leases_that_are_read_are_told() -> None:
    """All that a page of ListLeases shows."""
    history = History(lambda: 1.5)
    leases = [Lease(name="l", ttl=Duration(seconds=2), fence=5), Lease(name="m", ttl=Duration(seconds=1), fence=6)]
    history.ok("client", 1, "ListLeases", ListLeasesResponse(leases=leases, revision=7))
    assert history.events == [Ok(1.5, "client", 1, 7, (), (LeaseSeen("l", 2, 5), LeaseSeen("m", 1, 6)))]


def test_a_line_that_is_no_event_is_shown(tmp_path: Path) -> None:
    """The error names file, line and content."""
    (tmp_path / "history.jsonl").write_text('{"event":"Surprise"}\n')
    with pytest.raises(ValueError, match=r"history\.jsonl:1: .*Surprise"):
        load(tmp_path / "history.jsonl")
