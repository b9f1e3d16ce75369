"""A small stage for faults: a gRPC server, Toxiproxy in front of it, and callers that keep a record."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from holdfast_chaos import ports, tools
from holdfast_chaos.faults import FaultContext
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.toxiproxy import Toxiproxy
from holdfast_loadtests.codes import error_class

SERVER = Path(__file__).with_name("health_server.py")
HARNESS = Path(__file__).with_name("doomed_harness.py")
PROXY = "target"
CHECK = "/grpc.health.v1.Health/Check"


def wait_for(condition: Callable[[], object], reason: str, timeout_s: float = 15.0) -> None:
    """A bounded poll: fails with the reason when the condition does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {reason}")
        time.sleep(0.02)


@dataclass(frozen=True)
class SeenCall:
    """One call, as the load records it."""

    sent_s: float
    done_s: float
    method: str
    type: str
    code: str
    connection: int
    error_class: str


@dataclass
class Stage:
    """What is up."""

    address: str
    proxied: str
    toxiproxy: Toxiproxy
    server: ManagedProcess
    toxiproxy_process: ManagedProcess

    @property
    def context(self) -> FaultContext:
        return FaultContext(toxiproxy=self.toxiproxy, proxies=(PROXY,), processes={"server": self.server})


def options() -> list[tuple[str, int]]:
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]


def checker(channel: grpc.Channel) -> Callable[..., object]:
    return channel.unary_unary(
        CHECK,
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def answers(address: str) -> bool:
    with grpc.insecure_channel(address, options=options()) as channel:
        try:
            checker(channel)(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.RpcError:
            return False
        return True


def start_toxiproxy(folder: Path, port: int) -> tuple[ManagedProcess, Toxiproxy]:
    client = Toxiproxy(f"127.0.0.1:{port}")
    command = [str(tools.find("toxiproxy-server").path), "-host", "127.0.0.1", "-port", str(port)]
    process = ManagedProcess.start("toxiproxy", command, folder / "toxiproxy.log", ready=client.ready, timeout_s=20.0)
    return process, client


def start_server(folder: Path, port: int) -> ManagedProcess:
    return ManagedProcess.start(
        "server",
        [sys.executable, str(SERVER), str(port)],
        folder / "server.log",
        ready=lambda: answers(f"127.0.0.1:{port}"),
        timeout_s=30.0,
    )


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    reserved = ports.reserve(3)
    server_port, api_port, proxy_port = reserved.ports
    started: list[ManagedProcess] = []
    try:
        started.append(start_server(folder, server_port))
        process, client = start_toxiproxy(folder, api_port)
        started.append(process)
        proxied = client.create_proxy(PROXY, f"127.0.0.1:{server_port}", f"127.0.0.1:{proxy_port}")
        yield Stage(f"127.0.0.1:{server_port}", proxied, client, started[0], process)
    finally:
        for process in reversed(started):
            process.stop(2.0)
        reserved.release()


class Callers:
    """Calls an address from several connections, each in a thread, from construction until `stop`."""

    def __init__(self, address: str, connections: int = 6, interval_s: float = 0.02, timeout_s: float = 2.0) -> None:
        self._timeout_s = timeout_s
        self.calls: list[SeenCall] = []
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(address, number, interval_s)) for number in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[SeenCall]:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        return self.calls

    def _run(self, address: str, connection: int, interval_s: float) -> None:
        with grpc.insecure_channel(address, options=options()) as channel:
            check = checker(channel)
            while not self._stopped.wait(interval_s):
                sent_s = time.time()
                code, details = "OK", ""
                try:
                    check(health_pb2.HealthCheckRequest(), timeout=self._timeout_s)
                except grpc.RpcError as error:
                    code, details = error.code().name.title().replace("_", ""), error.details() or ""
                kind = error_class(code, details)
                self.calls.append(SeenCall(sent_s, time.time(), "Check", "unary", code, connection, kind))
