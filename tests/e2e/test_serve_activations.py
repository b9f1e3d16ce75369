"""Activations on a real server: kills of the server and of agents lose nothing, and every activation ends."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.activation_service_pb2_grpc import ActivationServiceStub
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import BREAKER_STATE_OPEN, Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import GetAgentRequest, RegisterAgentRequest
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.registry.v1.lease_service_pb2 import RevokeLeaseRequest
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub
from support.server import PARENT, ServerProcess, wait_for

LOCAL = [("grpc.use_local_subchannel_pool", 1)]
ENDED = {
    pb.ACTIVATION_STATE_SUCCEEDED,
    pb.ACTIVATION_STATE_FAILED,
    pb.ACTIVATION_STATE_DEAD_LETTERED,
    pb.ACTIVATION_STATE_CANCELLED,
    pb.ACTIVATION_STATE_TIMED_OUT,
}
QUICK = pb.RetryPolicy(max_attempts=5, initial_backoff=Duration(nanos=50_000_000), max_backoff=Duration(seconds=1))

SHORT = Duration(seconds=1)


class Worker:
    """An agent on a stream; `work` says what it does with an assignment, in a thread of its own."""

    def __init__(self, channel: grpc.Channel, name: str, slots: int = 4, ttl_s: int = 300) -> None:
        self.name = f"{PARENT}/agents/{name}"
        told = Agent(max_concurrency=slots, capabilities=[Capability(id="work")])
        request = RegisterAgentRequest(parent=PARENT, agent_id=name, agent=told, ttl=Duration(seconds=ttl_s))
        self.agent = AgentRegistryServiceStub(channel).RegisterAgent(request).agent
        self.done: list[tuple[str, int]] = []
        self._said: SimpleQueue[pb.StreamAssignmentsRequest | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(channel,), daemon=True)

    def start(self) -> "Worker":
        self._thread.start()
        return self

    def _run(self, channel: grpc.Channel) -> None:
        self._said.put(pb.StreamAssignmentsRequest(open=pb.AssignmentsOpening(agent=self.name)))
        try:
            for heard in ActivationServiceStub(channel).StreamAssignments(iter(self._said.get, None)):
                if heard.HasField("assignment"):
                    self.work(heard.assignment)
                elif heard.HasField("answer") and heard.answer.activation.state == pb.ACTIVATION_STATE_SUCCEEDED:
                    self.done.append((heard.answer.activation.name, heard.answer.activation.attempt))
        except grpc.RpcError:
            pass  # the server, or the lease, is gone

    def work(self, assigned: pb.Activation) -> None:
        """Does it at once."""
        key: dict[str, Any] = {"name": assigned.name, "fence": assigned.fence}
        if assigned.state == pb.ACTIVATION_STATE_ASSIGNED:
            self._said.put(pb.StreamAssignmentsRequest(accept=pb.AcceptActivationRequest(**key)))
        complete = pb.CompleteActivationRequest(**key, result=assigned.payload[::-1])
        self._said.put(pb.StreamAssignmentsRequest(complete=complete))


class Sleeper(Worker):
    """One that never does anything."""

    def work(self, assigned: pb.Activation) -> None:
        pass


def create(stub: ActivationServiceStub, request_id: str = "", **fields: Any) -> pb.Activation:
    asked = pb.Activation(**{"selector": AgentSelector(all_of=["work"]), "retry_policy": QUICK, **fields})
    request = pb.CreateActivationRequest(parent=PARENT, activation=asked, request_id=request_id)
    return stub.CreateActivation(request, wait_for_ready=True, timeout=20).activation


def read(stub: ActivationServiceStub, name: str) -> pb.Activation:
    return stub.GetActivation(pb.GetActivationRequest(name=name), wait_for_ready=True, timeout=20).activation


def ended_as(stub: ActivationServiceStub, name: str) -> pb.Activation:
    wait_for(lambda: read(stub, name).state in ENDED, f"the end of {name}")
    return read(stub, name)


def test_every_activation_ends_though_the_server_and_agents_are_killed(tmp_path: Path) -> None:
    """All succeed exactly as asked: payloads reversed, whatever died in between.

    Agents of earlier lives are LIVE and say nothing: what they are given goes to others.
    """
    rng = random.Random(7)
    created: dict[str, bytes] = {}
    ended: dict[str, pb.Activation] = {}
    for life in range(3):
        with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
            stub, leases = ActivationServiceStub(channel), LeaseServiceStub(channel)
            workers = [Worker(channel, f"w{life}-{number}").start() for number in range(4)]
            sleeper = Sleeper(channel, f"s{life}", slots=10).start()
            with ThreadPoolExecutor(8) as pool:
                payloads = [rng.randbytes(64) for _ in range(60)]
                asked = [pool.submit(create, stub, payload=each, heartbeat_timeout=SHORT) for each in payloads]
                created |= {each.result().name: each.result().payload for each in asked}
            leases.RevokeLease(RevokeLeaseRequest(name=sleeper.agent.lease))
            leases.RevokeLease(RevokeLeaseRequest(name=workers[0].agent.lease))
            if life == 2:
                ended = {name: ended_as(stub, name) for name in created}
            server.kill()
    assert {each.state for each in ended.values()} == {pb.ACTIVATION_STATE_SUCCEEDED}
    assert {name: each.result for name, each in ended.items()} == {
        name: payload[::-1] for name, payload in created.items()
    }


def test_what_runs_survives_a_kill_with_its_fence(tmp_path: Path) -> None:
    """And the same request_id gives the same activation afterwards."""
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = ActivationServiceStub(channel)
        Sleeper(channel, "a")
        first = create(stub, "r1", payload=b"\x00")
        wait_for(lambda: read(stub, first.name).fence, "an assignment")
        running = stub.AcceptActivation(
            pb.AcceptActivationRequest(name=first.name, fence=read(stub, first.name).fence)
        ).activation
        server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = ActivationServiceStub(channel)
        assert create(stub, "r1", payload=b"\x00") == first
        current = read(stub, first.name)
        assert (current.state, current.fence) == (pb.ACTIVATION_STATE_RUNNING, running.fence)
        done = stub.CompleteActivation(
            pb.CompleteActivationRequest(name=first.name, fence=running.fence, result=b"\xff")
        ).activation
        assert done.state == pb.ACTIVATION_STATE_SUCCEEDED
        server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        assert read(ActivationServiceStub(channel), first.name).result == b"\xff"


def test_a_dead_agent_is_noticed_and_its_breaker_opens(tmp_path: Path) -> None:
    """Its lease runs out; what it held goes to another; three times in a row, and it is left alone."""
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub, agents = ActivationServiceStub(channel), AgentRegistryServiceStub(channel)
        for _ in range(3):
            sleeper = Sleeper(channel, "a", ttl_s=1)
            activation = create(stub)
            wait_for(lambda: read(stub, activation.name).agent == sleeper.name, "an assignment")  # noqa: B023
            wait_for(lambda: read(stub, activation.name).failure.reason == "LEASE_LOST", "the loss")  # noqa: B023
            stub.CancelActivation(pb.CancelActivationRequest(name=activation.name))
        agent = Sleeper(channel, "a").agent
        shown = agents.GetAgent(GetAgentRequest(name=agent.name)).agent
        assert shown.breaker_state == BREAKER_STATE_OPEN
        waiting = create(stub)
        Worker(channel, "b").start()
        wait_for(lambda: read(stub, waiting.name).state == pb.ACTIVATION_STATE_SUCCEEDED, "another agent")


def test_assignments_flow_at_a_rate_worth_having(tmp_path: Path) -> None:
    """Not a benchmark: far below what is measured, and it would fail were all agents looked at for each."""
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.grpc, options=LOCAL) as channel:
        stub = ActivationServiceStub(channel)
        workers = [Worker(channel, f"w{number}", slots=50).start() for number in range(4)]
        started_s = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: create(stub), range(500)))
        wait_for(lambda: sum(len(worker.done) for worker in workers) == 500, "all to be done")
        assert time.monotonic() - started_s < 15
        names = [name for worker in workers for name, _ in worker.done]
        assert len(set(names)) == 500
