"""`coordination`: activations brought to their end, and decisions of 9 electors, per second, durable when acknowledged.

Against a bare grpc.aio server that is sent as many calls of the same messages, in the same order, and answers each with
what ours answered, written down before. So the ratio says what is left of the transport's own pace.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks.frames import Connection, connected
from benchmarks.processes import Running, pin, start, start_ours
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.coordination.v1 import activation_service_pb2 as work
from holdfast.coordination.v1 import decision_service_pb2 as votes
from holdfast.registry.v1 import agent_registry_service_pb2 as registry

CALLERS = 32
"""Agents that ask for work of their own, fetch it, accept it and complete it: four calls, one after the other."""

DECIDERS = 8
"""Decisions under way at a time."""

ELECTORS = 9
"""Who votes on each, all at once; the last vote decides, so a decision is ten calls."""

ROUND_S = 1.0
PARENT = "namespaces/bench"
ACTIVATIONS = "/holdfast.coordination.v1.ActivationService"
DECISIONS = "/holdfast.coordination.v1.DecisionService"
REGISTER = "/holdfast.registry.v1.AgentRegistryService/RegisterAgent"

Call = Callable[[str, bytes], Awaitable[bytes]]
"""Makes one call; returns the answer."""

Task = Callable[[Call, int], Awaitable[None]]
"""One piece of coordination, by the caller of that number."""


async def run(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[Comparison]:
    """Both servers up at once, on one core, loaded in turn from the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        ours = start_ours(stack, folder)
        answers = folder / "answers.json"
        answers.write_text(json.dumps(await recorded(ours)))
        theirs = start(stack, folder, "answering", ["-m", "benchmarks.answering_server", str(answers)])
        return [
            Comparison(
                "coordination",
                "bare grpc.aio calls",
                what,
                "1/s",
                await alternate(
                    lambda task=task, callers=callers: per_s(ours, task, callers, round_s),
                    lambda task=task, callers=callers: per_s(theirs, task, callers, round_s),
                    rounds,
                ),
            )
            for what, task, callers in [
                (f"activations completed per second, {CALLERS} agents", activation, CALLERS),
                (f"decisions per second, {ELECTORS} electors", decision, DECIDERS),
            ]
        ]


async def recorded(server: Running) -> dict[str, str]:
    """Registers the agents, and writes down what each kind of call is answered, in hexadecimal digits by method."""
    answered: dict[str, str] = {}
    async with connected(server.address) as connection:

        async def call(method: str, message: bytes) -> bytes:
            answer: bytes = await connection.call(method, message)
            answered[method] = answer.hex()
            return answer

        await asyncio.gather(*(connection.call(REGISTER, registration(number)) for number in range(CALLERS)))
        await activation(call, 0)
        await decision(call, 0)
    return answered


async def per_s(server: Running, task: Task, callers: int, round_s: float) -> float:
    """How much is done in a second by so many callers, each doing one thing after the other."""
    async with connected(server.address) as connection:
        started_s = time.perf_counter()
        until_s = started_s + round_s
        done = await asyncio.gather(*(_caller(connection, task, number, until_s) for number in range(callers)))
        return sum(done) / (time.perf_counter() - started_s)


async def _caller(connection: Connection, task: Task, number: int, until_s: float) -> int:
    for done in count():
        if time.perf_counter() >= until_s:
            return done
        await task(connection.call, number)
    raise AssertionError


async def activation(call: Call, number: int) -> None:
    """An agent's own activation, from its creation to its end."""
    asked = work.CreateActivationRequest(parent=PARENT)
    asked.activation.selector.agent = agent_name(number)
    asked.activation.payload = b"x" * 100
    await call(f"{ACTIVATIONS}/CreateActivation", asked.SerializeToString())
    fetching = work.FetchAssignmentsRequest(agent=agent_name(number), max=1)
    fetching.wait.FromSeconds(10)
    answer = await call(f"{ACTIVATIONS}/FetchAssignments", fetching.SerializeToString())
    (assigned,) = work.FetchAssignmentsResponse.FromString(answer).activations
    accepting = work.AcceptActivationRequest(name=assigned.name, fence=assigned.fence)
    await call(f"{ACTIVATIONS}/AcceptActivation", accepting.SerializeToString())
    completing = work.CompleteActivationRequest(name=assigned.name, fence=assigned.fence, result=b"done")
    answer = await call(f"{ACTIVATIONS}/CompleteActivation", completing.SerializeToString())
    state = work.CompleteActivationResponse.FromString(answer).activation.state
    assert state == work.ACTIVATION_STATE_SUCCEEDED, f"{assigned.name} is {state}"


async def decision(call: Call, _number: int) -> None:
    """A decision that all electors must agree to, and do."""
    asked = votes.CreateDecisionRequest(parent=PARENT)
    asked.decision.question = "go on?"
    asked.decision.options.add(id="yes")
    asked.decision.options.add(id="no")
    asked.decision.method = votes.DECISION_METHOD_CONSENSUS
    asked.decision.threshold = 1.0
    electors = [agent_name(number) for number in range(ELECTORS)]
    for elector in electors:
        asked.decision.electors.add(agent=elector)
    answer = await call(f"{DECISIONS}/CreateDecision", asked.SerializeToString())
    name = votes.CreateDecisionResponse.FromString(answer).decision.name
    casting = [votes.CastVoteRequest(decision=name, agent=elector, option="yes") for elector in electors]
    answers = await asyncio.gather(*(call(f"{DECISIONS}/CastVote", cast.SerializeToString()) for cast in casting))
    states = [votes.CastVoteResponse.FromString(each).decision.state for each in answers]
    assert votes.DECISION_STATE_DECIDED in states, f"{name} came to {states}"


def agent_name(number: int) -> str:
    """The agent of a caller."""
    return f"{PARENT}/agents/agent-{number}"


def registration(number: int) -> bytes:
    """A caller's agent, under a lease that outlasts the benchmark."""
    made = registry.RegisterAgentRequest(parent=PARENT, agent_id=f"agent-{number}")
    made.ttl.FromSeconds(24 * 3600)
    return made.SerializeToString()
