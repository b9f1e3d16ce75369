"""The test stand: everything a run starts, and the order in which it comes up and goes down.

    load ──► Toxiproxy ──► target          the faulted path
    control probe ───────► target          the untouched path
    further processes ───► target          by whichever their commands say: each has a proxy of its own in Toxiproxy
    Prometheus scrapes load, target and further processes

Every start is journalled, so that another process can stop what is left if this one dies, and everything is stopped in
reverse order on every way out.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdfast.cli import InputError
from holdfast_chaos import bundle, ports, prometheus_server, tools
from holdfast_chaos.companions import Companion
from holdfast_chaos.experiment import SERVER, Resolved, Target
from holdfast_chaos.journal import Journal
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.reach import channel_to
from holdfast_chaos.toxiproxy import Toxiproxy
from holdfast_loadtests.access import Access
from holdfast_slo.prometheus import Prometheus

PROXY_NAME = "target"
"""The load's proxy; those of further processes are called as the process is."""

NEEDED = ("toxiproxy-server", "prometheus")
"""Tools that every run starts."""

STOP_TIMEOUT_S = 10.0


@dataclass
class Stand:
    """What is up, and where. Addresses are `host:port`; `processes` is what faults may aim at, by name.

    `own` are the run's own tools: whoever ends one of those spoils the measurement, and says nothing of the target.
    """

    target_address: str
    target_metrics: str | None
    proxy_address: str
    toxiproxy: Toxiproxy
    processes: dict[str, ManagedProcess] = field(default_factory=dict)
    own: Sequence[ManagedProcess] = ()
    versions: dict[str, str] = field(default_factory=dict)
    companion_metrics: dict[str, str] = field(default_factory=dict)
    """URLs of the further processes' metrics, by process."""
    paths: dict[str, str] = field(default_factory=dict)
    """Where each process that has a proxy of its own reaches the target, by process."""


def require(resolved: Resolved) -> None:
    """Makes sure, before anything is touched, that the programs a run needs are here and its target can be reached.

    Raises:
        InputError: a tool is missing, a command is no program, or nothing answers at the address.
    """
    experiment, target = resolved.experiment, resolved.experiment.target
    for name in NEEDED:
        tools.find(name)
    for name, entry in experiment.processes.items():
        if shutil.which(entry.command[0], path=_path()) is None:
            raise InputError(
                f"processes.{name}.command: {entry.command[0]!r} is no program on PATH.\nGive the path of one."
            )
    if target.address is not None:
        require_serving(target.address, resolved.access)
    elif target.command is not None and shutil.which(target.command[0], path=_path()) is None:
        raise InputError(
            f"target.command: {target.command[0]!r} is no program on PATH.\n"
            "Give the path of the service to start, or `target.address` for one that runs already."
        )


