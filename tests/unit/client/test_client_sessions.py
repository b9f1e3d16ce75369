"""Sessions, on a real server whose time the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from holdfast import client as public
from holdfast.client import Client, Session, SessionEndedError, SessionLostError
from holdfast.client.errors import AgentAlreadyExistsError, AgentNotFoundError, LeaseNotFoundError
from holdfast.registry.v1.agent_pb2 import Agent, AgentLiveness
from holdfast.testing import LocalServer, serve


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with serve() as server:
        yield server


async def test_an_agent_is_there_as_long_as_its_session(server: LocalServer) -> None:
    async with server.client() as client:
        async with client.session("a", capabilities=["review"], labels={"team": "core"}) as session:
            found = await client.agents.get("a")
            assert found == session.agent
            assert [each.id for each in found.capabilities] == ["review"]
            assert session.fence == found.fence
            assert found.lease == session.lease
        with pytest.raises(AgentNotFoundError):
            await client.agents.get("a")
        with pytest.raises(LeaseNotFoundError):
            await client.leases.get(session.lease)
        assert client.sessions == 0


async def test_sessions_are_kept_and_share_one_stream(server: LocalServer) -> None:
    """Time passes in pieces shorter than their TTL, many times over it."""
    async with server.client() as client, client.session("a", ttl_s=3) as one, client.session("b", ttl_s=6) as two:
        for _ in range(20):
            kept = one.proven_until_s, two.proven_until_s
            await server.advance(2.1)
            async with asyncio.timeout(20):
                while one.proven_until_s == kept[0] or two.proven_until_s == kept[1]:  # noqa: ASYNC110 - a clock
                    await asyncio.sleep(0.01)
        one.check()
        two.check()
        assert len(await connections(server)) <= 2, "one for calls, one for all keepalives"


async def connections(server: LocalServer) -> set[str]:
    """Connections of this process to the server."""
    import psutil

    port = int(server.target.rsplit(":", 1)[1])
    return {
        str(each.laddr)
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status == "ESTABLISHED"
    }


async def test_a_session_that_nobody_could_keep_is_lost_before_the_server_ends_it(server: LocalServer) -> None:
    """By the clock alone: the check finds it although nothing ran in between that could have told it."""
    async with server.client() as client, client.session("a", ttl_s=10, margin_s=2) as session:
        server.clock.now_s += 7.9
        session.check()
        server.clock.now_s += 0.2
        with pytest.raises(SessionLostError, match="no keepalive sent in the last 8 s"):
            _ = session.fence
        assert (await client.agents.get("a")).liveness == AgentLiveness.AGENT_LIVENESS_LIVE
        async with asyncio.timeout(20):
            await session.lost.wait()


async def test_guarded_work_is_cancelled_when_the_session_is_lost(server: LocalServer) -> None:
    async with server.client() as client, client.session(ttl_s=10) as session:
        asyncio.get_running_loop().call_later(0.05, move, server, 10.0)
        async with asyncio.timeout(20):
            with pytest.raises(SessionLostError):
                async with session.guard():
                    await asyncio.Event().wait()


def move(server: LocalServer, seconds: float) -> None:
    server.clock.now_s += seconds


async def test_a_lease_that_an_operator_revoked_is_lost_with_the_next_keepalive(server: LocalServer) -> None:
    async with server.client() as client, client.session(ttl_s=3) as session:
        await client.leases.revoke(session.lease)
        move(server, 1.1)
        async with asyncio.timeout(20):
            await session.lost.wait()
        with pytest.raises(SessionLostError, match="LEASE_NOT_FOUND"):
            session.check()


async def test_work_of_a_session_that_has_ended_is_refused_by_itself(server: LocalServer) -> None:
    async with server.client() as client:
        async with client.session("a") as session:
            pass
        with pytest.raises(SessionEndedError, match="begin another"):
            _ = session.fence


async def test_a_drained_agent_is_told_and_told_again_when_it_may_go_on(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", ttl_s=3) as session:
        await client.agents.drain("a")
        await kept_again(server, session)
        assert session.draining.is_set()
        await client.agents.uncordon("a")
        await kept_again(server, session)
        assert not session.draining.is_set()


async def kept_again(server: LocalServer, session: Session) -> None:
    """Lets a third of the TTL pass, and the keepalive that is due then be answered."""
    until_s = session.proven_until_s
    move(server, session.ttl_s / 3)
    async with asyncio.timeout(10):
        while session.proven_until_s == until_s:  # noqa: ASYNC110 - what the keeper's task does
            await asyncio.sleep(0.01)


async def test_an_agent_that_is_there_is_not_taken_over_unless_its_fence_is_known(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as first:
        with pytest.raises(AgentAlreadyExistsError):
            async with client.session("a"):
                pytest.fail("it was let in")
        assert [lease.name async for lease in client.leases.list()] == [first.lease], "the lease of the refused is gone"
        async with client.session("a", fence=first.fence) as second:
            assert second.fence > first.fence


@pytest.mark.parametrize(
    ("begin", "why"),
    [
        (lambda client: client.session(capabilities=["x"]), "name it with agent="),
        (lambda client: client.session(spec=Agent()), "name it with agent="),
        (lambda client: client.session(fence=3), "name it with agent="),
        (lambda client: client.session("a", capabilities=["x"], spec=Agent()), "leave the spec out"),
        (lambda client: client.session("a", ttl_s=10, margin_s=10), "less than the TTL"),
        (lambda client: client.session("a", margin_s=0.0), "above 0"),
        (lambda client: client.session("a", ttl_s=float("nan")), "ttl_s"),
        (lambda client: client.agents.register("a", Agent(lease="l"), ttl_s=3), "one of them"),
    ],
)
async def test_options_that_do_not_go_together_are_refused_before_anything_is_sent(
    server: LocalServer, begin: Callable[[Client], object], why: str
) -> None:
    async def attempt() -> None:
        entered = begin(client)
        if asyncio.iscoroutine(entered):
            await entered

    async with server.client() as client:
        with pytest.raises(ValueError, match=why):
            await attempt()
        assert [lease async for lease in client.leases.list()] == []


async def test_a_client_outside_its_block_says_so(server: LocalServer) -> None:
    with pytest.raises(RuntimeError, match="async with Client"):
        _ = server.client().agents
    async with server.client() as client:
        pass
    with pytest.raises(RuntimeError, match="async with Client"):
        _ = client.agents


def test_what_is_public_is_pinned() -> None:
    """A name that goes, or comes unnoticed, is a change for everybody who imports it."""
    assert sorted(public.__all__) == [
        "Activations",
        "Agents",
        "Assignments",
        "Breakers",
        "CallerError",
        "Changes",
        "Client",
        "Decisions",
        "Elections",
        "Handoffs",
        "HeldLeadership",
        "HeldLock",
        "HoldError",
        "HoldLostError",
        "HoldfastError",
        "Leases",
        "Locks",
        "NetworkError",
        "RetryPolicy",
        "ServerError",
        "Session",
        "SessionEndedError",
        "SessionLostError",
        "Snapshot",
        "StateError",
        "Timeouts",
        "UnexpectedAnswerError",
        "Work",
        "WorkFailedError",
    ]  # fmt: skip
    assert all(hasattr(public, name) for name in public.__all__)
