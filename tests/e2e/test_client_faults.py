"""The client against a real server that is killed and stopped, and stopped itself."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.client import Changes, Client, Session, SessionLostError, Snapshot, Work
from holdfast.coordination.v1.activation_service_pb2 import Activation
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import Agent, AgentLiveness, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEvent
from support.server import ServerProcess, wait_for

TESTS = Path(__file__).parents[1]


def agent_id(agent: Agent) -> str:
    return agent.name.rsplit("/", 1)[1]


class Follower:
    """A watch, and what it told."""

    def __init__(self, client: Client) -> None:
        self.snapshots = 0
        self.seen: list[tuple[int, str]] = []
        self.changed = asyncio.Event()
        self._client = client

    async def run(self) -> None:
        async for step in self._client.agents.watch():
            self._take(step)
            self.changed.set()

    def _take(self, step: Snapshot[Agent] | Changes[AgentEvent]) -> None:
        match step:
            case Snapshot(revision, agents):
                self.snapshots += 1
                self.seen += [(revision, agent_id(agent)) for agent in agents]
            case Changes(revision, events):
                self.seen += [(revision, agent_id(event.agent)) for event in events]

    async def until(self, name: str) -> None:
        async with asyncio.timeout(30):
            while name not in {each for _, each in self.seen}:
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_sessions_and_watches_outlive_a_server_that_is_killed_or_stopped(tmp_path: Path, end: str) -> None:
    """Three times: no session is lost, no change is missed or told twice, and a call made meanwhile is made once."""
    with ServerProcess(tmp_path) as server:
        address = server.grpc
        async with Client(address) as client, client.session("steady", ttl_s=12) as session:
            follower = Follower(client)
            following = asyncio.create_task(follower.run())
            await follower.until("steady")
            for n in range(3):
                await client.agents.register(f"before-{n}", ttl_s=600)
                await asyncio.to_thread(getattr(server, end))
                meanwhile = asyncio.create_task(client.agents.register(f"meanwhile-{n}", ttl_s=600))
                server = await asyncio.to_thread(ServerProcess(tmp_path, "--listen", address).__enter__)
                agent = await meanwhile
                assert await client.agents.get(f"meanwhile-{n}") == agent
                await client.agents.register(f"after-{n}", ttl_s=600)
                await follower.until(f"after-{n}")
                session.check()
            expected = ["steady", *(f"{when}-{n}" for n in range(3) for when in ("before", "meanwhile", "after"))]
            assert [name for _, name in follower.seen] == expected
            assert [revision for revision, _ in follower.seen] == sorted({revision for revision, _ in follower.seen})
            assert follower.snapshots == 1
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        server.kill()


async def test_a_server_that_stands_still_past_the_ttl_costs_the_session(tmp_path: Path) -> None:
    """The client's own clock stops the work in time; when the server wakes it stays lost, and another begins."""
    with ServerProcess(tmp_path) as server:
        async with Client(server.grpc) as client, client.session("a", ttl_s=2) as session:
            began_s = time.monotonic()
            server.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(SessionLostError):
                    async with asyncio.timeout(10), session.guard():
                        await asyncio.Event().wait()
                assert time.monotonic() - began_s < 2.0
            finally:
                server.process.send_signal(signal.SIGCONT)
            with pytest.raises(SessionLostError):
                _ = session.fence
            async with client.session("b", ttl_s=2) as another:
                await client.agents.get("b")
                assert another.fence > 0


