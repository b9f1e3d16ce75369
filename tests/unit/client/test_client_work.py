"""Agents' work by the client, on a real server whose time the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from holdfast.client import Client, HoldLostError, Session, SessionLostError, Work, WorkFailedError
from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.testing import LocalServer, serve

SPEC = Agent(capabilities=[Capability(id="build")], max_concurrency=2)


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with serve() as server:
        yield server


async def asked(client: Client, payload: bytes = b"it", timeout_s: int = 30, attempts: int = 3) -> pb.Activation:
    activation = pb.Activation(selector=AgentSelector(all_of=["build"]), payload=payload)
    activation.heartbeat_timeout.FromSeconds(timeout_s)
    activation.retry_policy.max_attempts = attempts
    return await client.activations.create(activation)


async def state_of(client: Client, name: str) -> str:
    return pb.ActivationState.Name((await client.activations.get(name)).state).removeprefix("ACTIVATION_STATE_")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what other tasks do
            await asyncio.sleep(0.01)


async def test_work_is_done_in_a_block_and_its_result_is_read(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", spec=SPEC) as session:
        created = await asked(client)
        async with session.activations() as assignments, await anext(assignments) as work:
            assert (work.payload, work.name) == (b"it", created.name)
            assert await state_of(client, created.name) == "RUNNING"
            assert (await client.activations.get(created.name)).fence == work.fence
            work.result = b"done"
        ended = await client.activations.ended(created.name)
        assert (ended.state, ended.result) == (pb.ACTIVATION_STATE_SUCCEEDED, b"done")


async def test_a_handler_does_all_that_comes_at_once_as_slots_allow(server: LocalServer) -> None:
    running: set[str] = set()
    most = 0

    async def build(work: Work) -> bytes:
        nonlocal most
        running.add(work.name)
        most = max(most, len(running))
        await asyncio.sleep(0.02)
        running.discard(work.name)
        return work.payload.upper()

    async with server.client() as client, client.session("a", spec=SPEC) as session:
        working = asyncio.create_task(session.work(build))
        created = [await asked(client, f"job {n}".encode()) for n in range(6)]
        ended = [await client.activations.ended(each.name) for each in created]
        assert [each.result for each in ended] == [f"JOB {n}".encode() for n in range(6)]
        assert most == 2
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_failure_is_told_with_its_words_and_passes_on(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", spec=SPEC) as session:
        created = await asked(client)

        async def fail_once() -> None:
            async with session.activations() as assignments, await anext(assignments):
                raise WorkFailedError("no such branch", reason="BAD_INPUT")

        with pytest.raises(WorkFailedError):
            await fail_once()
        ended = await client.activations.ended(created.name)
        assert ended.state == pb.ACTIVATION_STATE_FAILED
        assert (ended.failure.reason, ended.failure.message) == ("BAD_INPUT", "no such branch")


async def test_any_other_exception_is_tried_again(server: LocalServer) -> None:
    async def explode(_work: Work) -> bytes:
        raise KeyError("a defect")

    async with server.client() as client, client.session("a", spec=SPEC) as session:
        created = await asked(client, attempts=1)
        working = asyncio.create_task(session.work(explode))
        ended = await client.activations.ended(created.name)
        assert ended.state == pb.ACTIVATION_STATE_DEAD_LETTERED
        assert (ended.failure.reason, ended.failure.retryable) == ("KeyError", True)
        assert not working.done(), "one failure does not end the worker"
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def started(session: Session, block: Callable[[Work], object]) -> None:
    """Does one piece of work that never ends by itself."""
    async with session.activations() as assignments, await anext(assignments) as work:
        block(work)
        await asyncio.wait_for(asyncio.Event().wait(), 20)


async def test_work_that_is_cancelled_ends_its_block_and_tells_nothing(server: LocalServer) -> None:
    fences: list[int] = []
    async with server.client() as client, client.session("a", spec=SPEC) as session:
        created = await asked(client)
        working = asyncio.create_task(started(session, lambda work: fences.append(work.fence)))
        await until(lambda: fences)
        await client.activations.cancel(created.name, "not wanted")
        with pytest.raises(HoldLostError, match="taken back"):
            await working
        session.check()
        assert await state_of(client, created.name) == "CANCELLED"


async def test_heartbeats_keep_it_and_carry_progress(server: LocalServer) -> None:
    """Time passes in pieces shorter than its timeout, many times over it."""
    begun: list[Work] = []
    async with server.client() as client, client.session("a", spec=SPEC, ttl_s=3600) as session:
        created = await asked(client, timeout_s=9)
        working = asyncio.create_task(started(session, begun.append))
        await until(lambda: begun)
        for percent in (10, 20, 30, 40, 50, 60):
            begun[0].progress(percent, "compiling")
            await server.advance(4)
            async with asyncio.timeout(10):
                while (await client.activations.get(created.name)).progress.percent != percent:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        assert await state_of(client, created.name) == "RUNNING"
        begun[0].check()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_work_whose_heartbeats_went_unanswered_is_stopped_before_another_has_it(server: LocalServer) -> None:
    """By the clock alone, while the session stands."""
    begun: list[Work] = []
    async with server.client() as client, client.session("a", spec=SPEC, ttl_s=3600) as session:
        created = await asked(client, timeout_s=10)
        working = asyncio.create_task(started(session, begun.append))
        await until(lambda: begun)
        server.clock.now_s += 9.5
        with pytest.raises(HoldLostError, match="another may be at it"):
            _ = begun[0].fence
        assert await state_of(client, created.name) == "RUNNING"
        with pytest.raises(HoldLostError):
            await working
        session.check()


async def test_work_ends_with_its_session(server: LocalServer) -> None:
    begun: list[Work] = []
    async with server.client() as client, client.session("a", spec=SPEC, ttl_s=10) as session:
        await asked(client, timeout_s=600)
        working = asyncio.create_task(started(session, begun.append))
        await until(lambda: begun)
        server.clock.now_s += 9.5
        with pytest.raises(SessionLostError):
            await working


async def test_a_worker_that_stops_gives_its_work_back_at_once(server: LocalServer) -> None:
    begun: list[Work] = []
    async with server.client() as client, client.session("a", spec=SPEC) as session:
        created = await asked(client)
        working = asyncio.create_task(started(session, begun.append))
        await until(lambda: begun)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        found = await client.activations.get(created.name)
        assert found.failure.reason == "CancelledError"
        assert found.failure.retryable


async def test_what_is_declined_costs_no_attempt(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", spec=SPEC) as session:
        created = await asked(client)
        async with session.activations() as assignments:
            work = await anext(assignments)
            await work.decline("busy")
            assert await state_of(client, created.name) == "PENDING"
            assert (await client.activations.get(created.name)).attempt == 0


async def test_progress_that_is_none_is_refused(server: LocalServer) -> None:
    async with server.client() as client, client.session("a", spec=SPEC) as session:
        await asked(client)
        async with session.activations() as assignments, await anext(assignments) as work:
            with pytest.raises(ValueError, match="0 to 100"):
                work.progress(101)
