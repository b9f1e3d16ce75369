"""The server's life: listen, open the store, serve, drain, end."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from holdfast import __version__
from holdfast.admin.v1 import quota_service_pb2
from holdfast.cli import InputError
from holdfast.coordination.v1 import (
    activation_service_pb2,
    decision_service_pb2,
    election_service_pb2,
    handoff_service_pb2,
    lock_service_pb2,
)
from holdfast.core.activations.breaker import Policy as BreakerPolicy
from holdfast.registry.v1 import agent_registry_service_pb2, lease_service_pb2
from holdfast.service.activations import ActivationHandlers
from holdfast.service.agents import AgentRegistry
from holdfast.service.decisions import DecisionHandlers
from holdfast.service.dispatcher import Dispatcher
from holdfast.service.drainer import Drainer
from holdfast.service.elections import ElectionHandlers
from holdfast.service.handoffs import HandoffHandlers
from holdfast.service.janitor import Janitor
from holdfast.service.leases import LeaseHandlers
from holdfast.service.locks import LockHandlers
from holdfast.service.quotas import QuotaHandlers
from holdfast.service.registry import Registry
from holdfast.service.transport import UPLOAD_BYTES_MAX, Gate, Transport
from holdfast.serving import collector
from holdfast.serving.config import Address, ServerConfig, StoreSpec
from holdfast.serving.health import Health
from holdfast.serving.http import HttpServer, Probes
from holdfast.serving.metrics import Metrics
from holdfast.serving.reflection import Reflection
from holdfast.store.batching import BatchingStore
from holdfast.store.interface import StoreFileError
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import SqliteStore

DRAIN_NOTICE_S = 0.1
"""Between NOT_SERVING and the end of streams, so that those who watch the health service hear of it."""

STORE_PROBE_EVERY_S = 1.0
"""How often a store that refuses writes is asked whether it still does."""

EXIT_STORE_FAILED = 74
"""Exit code when nobody knows what of a write is durable: EX_IOERR of sysexits.h. A new process finds out."""

GARBAGE_BEFORE_COLLECTION = 50_000
"""Objects made and not yet freed before the cycle collector looks at them, instead of Python's 700: some 5 MB."""

CALLS_MAX = 20_000
"""Most calls under way, streams included; gRPC answers RESOURCE_EXHAUSTED beyond."""

STREAMS_MAX = 6_000
"""Most calls under way on one connection: the watches one host may have, and a thousand more. A client's library holds
further ones back.
"""

REGISTRY_SERVICE = agent_registry_service_pb2.DESCRIPTOR.services_by_name["AgentRegistryService"]
LEASE_SERVICE = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]
DECISION_SERVICE = decision_service_pb2.DESCRIPTOR.services_by_name["DecisionService"]
ACTIVATION_SERVICE = activation_service_pb2.DESCRIPTOR.services_by_name["ActivationService"]
LOCK_SERVICE = lock_service_pb2.DESCRIPTOR.services_by_name["LockService"]
ELECTION_SERVICE = election_service_pb2.DESCRIPTOR.services_by_name["ElectionService"]
HANDOFF_SERVICE = handoff_service_pb2.DESCRIPTOR.services_by_name["HandoffService"]
QUOTA_SERVICE = quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"]
HEALTH_SERVICE: ServiceDescriptor = cast("Any", health_pb2.DESCRIPTOR).services_by_name["Health"]
REFLECTION_SERVICE: ServiceDescriptor = cast("Any", reflection_pb2.DESCRIPTOR).services_by_name["ServerReflection"]
OURS = (
    REGISTRY_SERVICE,
    LEASE_SERVICE,
    DECISION_SERVICE,
    LOCK_SERVICE,
    ELECTION_SERVICE,
    ACTIVATION_SERVICE,
    HANDOFF_SERVICE,
    QUOTA_SERVICE,
)
SERVICES = [each.full_name for each in (*OURS, HEALTH_SERVICE, REFLECTION_SERVICE)]

GRPC_OPTIONS = [
    # gRPC's own 1 000 and 3 000 would end the rest of a burst with CANCELLED, which looks like the caller's doing.
    ("grpc.server.max_pending_requests", CALLS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", CALLS_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.max_receive_message_length", UPLOAD_BYTES_MAX),
    ("grpc.keepalive_time_ms", 30_000),  # what a peer that is gone holds is let go within a minute
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.so_reuseport", 0),  # on by default, it would let two servers share a port and hide that it is taken
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients that keep quiet streams alive are welcome
    ("grpc.keepalive_permit_without_calls", 1),
]

log = structlog.get_logger()


