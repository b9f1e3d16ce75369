"""Every reason the service can give is given by some call here, with the code and the details of the table."""

import ast
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest

import holdfast
from holdfast import names
from holdfast.coordination.v1 import activation_service_pb2 as activations_pb
from holdfast.coordination.v1 import decision_service_pb2 as decisions_pb
from holdfast.coordination.v1 import handoff_service_pb2 as handoffs_pb
from holdfast.coordination.v1 import lock_service_pb2 as locks_pb
from holdfast.core.activations import creating
from holdfast.core.leases import AGENTS_BYTES_MAX
from holdfast.errors import Reason
from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1.agent_pb2 import BREAKER_STATE_OPEN, Agent, Capability
from holdfast.registry.v1.lease_service_pb2 import GrantLeaseRequest, RevokeLeaseRequest
from holdfast.service.heartbeats import PROGRESS_BURST
from holdfast.service.janitor import Janitor
from holdfast.storage.v1.activations_pb2 import WorkRecord
from holdfast.store.batching import QUEUE_MAX
from holdfast.store.interface import Conflict, Txn
from support.replica import PARENT, Replica, replica
from support.surface import Answer, Surface

NAME = f"{PARENT}/agents/a"
NOT_YET: frozenset[Reason] = frozenset(
    {
        Reason.ELECTION_NOT_FOUND,
    }
)
"""Reasons of what is not built: elections that operators end."""

ACTIVATION = f"{PARENT}/activations/id"

Scene = Callable[[Replica, Surface], Awaitable[Answer]]
SCENES: dict[Reason, Scene] = {}


def scene(reason: Reason) -> Callable[[Scene], Scene]:
    """Says which reason a scene ends with."""

    def keep(play: Scene) -> Scene:
        SCENES[reason] = play
        return play

    return keep


def registration(**fields: object) -> Message:
    return pb.RegisterAgentRequest(**{"parent": PARENT, "agent_id": "a", **fields})


@scene(Reason.INVALID_FIELD)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("RegisterAgent", registration(ttl=Duration(seconds=-1)))


async def at_work(here: Replica, surface: Surface, *, accepted: bool = True) -> int:
    """Has an agent at work, and answers its fence."""
    await surface.ask("RegisterAgent", registration())
    here.registry.new_id = lambda: "id"
    await surface.ask("CreateActivation", activations_pb.CreateActivationRequest(parent=PARENT, activation={}))
    await here.settle()
    answer = await surface.ask("GetActivation", activations_pb.GetActivationRequest(name=ACTIVATION))
    fence = activations_pb.GetActivationResponse.FromString(answer.responses[0]).activation.fence
    if accepted:
        await surface.ask("AcceptActivation", activations_pb.AcceptActivationRequest(name=ACTIVATION, fence=fence))
    return fence


