"""Decisions on a real server: what was voted survives kill -9, and a deadline passes whether or not anybody serves.

A watch resumes where its server died, without a hole.
"""

import time
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.coordination.v1.decision_service_pb2_grpc import DecisionServiceStub
from support.server import PARENT, ServerProcess, wait_for

LOCAL = [("grpc.use_local_subchannel_pool", 1)]


def opened(stub: DecisionServiceStub, deadline_s: float) -> str:
    deadline = Timestamp()
    deadline.FromMilliseconds(int((time.time() + deadline_s) * 1000))
    decision = pb.Decision(
        question="roll back?",
        options=[pb.DecisionOption(id="yes"), pb.DecisionOption(id="no")],
        method=pb.DECISION_METHOD_CONSENSUS,
        electors=[pb.Elector(agent=f"{PARENT}/agents/{name}") for name in "abcd"],
        deadline=deadline,
        fallback=pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_STATUS_QUO, option="no"),
    )
    return stub.CreateDecision(pb.CreateDecisionRequest(parent=PARENT, decision=decision)).decision.name


def vote(stub: DecisionServiceStub, name: str, agent: str) -> pb.Decision:
    return stub.CastVote(pb.CastVoteRequest(decision=name, agent=f"{PARENT}/agents/{agent}", option="yes")).decision


def read(stub: DecisionServiceStub, name: str) -> pb.Decision:
    return stub.GetDecision(pb.GetDecisionRequest(name=name)).decision


def test_votes_and_deadlines_survive_kills(tmp_path: Path) -> None:
    """One is settled by a vote after two kills; the other's time runs out while the server is dead."""
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = DecisionServiceStub(channel)
        settled, late = opened(stub, 60), opened(stub, 1)
        vote(stub, settled, "a")
        server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = DecisionServiceStub(channel)
        assert [each.agent for each in read(stub, settled).votes] == [f"{PARENT}/agents/a"]
        vote(stub, settled, "b")
        server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = DecisionServiceStub(channel)
        assert vote(stub, settled, "c").outcome.option == "yes"
        wait_for(lambda: read(stub, late).state == pb.DECISION_STATE_DECIDED, "the fallback", timeout_s=10)
        assert read(stub, late).outcome == pb.DecisionOutcome(option="no", by_fallback=True)


def test_a_watch_resumes_after_a_kill_without_a_hole(tmp_path: Path) -> None:
    """W6, W7: the snapshot before, and what follows after, are every state that was answered, each once."""
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = DecisionServiceStub(channel)
        name = opened(stub, 60)
        watch = stub.WatchDecisions(pb.WatchDecisionsRequest(parent=PARENT), timeout=30)
        snapshot = next(watch)
        assert ([each.name for each in snapshot.events.decisions], snapshot.events.snapshot_end) == ([name], True)
        seen = [vote(stub, name, "a")]
        assert list(next(watch).events.decisions) == seen
        vote(stub, name, "b")
        server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = DecisionServiceStub(channel)
        request = pb.WatchDecisionsRequest(parent=PARENT, start_revision=seen[-1].revision + 1, filter="votes:*")
        watch = stub.WatchDecisions(request, timeout=30)
        settled = vote(stub, name, "c")
        resumed = [next(watch) for _ in range(2)]
        assert [message.revision for message in resumed] == [settled.revision - 1, settled.revision]
        assert [len(message.events.decisions[0].votes) for message in resumed] == [2, 3]
        assert resumed[1].events.decisions[0] == settled
