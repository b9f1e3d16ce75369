"""A real `holdfast serve` to test against, as a process or inside the test."""

import asyncio
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

from holdfast.registry.v1 import agent_registry_service_pb2_grpc, lease_service_pb2_grpc
from holdfast.serving.config import Address, ServerConfig, StoreSpec
from holdfast.serving.server import Server

PARENT = "namespaces/test"
AN_HOUR = Duration(seconds=3600)
"""TTL of agents that are to outlast a test on any machine; the default is half a minute."""


def wait_for(condition: Callable[[], object], reason: str, timeout_s: float = 20.0) -> None:
    """A bounded poll: fails with the reason when the condition does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {reason}"
        time.sleep(0.02)


def server_log(folder: Path) -> Path:
    """What every server with its files in `folder` has said, one after the other."""
    return folder / "server.log"


class ServerProcess:
    """`holdfast serve` on free ports, with its files in `folder`."""

    def __init__(
        self,
        folder: Path,
        *args: str,
        store: str = "",
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "holdfast"),
    ) -> None:
        self.folder = folder
        self.log = server_log(folder)
        self._ready = folder / "ready.json"
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, *program, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        command += ["--store", store or f"sqlite:{folder / 'h.db'}", "--ready-file", str(self._ready), *args]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        self.grpc = self.http = ""

    def __enter__(self) -> "ServerProcess":
        try:
            wait_for(lambda: self._ready.exists() or self.process.poll() is not None, "the server to serve")
            # One that dies at its first checkpoint may have served, and died, by now: whoever uses it will see.
            assert self._ready.exists(), f"the server ended: {self.log.read_text()}"
        except BaseException:
            self.kill()
            raise
        ready = json.loads(self._ready.read_text())
        assert ready["pid"] == self.process.pid
        self.grpc, self.http = ready["grpc"], ready["http"]
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


def run_serve(*args: str, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    """A `holdfast serve` that is expected to end by itself."""
    command = [sys.executable, "-m", "holdfast", "serve", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def roll_back_unsynced(undo_folder: Path, store_folder: Path) -> int:
    """Takes the store's files back to what was last synced; returns how many writes were undone.

    What a failed sync lost was written before what is in the other undo log of the file, and is undone after it.
    """
    undone = 0
    header = struct.Struct("=QQQ")
    for log in sorted(undo_folder.iterdir()):
        data, position, records = log.read_bytes(), 0, []
        while position + header.size <= len(data):
            offset, overwritten, size = header.unpack_from(data, position)
            position += header.size
            if position + overwritten > len(data):
                break  # cut short by the kill: its write never happened
            records.append((offset, data[position : position + overwritten], size))
            position += overwritten
        with (store_folder / log.name.removesuffix(".lost")).open("r+b") as file:
            for offset, before, size in reversed(records):
                file.seek(offset)
                file.write(before)
                file.truncate(size)
                undone += 1
    return undone


@dataclass
class InProcess:
    """A server in the test's own event loop, and stubs for it."""

    server: Server
    channel: grpc.aio.Channel
    http: str

    @property
    def agents(self) -> "agent_registry_service_pb2_grpc.AgentRegistryServiceAsyncStub":
        return agent_registry_service_pb2_grpc.AgentRegistryServiceStub(self.channel)

    @property
    def leases(self) -> "lease_service_pb2_grpc.LeaseServiceAsyncStub":
        return lease_service_pb2_grpc.LeaseServiceStub(self.channel)


@contextlib.asynccontextmanager
async def serve_in_process(
    folder: Path, store: str = "memory", retain_revisions: int = 1000
) -> AsyncIterator[InProcess]:
    """Runs a server until the block ends."""
    ready = folder / "ready.json"
    config = ServerConfig(
        listen=Address("127.0.0.1", 0),
        http=Address("127.0.0.1", 0),
        store=StoreSpec("memory") if store == "memory" else StoreSpec("sqlite", Path(store)),
        insecure=False,
        ready_file=ready,
        drain_timeout_s=2.0,
        retain_revisions=retain_revisions,
        log_level="error",
    )
    server, stop = Server(config), asyncio.Event()
    running = asyncio.create_task(server.run(stop))
    try:
        async with asyncio.timeout(20):
            while not ready.exists() and not running.done():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
        if running.done():
            running.result()
        addresses = json.loads(ready.read_text())
        async with grpc.aio.insecure_channel(
            addresses["grpc"], options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            yield InProcess(server, channel, addresses["http"])
    finally:
        stop.set()
        await running
