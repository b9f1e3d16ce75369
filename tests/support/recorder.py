"""Calls over gRPC to a server that may die at any moment, each written into a history."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from holdfast.coordination.v1.activation_service_pb2_grpc import ActivationServiceStub
from holdfast.coordination.v1.decision_service_pb2_grpc import DecisionServiceStub
from holdfast.coordination.v1.election_service_pb2_grpc import ElectionServiceStub
from holdfast.coordination.v1.handoff_service_pb2_grpc import HandoffServiceStub
from holdfast.coordination.v1.lock_service_pb2_grpc import LockServiceStub
from holdfast.errors import Reason
from holdfast.registry.v1.agent_registry_service_pb2 import ListAgentsRequest, WatchAgentsRequest
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveRequest
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub
from support.history import History

CALL_TIMEOUT_S = 30.0
"""Longest wait for an answer; what has none by then has an unknown outcome."""

MESSAGES_MAX = 60
"""Most messages after which a restless watcher leaves."""

REST_S_MAX = 0.2
"""Longest time it then stays away: long enough for something to happen."""

UNREACHED = "UNAVAILABLE"
"""Reason of a call that no server answered."""

EVERYONE = "liveness = AGENT_LIVENESS_LIVE OR liveness = AGENT_LIVENESS_EXPIRED"
"""Filter that leaves nobody out."""


COORDINATION = (ActivationServiceStub, DecisionServiceStub, HandoffServiceStub, LockServiceStub, ElectionServiceStub)
"""Services beside those of agents and leases."""


class Connection:
    """One server's life as its clients see it: a channel of its own, and the history that every call goes into."""

    def __init__(self, history: History, address: str) -> None:
        self.history = history
        self.is_lost = False
        # Another server may get the same port: its channel must not share anything with this one's.
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._agents: Any = AgentRegistryServiceStub(self._channel)
        self._leases: Any = LeaseServiceStub(self._channel)
        self._services: list[Any] = [self._agents, self._leases, *(stub(self._channel) for stub in COORDINATION)]

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def call(self, process: str, op: str, request: Message) -> Any:
        """A unary call; None if it failed."""
        stub = self._stub(op)
        call = self.history.invoke(process, op, request)
        try:
            response = await stub(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            reason = self._noted(error)
            self.history.failed(process, call, reason, is_definite=_is_definite(reason))
            return None
        self.history.ok(process, call, op, response)
        return response

    def stream(self, op: str, request: Message) -> AsyncIterator[Any]:
        """The messages of a call that streams; the history knows nothing of them."""
        return self._stub(op)(request)  # type: ignore[no-any-return]

    def _stub(self, op: str) -> Any:
        return next(found for service in self._services if (found := getattr(service, op, None)) is not None)

    @contextlib.asynccontextmanager
    async def keeping(self, process: str) -> AsyncIterator["Keeping"]:
        """A stream of keepalives."""
        stream = self._leases.KeepLeaseAlive()
        try:
            yield Keeping(self, process, stream)
        finally:
            stream.cancel()

    async def watch(self, watcher: "Watcher") -> str:
        """One WatchAgents call, from where the watcher is; why it ended."""
        watch = self.history.watch_begun(
            watcher.process, watcher.parent, watcher.filter, watcher.start_revision, watcher.watch_id
        )
        request = WatchAgentsRequest(
            parent=watcher.parent, filter=watcher.filter, start_revision=watcher.start_revision, progress_notify=True
        )
        responses, reason = self._agents.WatchAgents(request), "CLOSED"
        try:
            async for response in responses:
                self.history.watch_message(watcher.process, watch, response)
                watcher.see(watch, response)
                if watcher.has_enough():
                    break
        except grpc.aio.AioRpcError as error:
            reason = self._noted(error)
        finally:
            responses.cancel()
            self.history.watch_ended(watcher.process, watch, reason, is_definite=_is_definite(reason))
        return reason

    async def list_everyone(self, process: str, parent: str) -> None:
        """Reads all agents and ends the history with them; nothing may change meanwhile."""
        request, found = ListAgentsRequest(parent=parent, page_size=1000, filter=EVERYONE), list[Any]()
        while True:
            page = await self.call(process, "ListAgents", request)
            assert page is not None, "the last read of all agents failed"
            found += page.agents
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        self.history.final_state(process, parent, page.revision, found)

    def _noted(self, error: grpc.aio.AioRpcError) -> str:
        reason = reason_of(error)
        self.is_lost |= reason == UNREACHED
        return reason


class Keeping:
    """A stream of keepalives, used message by message."""

    def __init__(self, connection: Connection, process: str, stream: Any) -> None:
        self._connection = connection
        self._process = process
        self._stream = stream

    async def keep(self, leases: Sequence[str]) -> list[str]:
        """Keeps some leases; those that were not. Nothing can be kept on this stream after an error."""
        history = self._connection.history
        calls = [history.keep_sent(self._process, lease) for lease in leases]
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._stream.write(KeepLeaseAliveRequest(leases=leases))
                response = await self._stream.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            response = grpc.aio.EOF
        if response is grpc.aio.EOF:
            self._stream.cancel()
            self._connection.is_lost = True
            for call, lease in zip(calls, leases, strict=True):
                history.keep_lost(self._process, call, lease)
            return list(leases)
        for call, result in zip(calls, response.results, strict=True):
            history.keep_answered(self._process, call, result)
        return [result.lease for result in response.results if result.HasField("status")]


class Watcher:
    """A client that wants to miss nothing: it goes on after the last revision it saw, at whatever server there is.

    Args:
        process: Its name.
        parent: The namespace it watches.
        only: A filter.
        restless: Chooses when it leaves for a moment by itself, and for how long; None if it never does.
    """

    def __init__(self, process: str, parent: str, only: str = "", restless: random.Random | None = None) -> None:
        self._restless = restless
        self._patience = 0
        self.process = process
        self.parent = parent
        self.filter = only
        self.position: int | None = None
        """The revision it has come to; None before a snapshot is whole."""
        self.watch_id = 0
        """The watch that `position` is of, if any."""

    @property
    def start_revision(self) -> int:
        """What to ask for; 0 for a snapshot."""
        return 0 if self.position is None else self.position + 1

    def see(self, watch: int, response: Any) -> None:
        """Takes one message in."""
        if response.HasField("reset"):
            self.start_anew()
        elif self.position is not None or response.events.snapshot_end:
            self.position, self.watch_id = response.revision, watch

    def has_enough(self) -> bool:
        """Whether it leaves after the message it has just seen."""
        if self._restless is None or self.position is None:
            return False
        self._patience -= 1
        return self._patience < 0

    def start_anew(self) -> None:
        """Asks for a snapshot next."""
        self.position, self.watch_id = None, 0

    async def follow(self, connection: Connection) -> None:
        """Watches until the server is gone, or what was seen is refused, which is left to the checkers."""
        while not connection.is_lost:
            reason = await connection.watch(self)
            if reason == Reason.REVISION_COMPACTED.name:
                self.start_anew()
            elif reason != "CLOSED":
                return
            elif self._restless is not None:
                self._patience = self._restless.randint(5, MESSAGES_MAX)
                await asyncio.sleep(self._restless.uniform(0, REST_S_MAX))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The service's reason for an error, or the name of gRPC's code where the service gave none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            info = ErrorInfo()
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return error.code().name


def _is_definite(reason: str) -> bool:
    return reason in Reason.__members__ and Reason[reason].value.definite