class Worker:
    """The child process, and the resource it writes to, which keeps the largest fence and refuses smaller ones."""

    def __init__(self, target: str, ttl_s: float, held: str) -> None:
        command = [sys.executable, "-m", "support.guarded_work", target, str(ttl_s), held]
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
        self.fence = 0
        self.refused = 0
        self.lines: list[str] = []

    def read(self) -> str:
        """Its next line, taken in as the resource would."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        self.lines.append(line)
        verb, _, value = line.partition(" ")
        if verb == "write":
            self.refused += int(value) < self.fence
            self.fence = max(self.fence, int(value))
        return line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def read_to_end(self) -> None:
        while self.read():
            pass


@pytest.mark.parametrize("held", ["session", "lock"])
async def test_a_process_that_stood_still_past_its_ttl_writes_nothing_when_it_wakes(tmp_path: Path, held: str) -> None:
    """Stopped with SIGSTOP while another takes its place; on waking it finds out before its next write."""
    with ServerProcess(tmp_path) as server:
        worker = Worker(server.grpc, 1.5, held)
        try:
            for _ in range(8):  # it has been kept alive beyond its first TTL
                worker.read()
            old = worker.fence
            assert old > 0
            worker.process.send_signal(signal.SIGSTOP)
            async with Client(server.grpc, namespace="test") as client:
                await expired(client, "worker")
                async with client.session("worker") as session, session.lock("it", wait_s=10) as lock:
                    successor = lock.fence if held == "lock" else session.fence
                    assert successor > old
                    worker.fence = successor
                    stopped_after = len(worker.lines)
                    worker.process.send_signal(signal.SIGCONT)
                    await asyncio.to_thread(worker.read_to_end)
                    assert worker.lines[stopped_after:] in (["refused by itself", "told", ""], ["told", ""])
                    assert worker.refused == 0
                    assert (await client.agents.get("worker")).fence == session.fence, "nothing was taken from it"
                    assert (await client.locks.get("it")).fence == lock.fence
            assert worker.process.wait(10) == 0
        finally:
            worker.end()


async def expired(client: Client, name: str) -> None:
    async with asyncio.timeout(20):
        while (await client.agents.get(name)).liveness != AgentLiveness.AGENT_LIVENESS_EXPIRED:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_who_waits_in_line_waits_on_over_a_server_that_is_killed(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        address = server.grpc
        async with Client(address) as client, client.session("a", ttl_s=20) as one, client.session("b") as two:
            async with one.lock("it") as first:
                waiting = asyncio.create_task(fence_once(two))
                await waited_for(client, "it")
                await asyncio.to_thread(server.kill)
                server = await asyncio.to_thread(ServerProcess(tmp_path, "--listen", address).__enter__)
                await waited_for(client, "it")
                assert first.fence == (await client.locks.get("it")).fence
                old = first.fence
            assert await waiting > old
        server.kill()


async def fence_once(session: Session) -> int:
    async with session.lock("it", wait_s=60) as lock:
        return lock.fence


async def waited_for(client: Client, lock: str) -> None:
    async with asyncio.timeout(20):
        while not (await client.locks.get(lock)).waiters:  # noqa: ASYNC110 - the server's state
            await asyncio.sleep(0.05)


async def test_work_goes_on_over_a_server_that_is_killed(tmp_path: Path) -> None:
    """All is done, and nothing by two tasks at once; what was told and not answered is read before it is told again."""
    running: set[str] = set()

    async def double(work: Work) -> bytes:
        assert work.name not in running
        running.add(work.name)
        try:
            await asyncio.sleep(0.1)
            return work.payload * 2
        finally:
            running.discard(work.name)

    with ServerProcess(tmp_path) as server:
        address = server.grpc
        spec = Agent(capabilities=[Capability(id="double")], max_concurrency=4)
        async with Client(address) as client, client.session("worker", spec=spec, ttl_s=15) as session:
            working = asyncio.create_task(session.work(double))
            selector = AgentSelector(all_of=["double"])
            created = []
            for n in range(24):
                activation = Activation(selector=selector, payload=str(n).encode())
                created.append((await client.activations.create(activation)).name)
                if n in (8, 16):
                    await asyncio.to_thread(server.kill)
                    server = await asyncio.to_thread(ServerProcess(tmp_path, "--listen", address).__enter__)
            async with asyncio.timeout(60):
                ended = [await client.activations.ended(name) for name in created]
            assert [each.result for each in ended] == [str(n).encode() * 2 for n in range(24)]
            assert not working.done()
            session.check()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        server.kill()


async def test_a_client_that_ends_with_its_server_gone_does_not_hang(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        async with asyncio.timeout(15):
            async with Client(server.grpc) as client, client.session("a"):
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(wait_for, lambda: server.process.poll() is not None, "its end")
