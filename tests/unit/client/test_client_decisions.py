"""Decisions by the client, on a real server whose time the test moves."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.client import SessionLostError
from holdfast.client.errors import AlreadyVotedError, DecisionClosedError, DecisionNotFoundError
from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.testing import LocalServer, serve


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with serve() as server:
        yield server


def question(*electors: str) -> pb.Decision:
    return pb.Decision(
        question="roll back?",
        options=[pb.DecisionOption(id="yes"), pb.DecisionOption(id="no")],
        method=pb.DECISION_METHOD_CONSENSUS,
        electors=[pb.Elector(agent=f"namespaces/default/agents/{name}") for name in electors],
        fallback=pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_STATUS_QUO, option="no"),
    )


async def test_sessions_vote_and_whoever_waits_hears_of_the_end(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as a, client.session("b") as b:
        decision = await client.decisions.create(question("a", "b"))
        waiting = asyncio.create_task(client.decisions.ended(decision.name))
        await a.vote(decision.name, "yes", confidence=0.9, rationale="it burns")
        with pytest.raises(AlreadyVotedError):
            await a.vote(decision.name, "no")
        await b.vote(decision.name, "yes")
        assert (await waiting).outcome.option == "yes"
        assert (await client.decisions.ended(decision.name)).outcome.option == "yes"
        with pytest.raises(DecisionClosedError):
            await b.vote(decision.name, "no")
        assert [each.name async for each in client.decisions.list("state = DECIDED")] == [decision.name]


async def test_a_deadline_takes_the_fallback(server: LocalServer) -> None:
    async with server.client() as client:
        decision = await client.decisions.create(question("a", "b"))
        await server.advance(181)
        assert (await client.decisions.ended(decision.name)).outcome == pb.DecisionOutcome(
            option="no", by_fallback=True
        )


async def test_a_session_that_is_not_proven_does_not_vote(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", ttl_s=10) as session:
        decision = await client.decisions.create(question("a", "b"))
        server.clock.now_s += 9.5
        with pytest.raises(SessionLostError):
            await session.vote(decision.name, "yes")
        assert len((await client.decisions.get(decision.name)).votes) == 0


async def test_nobody_waits_for_what_is_not_there(server: LocalServer) -> None:
    async with server.client() as client:
        with pytest.raises(DecisionNotFoundError):
            await client.decisions.ended("nope")