async def run(config: ServerConfig) -> None:
    """Runs a server until SIGTERM or SIGINT; ends the process with `EXIT_STORE_FAILED` if the store failed.

    Raises:
        InputError: An address is taken, or the store cannot be used; nothing was changed.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    collector.pause()
    server = Server(config, built=_spare_the_collector)
    try:
        await server.run(stop)
    finally:
        server.exit_if_store_failed()


class Server:
    """One server and what belongs to it.

    Args:
        config: What it serves.
        built: Called once the state has been taken in.
        clock: A monotonic clock, in seconds.
        wall_clock: Unix time, in seconds.

    Attributes:
        serving: Set once it serves.
        address: Where gRPC listens, from then on.
    """

    def __init__(
        self,
        config: ServerConfig,
        built: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.serving = asyncio.Event()
        self.address = config.listen
        self._config = config
        self._built = built
        self._metrics = Metrics()
        self._gate = Gate()
        self._store = _new_store(config.store, self._metrics)
        self._registry = Registry(self._store, clock, wall_clock, breaker_policy=BreakerPolicy(config.breaker_failures))
        self._health = Health([each.full_name for each in OURS])
        self._started_s = time.monotonic()
        self._phase = "starting"
        self._metrics.observe_registry(self._registry)
        self._store.on_refusing = self._store_is_refusing

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set or a part of the server fails.

        Raises:
            InputError: An address is taken, or the store cannot be used; nothing was changed.
        """
        with _http(self._config.http, self._probes()) as http:
            grpc_server, grpc_address = self._bind()
            await grpc_server.start()
            http.start()
            tasks: set[asyncio.Task[Any]] = set()
            try:
                await self._open_store()
                tasks = await self._start(stop)
                self._built()
                if not stop.is_set():
                    http_address = Address(self._config.http.host, http.port)
                    self._begin_serving(grpc_address, http_address)
                    await asyncio.wait(
                        {*tasks, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED
                    )
            finally:
                await self._drain(grpc_server)
                await self._end(tasks)

    def _bind(self) -> tuple[grpc.aio.Server, Address]:
        server = grpc.aio.server(options=GRPC_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)
        transport = Transport(self._gate, self._metrics.observer_for)
        handlers = (
            transport.service(REGISTRY_SERVICE, AgentRegistry(self._registry)),
            transport.service(LEASE_SERVICE, LeaseHandlers(self._registry)),
            transport.service(DECISION_SERVICE, DecisionHandlers(self._registry)),
            transport.service(LOCK_SERVICE, LockHandlers(self._registry)),
            transport.service(ELECTION_SERVICE, ElectionHandlers(self._registry)),
            transport.service(ACTIVATION_SERVICE, ActivationHandlers(self._registry)),
            transport.service(HANDOFF_SERVICE, HandoffHandlers(self._registry)),
            transport.service(QUOTA_SERVICE, QuotaHandlers(self._registry)),
            transport.service(HEALTH_SERVICE, self._health, gated=False),
            transport.service(REFLECTION_SERVICE, Reflection(SERVICES), gated=False),
        )
        server.add_generic_rpc_handlers(handlers)
        address = self._config.listen
        try:
            port = server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise _cannot_listen("--listen", address) from error
        return server, Address(address.host, port)

    async def _open_store(self) -> None:
        try:
            await self._store.open()
        except StoreFileError as error:
            raise InputError(f"--store: {error}") from error

    async def _start(self, stop: asyncio.Event) -> set[asyncio.Task[Any]]:
        """Builds the view, then starts what works in the background."""
        following = _task(self._registry.follow_store(), "view")
        ready = asyncio.create_task(self._registry.view.is_ready.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({following, ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (ready, stopped):
            waiting.cancel()
        if following.done():
            try:
                following.result()
            except StoreFileError as error:
                raise InputError(f"--store: {error}") from error
        replicas = self._registry.replicas
        sharing = {_task(replicas.run(), "replicas")} if replicas is not None else set[asyncio.Task[Any]]()
        janitor = Janitor(self._registry, self._config.retain_revisions, self._metrics.answers_forgotten_early.inc)
        return sharing | {
            following,
            _task(self._registry.start_keeping(), "lease keeper"),
            _task(janitor.run(), "janitor"),
            _task(self._registry.deadlines.run(), "deadlines"),
            _task(Dispatcher(self._registry).run(), "dispatcher"),
            _task(Drainer(self._registry).run(), "drainer"),
            _task(self._store.broken(), "store"),
            _task(self._probe_store(), "store probe"),
        }

    async def _probe_store(self) -> None:
        """While writes are refused no client sends one, since the server says that it does not serve."""
        while True:
            await asyncio.sleep(STORE_PROBE_EVERY_S)
            if self._store.is_refusing:
                await self._store.probe()

    def _store_is_refusing(self, is_refusing: bool) -> None:
        log.log(
            logging.ERROR if is_refusing else logging.INFO,
            "store_refuses_writes" if is_refusing else "store_takes_writes_again",
        )
        if self._phase == "serving":
            self._health.set_serving(not is_refusing)
            self._metrics.ready.set(int(not is_refusing))

    def _begin_serving(self, grpc_address: Address, http_address: Address) -> None:
        self._phase = "serving"
        self._registry.view.activations.on_changed = self._metrics.activations.changed
        self._registry.view.decisions.on_ended = self._metrics.decisions.observe  # not of those met at start
        self._registry.view.holds.on_lost = self._metrics.holds.lost
        self._gate.open()
        self._health.set_serving(True)
        self._metrics.ready.set(1)
        log.info(
            "serving",
            grpc=str(grpc_address),
            http=str(http_address),
            store=str(self._config.store.path or self._config.store.engine),
            revision=self._store.revision,
            startup_s=round(time.monotonic() - self._started_s, 3),
        )
        if self._config.ready_file is not None:
            _write_ready_file(self._config.ready_file, grpc_address, http_address)
        self.address = grpc_address
        self.serving.set()

    async def look(self) -> None:
        """Acts on what is due by its clock, and waits until it is done, where somebody else moves that clock."""
        self._registry.keeper.look()
        await self._registry.deadlines.look()
        await self._registry.keeper.settled()
        await self._registry.view.reached(self._store.revision)

    async def _drain(self, server: grpc.aio.Server) -> None:
        """NOT_SERVING first, then no new calls, then streams end, then calls under way finish within the time given."""
        was_serving, self._phase = self._phase == "serving", "draining"
        timeout_s = self._config.drain_timeout_s if was_serving and self._store.failure is None else 0
        self._health.set_serving(False)
        self._metrics.ready.set(0)
        if was_serving:
            log.info("draining", timeout_s=timeout_s)
            if self._config.ready_file is not None:
                self._config.ready_file.unlink(missing_ok=True)
            await asyncio.sleep(DRAIN_NOTICE_S)
        self._gate.drain()
        self._registry.holding.lines.close()
        await server.stop(timeout_s)

    async def _end(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Ends the background and closes the store; a part that failed by itself ends the server with its error."""
        failed = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()
        for task in failed:
            log.error("part_failed", part=task.get_name(), error=repr(task.exception()))
            task.result()
        log.info("stopped", revision=self._store.revision)

    def exit_if_store_failed(self) -> None:
        """Ends the process on the spot, since its ordinary end would close the file, and closing writes to it."""
        if self._store.failure is not None:
            log.critical("store_failed", error=str(self._store.failure), exit_code=EXIT_STORE_FAILED)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_STORE_FAILED)

    def _probes(self) -> Probes:
        return Probes(self._is_ready, self._details, self._metrics.registry)

    def _is_ready(self) -> bool:
        return self._phase == "serving" and not self._store.is_refusing and self._store.failure is None

    def _details(self) -> dict[str, Any]:
        view, store = self._registry.view, self._store
        return {
            "version": __version__,
            "phase": self._phase,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "components": {
                "service": "ok" if self._phase == "serving" else self._phase,
                "store": _store_state(store),
                "view": "ok" if view.is_ready.is_set() else "building",
            },
            "store": {
                "engine": self._config.store.engine,
                "epoch": store.epoch,
                "revision": store.revision,
                "compact_revision": store.compact_revision,
            },
            "view_revision": view.revision,
            "agents": {"live": view.live_count, "expired": view.expired_count},
            "leases": view.leases.standing_count,
            "watchers": self._registry.audience.count,
        }


def _store_state(store: BatchingStore) -> str:
    if store.failure is not None:
        return "failed"
    return "refuses writes" if store.is_refusing else "ok"


def _spare_the_collector() -> None:
    """Keeps Python's cycle collector off what was built at start, and lets garbage gather before it looks again.

    It finds cycles only, of which serving makes few, and looks at everything that is alive for it: with 100 000 agents
    that is a pause of a second.
    """
    collector.resume()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_BEFORE_COLLECTION, 20, 100)


def _new_store(spec: StoreSpec, metrics: Metrics) -> BatchingStore:
    if spec.path is not None:
        return SqliteStore(spec.path, metrics.observe_batch)
    return MemoryStore(metrics.observe_batch)


@contextmanager
def _http(address: Address, probes: Probes) -> Iterator[HttpServer]:
    try:
        server = HttpServer((address.host, address.port), probes, asyncio.get_running_loop())
    except OSError as error:
        raise _cannot_listen("--http", address, error.strerror) from error
    try:
        yield server
    finally:
        server.stop()


def _cannot_listen(flag: str, address: Address, why: str | None = None) -> InputError:
    return InputError(
        f"{flag} {address}: cannot listen there: {why or 'the port is taken, or the address is not of this machine'}.\n"
        f"Stop what uses it, pick another port, or let the system pick one with {flag} {Address(address.host, 0)}."
    )


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


def _write_ready_file(path: Path, grpc_address: Address, http_address: Address) -> None:
    """Whole or not at all: who waits for the file never reads half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"grpc": str(grpc_address), "http": str(http_address), "pid": os.getpid()}
    draft.write_text(json.dumps(content) + "\n")
    draft.replace(path)
