"""The client without asyncio is the same client."""

import asyncio
import inspect
import threading
from collections.abc import Iterator

import pytest

from holdfast import client as aio
from holdfast.client import SessionEndedError, SessionLostError, Snapshot, sync
from holdfast.client.background import BackgroundLoop
from holdfast.client.errors import AgentNotFoundError, LockHeldError
from holdfast.coordination.v1.activation_service_pb2 import Activation
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.testing import ThreadedServer, serve_in_thread

SERVICES = ["Agents", "Leases", "Activations", "Decisions", "Handoffs", "Locks", "Elections", "Breakers"]


@pytest.fixture
def server() -> Iterator[ThreadedServer]:
    with serve_in_thread() as server:
        yield server


@pytest.fixture
def client(server: ThreadedServer) -> Iterator[sync.Client]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize("service", SERVICES)
def test_every_call_has_its_counterpart_with_its_words(service: str) -> None:
    original, facade = getattr(aio, service), getattr(sync, service)
    calls = [
        name
        for name, member in vars(original).items()
        if not name.startswith("_") and name != "name" and inspect.isfunction(member)
    ]
    assert calls
    for name in calls:
        assert vars(facade)[name].__doc__ == getattr(original, name).__doc__, name


def test_calls_lists_and_watches(client: sync.Client) -> None:
    agent = client.agents.register("a")
    assert client.agents.get("a") == agent
    assert list(client.agents.list()) == [agent]
    steps = client.agents.watch()
    assert next(steps) == Snapshot(agent.revision, [agent])
    client.agents.register("b")
    assert [event.agent.name for event in next(steps).items] == ["namespaces/default/agents/b"]  # type: ignore[union-attr]
    steps.close()
    with pytest.raises(AgentNotFoundError):
        client.agents.get("c")


def test_sessions_and_locks_are_blocks(client: sync.Client) -> None:
    with client.session("a") as session:
        with session.lock("deploy") as lock:
            assert client.locks.get("deploy").fence == lock.fence
            with client.session("b") as other, pytest.raises(LockHeldError), other.lock("deploy"):
                pytest.fail("both hold it")
        with pytest.raises(SessionEndedError):
            _ = lock.fence
        with session.leader("chief", value=b"x") as leadership:
            leadership.proclaim(b"y")
            assert client.elections.get("chief").value == b"y"
    with pytest.raises(AgentNotFoundError):
        client.agents.get("a")


def test_an_error_of_a_block_passes_through_it_and_what_was_held_is_given_back(client: sync.Client) -> None:
    for error in (KeyError("mine"), KeyboardInterrupt(), StopIteration()):
        with pytest.raises(type(error)), client.session("a") as session, session.lock("deploy"):
            raise error
        assert client.locks.get("deploy").lease == ""


def test_work_is_done_in_threads_until_the_session_is_lost(server: ThreadedServer, client: sync.Client) -> None:
    threads: set[str] = set()

    def build(work: sync.Work) -> bytes:
        threads.add(threading.current_thread().name)
        work.progress(50)
        return work.payload.upper() if work.fence else b""

    spec = Agent(capabilities=[Capability(id="build")])
    with client.session("a", spec=spec, ttl_s=10) as session:
        created = client.activations.create(Activation(selector=AgentSelector(all_of=["build"]), payload=b"it"))
        results: list[bytes] = []

        def wait_and_lose() -> None:
            results.append(client.activations.ended(created.name).result)
            server.clock.now_s += 9.5

        waiting = threading.Thread(target=wait_and_lose)
        waiting.start()
        with pytest.raises(SessionLostError):
            session.work(build)
        waiting.join()
    assert results == [b"IT"]
    assert [name.partition("_")[0] for name in threads] == ["holdfast-work"]


def test_what_is_not_proven_is_refused_in_any_thread_and_at_the_end_of_the_block(
    server: ThreadedServer, client: sync.Client
) -> None:
    refused: list[str] = []

    def elsewhere(lock: sync.HeldLock) -> None:
        try:
            _ = lock.fence
        except SessionLostError as error:
            refused.append(error.reason)

    with client.session("a", ttl_s=10) as session:

        def work() -> None:
            with session.lock("deploy") as lock:
                server.clock.now_s += 9.5
                thread = threading.Thread(target=elsewhere, args=[lock])
                thread.start()
                thread.join()

        with pytest.raises(SessionLostError):
            work()
        assert not session.is_proven
    assert refused == ["SESSION_LOST"]


def test_two_threads_share_a_client(client: sync.Client) -> None:
    threads = [threading.Thread(target=client.agents.register, args=[f"a{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(client.agents.list())) == 8


def test_outside_its_block_it_says_so(server: ThreadedServer) -> None:
    with pytest.raises(RuntimeError, match="with Client"):
        sync.Client(server.target).agents.get("a")


def test_the_loop_does_not_wait_for_itself() -> None:
    async def nothing() -> None: ...

    async def inside(loop: BackgroundLoop) -> None:
        work = nothing()
        try:
            loop.run(work)
        finally:
            work.close()

    with BackgroundLoop() as loop, pytest.raises(RuntimeError, match="wait for itself"):
        loop.run(inside(loop))


def test_a_block_that_cannot_begin_says_why_and_leaves_nothing_running() -> None:
    with (
        pytest.raises(aio.NetworkError),
        sync.Client(
            "127.0.0.1:1", timeouts=aio.Timeouts(connect_s=0.1), retries=aio.RetryPolicy(attempts_max=1)
        ) as client,
        client.session("a"),
    ):
        pytest.fail("it began")
    assert not [thread for thread in threading.enumerate() if thread.name == "holdfast-client"]
    assert asyncio.run(asyncio.sleep(0)) is None
