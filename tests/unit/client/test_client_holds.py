"""Locks and leaderships as blocks of work, on a real server whose time the test moves."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.client import Client, HoldLostError, Session, SessionEndedError, SessionLostError
from holdfast.client.errors import DisconnectedError, LockHeldError
from holdfast.client.locking import got
from holdfast.coordination.v1.lock_service_pb2 import LockState
from holdfast.testing import LocalServer, serve

FREE, HELD = LockState.LOCK_STATE_FREE, LockState.LOCK_STATE_HELD


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with serve() as server:
        yield server


async def state_of(client: Client, lock: str) -> "LockState.ValueType":
    return (await client.locks.get(lock)).state


async def test_a_lock_is_held_in_its_block_and_given_back_after_it(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as session:
        async with session.lock("deploy") as lock:
            found = await client.locks.get("deploy")
            assert (found.state, found.fence, found.holder) == (HELD, lock.fence, session.agent.name)
        assert await state_of(client, "deploy") == FREE
        with pytest.raises(SessionEndedError, match="take it again"):
            _ = lock.fence


async def test_a_block_that_fails_gives_the_lock_back_and_its_error_on(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as session:
        with pytest.raises(KeyError, match="mine"):
            async with session.lock("deploy"):
                raise KeyError("mine")
        assert await state_of(client, "deploy") == FREE


async def test_others_wait_in_line_or_are_refused_and_fences_grow(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as one, client.session("b") as two:
        async with one.lock("deploy") as first:
            with pytest.raises(LockHeldError):
                async with two.lock("deploy"):
                    pytest.fail("both hold it")
            waiting = asyncio.create_task(fence_once(two, "deploy", 60))
            await in_line(client, "deploy")
            old = first.fence
        assert await waiting > old


async def fence_once(session: Session, lock: str, wait_s: float) -> int:
    async with session.lock(lock, wait_s=wait_s) as held:
        return held.fence


async def in_line(client: Client, lock: str) -> None:
    async with asyncio.timeout(10):
        while not (await client.locks.get(lock)).waiters:  # noqa: ASYNC110 - the server's state
            await asyncio.sleep(0.01)


async def test_who_stops_waiting_leaves_the_line_and_holds_nothing(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as one, client.session("b") as two:
        async with one.lock("deploy"):
            waiting = asyncio.create_task(fence_once(two, "deploy", 60))
            await in_line(client, "deploy")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await state_of(client, "deploy") == FREE


async def test_the_body_is_cancelled_when_the_session_is_lost(server: LocalServer) -> None:
    """Before the server gives the lock away: it is held by the old fence when the body has ended."""
    async with server.client() as client, client.session("a", ttl_s=10) as session:

        async def work() -> None:
            async with session.lock("deploy") as lock:
                server.clock.now_s += 9.5
                with pytest.raises(SessionLostError):
                    _ = lock.fence
                await asyncio.wait_for(asyncio.Event().wait(), 10)

        with pytest.raises(SessionLostError):
            await work()


async def test_a_lock_that_an_operator_took_away_ends_its_body_alone(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", ttl_s=1) as session:

        async def work() -> None:
            async with session.lock("deploy"), session.lock("other"):
                await client.locks.force_release("deploy", "stuck")
                await asyncio.wait_for(asyncio.Event().wait(), 10)

        with pytest.raises(HoldLostError, match="taken away"):
            await work()
        session.check()
        assert await state_of(client, "other") == FREE


async def test_work_done_on_a_lock_that_was_gone_does_not_pass_for_done(server: LocalServer) -> None:
    """The body ended before anybody noticed: giving it back finds out."""
    async with server.client() as client, client.session("a") as session:
        with pytest.raises(HoldLostError, match="not held any more"):
            async with session.lock("deploy"):
                await client.locks.force_release("deploy")


async def test_two_tasks_of_one_session_do_not_both_hold_it(server: LocalServer) -> None:
    """The server gives a lock to a session, which both are."""
    async with server.client() as client, client.session("a") as session, session.lock("deploy"):
        with pytest.raises(RuntimeError, match="a session for each"):
            async with session.lock("deploy"):
                pytest.fail("both hold it")


async def test_a_leader_leads_in_its_block_and_tells_what_it_likes(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as session:
        async with session.leader("chief", value=b"1.2.3.4") as leadership:
            found = await client.elections.get("chief")
            assert (found.leader, found.value) == (session.agent.name, b"1.2.3.4")
            assert found.fence == leadership.fence
            await leadership.proclaim(b"5.6.7.8")
            assert (await client.elections.get("chief")).value == b"5.6.7.8"
        assert (await client.elections.get("chief")).leader == ""


async def test_followers_see_leaders_come_speak_and_go(server: LocalServer) -> None:
    seen: list[tuple[str, bytes]] = []

    async def follow(client: Client) -> None:
        async for leadership in client.elections.observe("chief"):
            seen.append((leadership.leader, leadership.value))  # noqa: PERF401 - it never ends

    async with server.client() as client, client.session("a") as session:
        following = asyncio.create_task(follow(client))
        async with session.leader("chief", value=b"1.2.3.4") as leadership:
            assert (await client.elections.get("chief")).fence == leadership.fence
            await reached(seen, (session.agent.name, b"1.2.3.4"))
            await leadership.proclaim(b"5.6.7.8")
            await reached(seen, (session.agent.name, b"5.6.7.8"))
        async with asyncio.timeout(10):
            while seen[-1][0]:  # noqa: ASYNC110 - what another task sees
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def reached(seen: list[tuple[str, bytes]], what: tuple[str, bytes]) -> None:
    async with asyncio.timeout(10):
        while what not in seen:  # noqa: ASYNC110 - what another task sees
            await asyncio.sleep(0.01)


async def test_the_next_in_line_leads_when_the_leader_leaves(server: LocalServer) -> None:
    async with server.client() as client, client.session("a") as one, client.session("b") as two:
        async with one.leader("chief") as first:
            waiting = asyncio.create_task(led_once(two))
            old = first.fence
        assert await waiting > old


async def led_once(session: Session) -> int:
    async with session.leader("chief", wait_s=60) as leadership:
        return leadership.fence


@pytest.mark.parametrize("end", [DisconnectedError("m"), asyncio.CancelledError()])
async def test_what_was_got_although_the_answer_was_lost_is_given_back(server: LocalServer, end: BaseException) -> None:
    given_back: list[int] = []

    async def lost() -> int:
        raise end

    async def mine() -> int:
        return 5

    async def give_back(fence: int) -> None:
        given_back.append(fence)

    async with server.client() as client, client.session("a") as session:
        with pytest.raises(type(end)):
            await got(session, lost, mine, give_back)
    assert given_back == [5]