def _path() -> str:
    """PATH with this interpreter's folder first: `holdfast` is then found though its environment is not activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


class StandBuilder:
    """Brings the stand up piece by piece; `stack` takes it down."""

    def __init__(self, out: Path, journal: Journal, stack: ExitStack) -> None:
        self._out = out
        self._journal = journal
        self._stack = stack

    def build(self, resolved: Resolved) -> Stand:
        """Starts the target (where it is a command) and Toxiproxy in front of it.

        Raises:
            InputError: a tool has gone missing.
            ProcessError: a process did not become ready; the message holds the tail of its log.
        """
        found = {name: tools.find(name) for name in NEEDED}
        target = resolved.experiment.target
        addresses = self._addresses(target)
        processes = {}
        if target.command is not None:
            processes[SERVER] = self._start_target(target, addresses, resolved.access)
            target_address = addresses["grpc"]
        else:
            target_address = target.address or ""
        api_port, proxy_port = self._reserve(2)
        toxiproxy, proxy_process = self._start_toxiproxy(found["toxiproxy-server"].path, api_port)
        proxy_address = toxiproxy.create_proxy(PROXY_NAME, target_address, f"127.0.0.1:{proxy_port}")
        stand = Stand(
            target_address=target_address,
            target_metrics=target.filled(target.metrics, addresses) if target.metrics else None,
            proxy_address=proxy_address,
            toxiproxy=toxiproxy,
            processes=processes,
            own=(proxy_process,),
            versions={name: tool.version for name, tool in found.items()},
        )
        for name, entry in resolved.experiment.processes.items():
            self._start_companions(name, entry, stand, resolved.experiment.seed)
        return stand

    def _start_companions(self, name: str, entry: Companion, stand: Stand, seed: int) -> None:
        """Starts the processes of one entry, all at once."""
        started = {
            each: self._companion(each, index, entry, stand, seed) for index, each in enumerate(entry.names(name))
        }
        for process in started.values():
            self._adopt(process, entry.stop_within.total_seconds())
        stand.processes.update(started)
        ManagedProcess.start_together(list(started.values()))

    def _companion(self, name: str, index: int, entry: Companion, stand: Stand, seed: int) -> ManagedProcess:
        folders = {"data": self._out / bundle.TARGET_DATA, "history": self._out / bundle.HISTORY}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        given = {
            **{key: str(folder) for key, folder in folders.items()},
            **{
                each: f"127.0.0.1:{port}"
                for each, port in zip(entry.addresses, self._reserve(len(entry.addresses)), strict=True)
            },
            "index": str(index),
            "seed": str(seed),
            "target": stand.target_address,
        }
        if entry.is_proxied:
            (port,) = self._reserve(1)
            listen = f"127.0.0.1:{port}"
            given["proxy"] = stand.paths[name] = stand.toxiproxy.create_proxy(name, stand.target_address, listen)
        url = entry.filled(entry.metrics, given) if entry.metrics else None
        if url:
            stand.companion_metrics[name] = url
        return ManagedProcess(
            name,
            [entry.filled(part, given) for part in entry.command],
            log=self._out / bundle.LOGS / f"{name}.log",
            env={"PATH": _path()},
            ready=(lambda: exposes(url)) if url else None,
            timeout_s=entry.ready_within.total_seconds(),
            on_start=self._journal_start,
        )

    def start_prometheus(self, jobs: Mapping[str, str]) -> Prometheus:
        """Starts Prometheus on the jobs' URLs and waits until it answers."""
        (port,) = self._reserve(1)
        process, client = prometheus_server.start(self._out / bundle.PROMETHEUS, port, jobs, self._journal_start)
        self._adopt(process)
        return client

    def _adopt(self, process: ManagedProcess, stop_within_s: float = STOP_TIMEOUT_S) -> ManagedProcess:
        self._stack.callback(self._stop, process, stop_within_s)
        return process

    def _journal_start(self, process: ManagedProcess) -> None:
        """At each start, restarts by a fault included, before anything waits for the process."""
        self._journal.write("process_started", name=process.name, identity=process.identity, command=process.command)

    def _stop(self, process: ManagedProcess, within_s: float) -> None:
        if not process.lives:
            return
        process.stop(within_s)
        self._journal.write("process_stopped", name=process.name, identity=process.identity)

    def _reserve(self, count: int) -> Sequence[int]:
        reserved = ports.reserve(count)
        self._stack.callback(reserved.release)
        return reserved.ports

    def _addresses(self, target: Target) -> dict[str, str]:
        names = target.placeholders
        found = {name: f"127.0.0.1:{port}" for name, port in zip(names, self._reserve(len(names)), strict=True)}
        data = self._out / bundle.TARGET_DATA
        data.mkdir(parents=True, exist_ok=True)
        return {**found, "data": str(data)}

    def _start_target(self, target: Target, addresses: Mapping[str, str], access: Access) -> ManagedProcess:
        command = [target.filled(part, addresses) for part in target.command or []]
        process = ManagedProcess.start(
            SERVER,
            command,
            log=self._out / bundle.LOGS / "server.log",
            env={"PATH": _path()},
            ready=lambda: serves(addresses["grpc"], access),
            timeout_s=target.ready_within.total_seconds(),
            on_start=self._journal_start,
        )
        return self._adopt(process)

    def _start_toxiproxy(self, binary: Path, port: int) -> tuple[Toxiproxy, ManagedProcess]:
        client = Toxiproxy(f"127.0.0.1:{port}")
        process = ManagedProcess.start(
            "toxiproxy",
            [str(binary), "-host", "127.0.0.1", "-port", str(port)],
            log=self._out / bundle.LOGS / "toxiproxy.log",
            ready=client.ready,
            timeout_s=20.0,
            on_start=self._journal_start,
        )
        return client, self._adopt(process)


def require_serving(address: str, access: Access) -> None:
    """Makes sure that a gRPC server answers at an address.

    Raises:
        InputError: none does.
    """
    if not serves(address, access, timeout_s=3.0):
        raise InputError(
            f"target.address: nothing that speaks gRPC answers at {address} (or it says NOT_SERVING).\n"
            "Start the service first, or check the address; to have the run start it, use `target.command`."
        )


def serves(address: str, access: Access, timeout_s: float = 1.0) -> bool:
    """Whether a gRPC server answers there: SERVING, or reachable where it has no health service."""
    with channel_to(address, access) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types leave its methods out
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s, metadata=access.for_grpcio)
        except grpc.RpcError as error:
            return error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND}
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def exposes(url: str) -> bool:
    """Whether metrics can be read there: a process is ready once they can."""
    try:
        return requests.get(url, timeout=1.0).ok
    except requests.RequestException:
        return False
