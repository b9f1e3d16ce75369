"""A server that dies over and over in the middle of a workload, on one store, and the history of what clients saw."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from holdfast.failpoints import VARIABLE, Failpoint
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import RegisterAgentRequest
from holdfast.registry.v1.lease_service_pb2 import ListLeasesRequest
from support import history as histories
from support import quiet
from support.checkers import check, report
from support.evidence import Limits, Violation
from support.history import TAG, History, Ok
from support.recorder import Connection, Watcher
from support.server import ServerProcess, roll_back_unsynced, server_log
from support.workload import LONG_TTL_S, PARENT, SHORT_TTL_S, Workload

REACHED_TIMEOUT_S = 60.0
"""Longest wait for a server to come to the place where it is to die."""

CATCH_UP_TIMEOUT_S = 30.0
"""Longest wait for watchers to have seen the last write, and for short leases to end."""

WATCHED_ZONE = "a"
"""Label `zone` of the agents that one of the watchers asks for."""

LIMITS = Limits(grace_s=5.0, retain_revisions=20_000)
"""What is judged by. Leases end a second late at most on a machine of their own; here clients, servers and other tests
share few cores, a server that is not run for a while holds leases back, and that it serves is noted once it has been
for a moment. Servers keep as many revisions as they do by default, more than a run has.
"""

_TESTS = str(Path(__file__).parents[1])
"""Where servers with planted bugs are found."""


class CrashRun:
    """One store and its history.

    Args:
        folder: For the store, logs, and the history of a run with violations.
        seed: Fixes the workload and everything chosen here.
        bulk: Whether the store's log is filled, too; see Workload.
        program: What runs a server, after the interpreter.
        args: Further arguments of it.
        env: For the server, besides what the test has.
        limits: What it is judged by.
        undo: Folder of the undo logs, with the shim in `env`: what was not synced is then lost in each crash.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        bulk: bool = False,
        program: Sequence[str] = ("-m", "holdfast"),
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        limits: Limits = LIMITS,
        undo: Path | None = None,
    ) -> None:
        self.folder = folder
        self.limits = limits
        self.seed = seed
        self.rng = random.Random(seed)
        self.history = History(time.monotonic)
        self.cycles = 0
        self.undone = 0
        self.how_last = "nothing"
        """How the server died last."""
        self._program = program
        self._args = args
        self._env = {"PYTHONPATH": os.pathsep.join([_TESTS, os.environ.get("PYTHONPATH", "")]), **(env or {})}
        self._undo = undo
        self._workload = Workload(seed, bulk=bulk)
        self._watchers = [
            Watcher("watcher-all", PARENT),
            Watcher("watcher-restless", PARENT, restless=random.Random(f"{seed}/watcher")),
            Watcher("watcher-zone", PARENT, f'labels.zone = "{WATCHED_ZONE}"'),
        ]

    async def die_at(self, point: Failpoint, hits: int) -> None:
        """A server's life up to the given hit of a failpoint; fails if it is not reached."""
        said_before = self._times_reached(point)  # first: one that dies as it starts may have said it by then
        with self._serve({VARIABLE: f"{point.value}=kill@{hits}"}) as server:
            try:
                async with asyncio.timeout(REACHED_TIMEOUT_S):
                    await self._live(server)
            except TimeoutError:
                raise AssertionError(f"seed {self.seed}: {point.value}@{hits} was not reached") from None
            ended, said = server.process.returncode, self._times_reached(point) - said_before
        what = f"seed {self.seed}: {point.value}@{hits}: exit {ended}, said {said} times that it dies there"
        assert (ended, said) == (-signal.SIGKILL, 1), what
        self._is_dead(f"{point.value}@{hits}")

    async def die_after(self, seconds: float) -> None:
        """A server's life that ends after a while, wherever it then is."""
        with self._serve({}) as server:
            living = asyncio.create_task(self._live(server))
            await asyncio.sleep(seconds)
            assert server.process.poll() is None, f"seed {self.seed}: the server ended by itself: {server.log}"
            server.process.kill()
            async with asyncio.timeout(REACHED_TIMEOUT_S):
                await living
        self._is_dead(f"after {seconds:.3f} s")

    async def finish(self) -> list[Violation]:
        """A last life in peace: what is short-lived ends, watchers catch up, everything is read. Then the verdict."""
        with self._serve({}) as server:
            self.history.mark("server", "serving")
            async with Connection(self.history, server.grpc) as connection:
                watching = [asyncio.create_task(each.follow(connection)) for each in self._watchers]
                await self._come_to_rest(connection, watching)
                await connection.list_everyone("reader", PARENT)
                await quiet.rest(self.history, connection.call, PARENT)
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
        violations = check(self.history.events, self.limits)
        if violations:
            histories.save(self.history.events, self.folder / "history.jsonl")
        return violations

    @property
    def acknowledged(self) -> int:
        """Calls that succeeded."""
        return sum(isinstance(event, Ok) for event in self.history.events)

    def explain(self, violations: Sequence[Violation]) -> str:
        """What was violated, and how to judge again."""
        path = self.folder / "history.jsonl"
        again = f"scripts/soak --judge {path} --retained {self.limits.retain_revisions}"
        return f"seed {self.seed}: {report(violations)}\njudge again with: {again}"

    # A server's life.

    def _serve(self, env: Mapping[str, str]) -> ServerProcess:
        self.cycles += 1
        return ServerProcess(self.folder, *self._args, env={**self._env, **env}, program=self._program)

    def _times_reached(self, point: Failpoint) -> int:
        """How often this store's servers said that they die at a failpoint."""
        log = server_log(self.folder)
        said = log.read_text(errors="replace") if log.exists() else ""
        return said.count(f'"event": "failpoint_reached", "failpoint": "{point.value}"')

    async def _live(self, server: ServerProcess) -> None:
        """Everyone at work until the server is gone."""
        self.history.mark("server", "serving")
        async with Connection(self.history, server.grpc) as connection:
            watching = (watcher.follow(connection) for watcher in self._watchers)
            await asyncio.gather(self._workload.run(connection), *watching)
        await asyncio.to_thread(server.process.wait, REACHED_TIMEOUT_S)

    def _is_dead(self, how: str) -> None:
        self.how_last = how
        self.history.mark("server", "killed", how)
        if self._undo is not None:
            self.undone += roll_back_unsynced(self._undo, self.folder)
            for log in self._undo.iterdir():
                log.unlink()

    async def _come_to_rest(self, connection: Connection, watching: Sequence[asyncio.Task[None]]) -> None:
        """Waits until leases of the shortest TTL have ended, and watchers have seen a write that came after that."""
        async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
            while await _stands_any(connection, SHORT_TTL_S):  # noqa: ASYNC110 - the server is another process
                await asyncio.sleep(0.1)
            revision = await _write_last(connection)
            for watcher, task in zip(self._watchers, watching, strict=True):
                while (watcher.position or 0) < revision and not task.done():  # noqa: ASYNC110 - a poll of many is simpler
                    await asyncio.sleep(0.02)


