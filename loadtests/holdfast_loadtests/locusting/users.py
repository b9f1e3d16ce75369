"""User classes for locustfiles: `EngineUser` for a load written down, `GrpcUser` for users scripted in Python."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
from locust import User, constant, task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from holdfast.cli import InputError
from holdfast_loadtests.engine import LoadError
from holdfast_loadtests.locusting.calling import Order
from holdfast_loadtests.locusting.loads import Load, load_of
from holdfast_loadtests.locusting.replies import Reply
from holdfast_loadtests.locusting.targets import Place, place_of
from holdfast_loadtests.locusting.wiring import station_of

if TYPE_CHECKING:
    from locust.env import Environment

    from holdfast_loadtests.locusting.station import Station

__all__ = ["EngineUser", "GrpcUser", "Reply"]

PAUSE_S = 3_600.0
LOOK_EVERY_S = 0.5


class TargetUser(User):
    """What both kinds say about their target.

    `host` is `HOST:PORT`, or `grpcs://HOST:PORT` for TLS. `ca`, `cert` and `key` are PEM files, `protoset` a file with
    a serialised FileDescriptorSet for targets without reflection; relative paths begin at the locustfile's folder.
    `authority` is what the server is to be called, `metadata` goes with every call, values of `-bin` names in base64.
    """

    abstract = True
    ca: ClassVar[str] = ""
    cert: ClassVar[str] = ""
    key: ClassVar[str] = ""
    protoset: ClassVar[str] = ""
    authority: ClassVar[str] = ""
    metadata: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def folder(cls) -> Path:
        """Where relative paths begin."""
        return Path(inspect.getfile(cls)).parent

    @classmethod
    def file(cls, name: str) -> str:
        """The full path of a file; `""` for none."""
        return str(cls.folder() / name) if name else ""

    @classmethod
    def _place(cls, host: str | None) -> Place:
        return place_of(host, cls.file(cls.ca), cls.file(cls.cert), cls.file(cls.key), cls.authority, cls.metadata)

    @classmethod
    def _descriptors(cls) -> bytes:
        try:
            return Path(cls.file(cls.protoset)).read_bytes() if cls.protoset else b""
        except OSError as error:
            raise InputError(f"protoset {cls.protoset!r}: cannot read this file: {error.strerror}") from error


class EngineUser(TargetUser):
    """A load as in an experiment's `load:`, made by the engine.

    Without `arrivals` (closed model) each Locust user is one of the engine's, that calls as soon as it was answered.
    With them (open model) calls fall due at the rates of the load, all workers together, and the number of Locust users
    means nothing.

    `load` is the mapping itself or the path of a YAML file with it, `tables` names CSV or JSONL files.
    """

    abstract = True
    load: ClassVar[Mapping[str, Any] | str] = {}
    tables: ClassVar[Mapping[str, str]] = {}
    wait_time = constant(PAUSE_S)

    @classmethod
    def read_load(cls) -> Load:
        """The load and its tables.

        Raises:
            InputError: it is none, or a table cannot be read.
        """
        return load_of(cls.load, cls.tables, cls.folder())

    @classmethod
    def length_s(cls) -> float | None:
        """How long the load's arrivals last; None where they go on until Locust ends the test."""
        try:
            return cls.read_load().spec.length_s
        except InputError:
            return None  # the workers say what is wrong with it

    @classmethod
    def prepare(cls, station: "Station", host: str | None) -> None:
        """Starts the engine for a test.

        Raises:
            InputError: load, tables, host or files are wrong, or the target does not know the load's methods.
            LoadError: the engine did not start.
        """
        station.prepare_load(cls.read_load(), cls._place(host), cls._descriptors())

    def on_start(self) -> None:
        """One more user for the engine."""
        self._add(1)

    def on_stop(self) -> None:
        """One fewer."""
        self._add(-1)

    def _add(self, users: int) -> None:
        if (station := station_of(self.environment)) is not None:
            station.add_users(users)

    @task
    def is_with_the_engine(self) -> None:
        """Nothing: the engine makes the calls."""


class GrpcUser(TargetUser):
    """A user scripted in Python; its calls are made, and timed, by a process beside the Locust worker.

    `deadline_s` is each call's unless it says otherwise; the users of a worker share `connections` TCP connections.
    With `compression = "gzip"` requests are compressed.
    """

    abstract = True
    deadline_s: ClassVar[float] = 20.0
    connections: ClassVar[int] = 1
    compression: ClassVar[str] = ""

    _numbers: ClassVar["itertools.count[int]"] = itertools.count()

    def __init__(self, environment: "Environment") -> None:
        super().__init__(environment)
        self._number = next(self._numbers)

    @classmethod
    def prepare(cls, station: "Station", host: str | None) -> None:
        """Starts the process of this class's calls.

        Raises:
            InputError: host, files or compression are wrong, or the target has no usable reflection.
            LoadError: it did not start.
        """
        if cls.compression not in ("", "gzip"):
            raise InputError(f'compression {cls.compression!r} of {cls.__name__}: expected "gzip", or "" for none')
        compressed = cls.compression == "gzip"
        station.prepare_calls(cls, cls._place(host), cls.connections, cls._descriptors(), compressed)

    def call(
        self,
        call: str,
        request: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
        *,
        name: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        receive: int | None = None,
        catch_response: bool = False,
        context: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Makes a call and waits for its answer; any code but OK counts as a failure and is not raised.

        At a worker that joined while the test runs it waits until its user is stopped.

        Args:
            call: `package.Service/Method`.
            request: the message as JSON has it; a list of them where the method takes a stream.
            name: what it is counted under; `call` where empty.
            deadline_s: in seconds; the class's where None.
            metadata: sent beside the class's.
            receive: of a stream of answers, end as OK after so many; the reply holds the last one.
            catch_response: use the reply in a `with` block and judge it there by `success()` and `failure()`.
            context: goes with Locust's request event.

        Raises:
            InputError: there is no such method, or the message is none that it takes.
            LoadError: the process that makes the calls is gone.
        """
        while (station := station_of(self.environment)) is None:
            if self._state == LOCUST_STATE_STOPPING:
                raise StopUser
            gevent.sleep(LOOK_EVERY_S)
        if not station.has_calls(type(self)):
            self.prepare(station, self.environment.host or self.host)
        bodies = [request] if isinstance(request, Mapping) else list(request) or [{}]
        wait_s = self.deadline_s if deadline_s is None else deadline_s
        order = Order(call, bodies, wait_s, receive, tuple((metadata or {}).items()))
        try:
            told, late_s = station.call(type(self), self._number, order)
        except LoadError as error:
            station.problem = station.problem or f"lost the process of its calls: {error}"
            raise
        counted = {"request_type": "grpc", "name": name or call, "context": {**self.context(), **(context or {})}}
        reply = Reply(told, late_s, counted, station, self.environment.events.request, catch_response)
        if not catch_response:
            reply.report()
        return reply