@scene(Reason.ACTIVATION_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("GetActivation", activations_pb.GetActivationRequest(name=ACTIVATION))


@scene(Reason.ACTIVATION_CLOSED)
async def _(here: Replica, surface: Surface) -> Answer:
    request = activations_pb.CompleteActivationRequest(name=ACTIVATION, fence=await at_work(here, surface))
    await surface.ask("CompleteActivation", request)
    return await surface.ask("CompleteActivation", request)


@scene(Reason.ACTIVATION_STATE_CONFLICT)
async def _(here: Replica, surface: Surface) -> Answer:
    fence = await at_work(here, surface, accepted=False)
    return await surface.ask(
        "CompleteActivation", activations_pb.CompleteActivationRequest(name=ACTIVATION, fence=fence)
    )


@scene(Reason.RATE_LIMITED)
async def _(here: Replica, surface: Surface) -> Answer:
    fence, answer = await at_work(here, surface), Answer()
    for percent in range(PROGRESS_BURST + 1):
        progress = activations_pb.ActivationProgress(percent=percent)
        request = activations_pb.HeartbeatActivationRequest(name=ACTIVATION, fence=fence, progress=progress)
        answer = await surface.ask("HeartbeatActivation", request)
    return answer


@scene(Reason.SLOTS_EXHAUSTED)
async def _(_here: Replica, surface: Surface) -> Answer:
    await surface.ask("RegisterAgent", registration())
    large = activations_pb.Activation(payload=b"x" * 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(creating, "UNFINISHED_BYTES_MAX", 1000)
        return await surface.ask(
            "CreateActivation", activations_pb.CreateActivationRequest(parent=PARENT, activation=large)
        )


HANDOFF = f"{PARENT}/handoffs/id"


async def offered(here: Replica, surface: Surface) -> Answer:
    """Work that runs at one agent, offered to another."""
    fence = await at_work(here, surface)
    await surface.ask("RegisterAgent", registration(agent_id="b", agent=Agent(max_concurrency=9)))
    told = handoffs_pb.Handoff(activation=ACTIVATION, from_agent=NAME, to_agent=f"{PARENT}/agents/b")
    return await surface.ask("OfferHandoff", handoffs_pb.OfferHandoffRequest(parent=PARENT, handoff=told, fence=fence))


@scene(Reason.HANDOFF_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("GetHandoff", handoffs_pb.GetHandoffRequest(name=HANDOFF))


@scene(Reason.HANDOFF_CLOSED)
async def _(here: Replica, surface: Surface) -> Answer:
    await offered(here, surface)
    request = handoffs_pb.AcceptHandoffRequest(name=HANDOFF, agent=f"{PARENT}/agents/b")
    await surface.ask("AcceptHandoff", request)
    return await surface.ask("AcceptHandoff", request)


@scene(Reason.BREAKER_OPEN)
async def _(here: Replica, surface: Surface) -> Answer:
    await offered(here, surface)
    work = WorkRecord(breaker_state=BREAKER_STATE_OPEN, breaker_time=here.registry.now())
    await here.registry.store.commit(Txn(puts=((names.work_key(f"{PARENT}/agents/b"), work.SerializeToString()),)))
    await here.settle()
    request = handoffs_pb.AcceptHandoffRequest(name=HANDOFF, agent=f"{PARENT}/agents/b")
    return await surface.ask("AcceptHandoff", request)


@scene(Reason.REQUEST_ID_REUSED)
async def _(_here: Replica, surface: Surface) -> Answer:
    await surface.ask("GrantLease", GrantLeaseRequest(parent=PARENT, request_id="r"))
    answer = await surface.ask("GrantLease", GrantLeaseRequest(parent=PARENT, request_id="r", ttl=Duration(seconds=9)))
    assert answer.fields == ["request_id"]
    return answer


@scene(Reason.AGENT_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("GetAgent", pb.GetAgentRequest(name=NAME))


@scene(Reason.LEASE_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("RevokeLease", RevokeLeaseRequest(name=f"{PARENT}/leases/none"))


@scene(Reason.SERVICE_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("Check", HealthCheckRequest(service="no.such.Service"))


@scene(Reason.AGENT_ALREADY_EXISTS)
async def _(here: Replica, surface: Surface) -> Answer:
    await here.register("a")
    return await surface.ask("RegisterAgent", registration())


@scene(Reason.ETAG_MISMATCH)
async def _(here: Replica, surface: Surface) -> Answer:
    await here.register("a")
    return await surface.ask("DeregisterAgent", pb.DeregisterAgentRequest(name=NAME, etag="stale"))


@scene(Reason.TXN_CONFLICT)
async def _(here: Replica, surface: Surface) -> Answer:
    async def always(_txn: Txn) -> Conflict:
        return Conflict(here.registry.store.revision)

    here.registry.store.commit = always  # type: ignore[method-assign] # others, who are always faster
    return await surface.ask("RegisterAgent", registration())


@scene(Reason.REVISION_COMPACTED)
async def _(here: Replica, surface: Surface) -> Answer:
    for number in range(5):
        await here.register(f"b{number}")
    await Janitor(here.registry, retain_revisions=1).make_round()
    watch = pb.WatchAgentsRequest(parent=PARENT, start_revision=1)
    return await surface.ask("WatchAgents", watch, to_its_end=True)


@scene(Reason.REVISION_FUTURE)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("WatchAgents", pb.WatchAgentsRequest(parent=PARENT, start_revision=1 << 60))


@scene(Reason.FENCE_STALE)
async def _(here: Replica, surface: Surface) -> Answer:
    agent = await here.register("a")
    return await surface.ask("DeregisterAgent", pb.DeregisterAgentRequest(name=NAME, fence=agent.fence - 1))


@scene(Reason.AGENT_BANNED)
async def _(here: Replica, surface: Surface) -> Answer:
    await here.register("a", ttl_s=1)
    await here.rule("ban", "a")
    await here.pass_time(1.3)
    return await surface.ask("RegisterAgent", registration())


@scene(Reason.ADMIN_STATE_CONFLICT)
async def _(here: Replica, surface: Surface) -> Answer:
    await here.register("a")
    return await surface.ask("UnbanAgent", pb.UnbanAgentRequest(name=NAME))


@scene(Reason.NOT_OWNER)
async def _(here: Replica, surface: Surface) -> Answer:
    other = await here.register("b")
    return await surface.ask("RegisterAgent", registration(agent=Agent(lease=other.lease)))


@scene(Reason.LOCK_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("ForceReleaseLock", locks_pb.ForceReleaseLockRequest(lock=f"{PARENT}/locks/free"))


@scene(Reason.LOCK_HELD)
async def _(here: Replica, surface: Surface) -> Answer:
    lease = (await here.grant()).name
    for holder in "ab":
        request = locks_pb.AcquireLockRequest(lock=f"{PARENT}/locks/l", holder=holder, lease=lease)
        answer = await surface.ask("AcquireLock", request)
    return answer


@scene(Reason.QUOTA_EXCEEDED)
async def _(here: Replica, surface: Surface) -> Answer:
    lease, tags = (await here.grant()).name, [f"{number:02}{'t' * 62}" for number in range(32)]
    large = Agent(lease=lease, capabilities=[Capability(id=f"c{number}", tags=tags) for number in range(256)])
    for number in range(AGENTS_BYTES_MAX // large.ByteSize()):
        await here.register(f"b{number}", agent=large)
    return await surface.ask("RegisterAgent", registration(agent=large))


@scene(Reason.NOT_BUILT)
async def _(here: Replica, _surface: Surface) -> Answer:
    here.agents = object()  # type: ignore[assignment] # of an older server
    return await Surface(here).ask("MatchAgents", pb.MatchAgentsRequest(parent=PARENT))


@scene(Reason.OVERLOADED)
async def _(here: Replica, surface: Surface) -> Answer:
    store = here.registry.store
    waiting = [asyncio.ensure_future(store.commit(Txn(puts=(("lease:none", b""),)))) for _ in range(QUEUE_MAX)]
    answer = await surface.ask("RegisterAgent", registration())
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return answer


@scene(Reason.NOT_READY)
async def _(_here: Replica, surface: Surface) -> Answer:
    surface.gate.drain()
    return await surface.ask("GetAgent", pb.GetAgentRequest(name=NAME))


@scene(Reason.STREAM_DRAINED)
async def _(here: Replica, surface: Surface) -> Answer:
    request = pb.WatchAgentsRequest(parent=PARENT)
    watching = asyncio.ensure_future(surface.ask("WatchAgents", request, to_its_end=True))
    async with asyncio.timeout(20):
        while not here.registry.audience.count:  # noqa: ASYNC110 - it is a count
            await asyncio.sleep(0)
    surface.gate.drain()
    return await watching


@scene(Reason.STORE_UNAVAILABLE)
async def _(here: Replica, surface: Surface) -> Answer:
    await here.registry.store.close()
    return await surface.ask("RegisterAgent", registration())


@scene(Reason.INTERNAL)
async def _(here: Replica, surface: Surface) -> Answer:
    def defect() -> str:
        raise ZeroDivisionError

    here.registry.new_id = defect
    return await surface.ask("RegisterAgent", registration())


def question(*electors: str) -> decisions_pb.CreateDecisionRequest:
    asked = decisions_pb.Decision(
        question="?", options=[decisions_pb.DecisionOption(id="yes")], method=decisions_pb.DECISION_METHOD_CONSENSUS
    )
    asked.electors.extend(decisions_pb.Elector(agent=f"{PARENT}/agents/{name}") for name in electors)
    return decisions_pb.CreateDecisionRequest(parent=PARENT, decision=asked)


async def voted(surface: Surface, *voters: str) -> Answer:
    """The answer to the last of some votes of electors a and b."""
    opened = await surface.ask("CreateDecision", question("a", "b"))
    name = decisions_pb.CreateDecisionResponse.FromString(opened.responses[0]).decision.name
    for voter in voters:
        request = decisions_pb.CastVoteRequest(decision=name, agent=f"{PARENT}/agents/{voter}", option="yes")
        answer = await surface.ask("CastVote", request)
    return answer


@scene(Reason.DECISION_NOT_FOUND)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await surface.ask("GetDecision", decisions_pb.GetDecisionRequest(name=f"{PARENT}/decisions/none"))


@scene(Reason.DECISION_CLOSED)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await voted(surface, "a", "b", "a")


@scene(Reason.ALREADY_VOTED)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await voted(surface, "a", "a")


@scene(Reason.NOT_ELECTOR)
async def _(_here: Replica, surface: Surface) -> Answer:
    return await voted(surface, "c")


@scene(Reason.NO_ELIGIBLE_AGENT)
async def _(_here: Replica, surface: Surface) -> Answer:
    request = question()
    request.decision.elector_selector.all_of.append("nothing")
    return await surface.ask("CreateDecision", request)


@pytest.mark.parametrize("reason", SCENES, ids=lambda reason: reason.name)
async def test_a_reason_comes_with_its_code_and_details(reason: Reason) -> None:
    async with replica() as here:
        answer = await SCENES[reason](here, Surface(here))
    assert (answer.reason, answer.code.value[0]) == (reason.name, reason.value.code)


def reasons_in_code() -> set[str]:
    """Names of the reasons that the product's source uses."""
    found: set[str] = set()
    for file in Path(holdfast.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason":
                found.add(node.attr)
    return found


def test_no_reason_is_without_a_scene() -> None:
    """Those that the code gives are shown above; the others are of what is not built, and nothing gives them."""
    assert reasons_in_code() == {reason.name for reason in SCENES}
    assert set(Reason) == set(SCENES) | NOT_YET
    assert NOT_YET.isdisjoint(SCENES)