def build_shim(name: str, folder: Path) -> Path:
    """Compiles a library that stands between a server and its disk."""
    source, library = Path(__file__).with_name(f"{name}.c"), folder / f"{name}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def discarding(
    folder: Path,
    seed: int,
    shim: Path,
    *,
    bulk: bool = False,
    program: Sequence[str] = ("-m", "holdfast"),
    env: Mapping[str, str] | None = None,
) -> CrashRun:
    """A run in which each crash loses what was not synced, as a power cut would at worst."""
    store, undo = folder / "store", folder / "undo"
    store.mkdir()
    undo.mkdir()
    with ServerProcess(store):  # makes the file, so that what is discarded is what clients wrote and not the schema
        pass
    shimmed = {"LD_PRELOAD": str(shim), "UNSYNCED_PREFIX": str(store.resolve() / "h.db"), "UNSYNCED_DIR": str(undo)}
    return CrashRun(store, seed, bulk=bulk, program=program, env={**shimmed, **(env or {})}, undo=undo)


async def _stands_any(connection: Connection, ttl_s: int) -> bool:
    """Whether a lease of this TTL stands."""
    request = ListLeasesRequest(parent=PARENT, filter=f"ttl = {ttl_s}s", page_size=1)
    while True:
        page = await connection.call("reader", "ListLeases", request)
        assert page is not None, "the leases could not be read"
        request.page_token = page.next_page_token
        if page.leases or not request.page_token:
            return bool(page.leases)


async def _write_last(connection: Connection) -> int:
    """A write that every watcher hears of; its revision."""
    agent = Agent(labels={TAG: "last", "zone": WATCHED_ZONE})
    ttl = Duration(seconds=LONG_TTL_S)
    request = RegisterAgentRequest(parent=PARENT, agent_id="last", agent=agent, ttl=ttl)
    response = await connection.call("reader", "RegisterAgent", request)
    assert response is not None, "the last write failed"
    return int(response.agent.revision)
