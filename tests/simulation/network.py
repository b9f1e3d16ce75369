"""Links between clients and nodes that lose, delay and repeat; what clients learn goes into the history."""

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from holdfast import validation
from holdfast.coordination.v1.election_service_pb2 import ObserveLeaderResponse
from holdfast.errors import HoldfastError
from holdfast.registry.v1.agent_registry_service_pb2 import WatchAgentsRequest, WatchAgentsResponse
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveRequest, KeepLeaseAliveResult, LeaseDirective
from simulation.node import CALL, CrashedError, Node, one
from support.history import History

TIMEOUT_S = 4.0
"""How long clients wait for an answer."""

DELAY_S_MAX = 0.03
"""Longest way of a message that is not lost."""

LOST = 0.02
"""Share of the messages that are lost."""

UNREAD_MAX = 2
"""Messages of a watch that wait to be read; the server waits then."""


class Network:
    """The way to nodes that serve.

    Args:
        nodes: All of them.
        rng: What becomes of messages.
        history: Where it is written down.
    """

    def __init__(self, nodes: list[Node], rng: random.Random, history: History) -> None:
        self._nodes = nodes
        self._rng = rng
        self.history = history

    def serving(self, only: Node | None = None) -> Node | None:
        """A node that serves, if there is one; with `only`, this one or none."""
        up = [node for node in self._nodes if node.is_serving and only in (None, node)]
        return self._rng.choice(up) if up else None

    async def wait_for(self, only: Node | None = None) -> Node:
        """The same, once there is one."""
        while (node := self.serving(only)) is None:  # noqa: ASYNC110 - virtual time, and nodes set no event
            await asyncio.sleep(0.1)
        return node

    async def _pass(self) -> None:
        """The way of one message: some never arrive."""
        if self._rng.random() < LOST:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self._rng.uniform(0, DELAY_S_MAX))

    async def call(self, client: str, op: str, request: Message, only: Node | None = None) -> Any | None:
        """A unary call; None if it did not succeed, as far as the client knows."""
        node = await self.wait_for(only)
        validation.check(request)
        call = self.history.invoke(client, op, request)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._exchange(node, op, request)
        except HoldfastError as error:
            self.history.failed(client, call, error.reason.name, is_definite=error.reason.value.definite)
        except TimeoutError:
            self.history.failed(client, call, "NO_ANSWER", is_definite=False)
        else:
            self.history.ok(client, call, op, response)
            return response
        return None

    async def _exchange(self, node: Node, op: str, request: Message) -> Any:
        await self._pass()
        if getattr(request, "request_id", "") and self._rng.random() < 0.1:
            self._send(node, op, request)  # the network repeats it
        answering = self._send(node, op, request)
        try:
            await asyncio.wait([answering])
        finally:
            if self._rng.random() < 0.5:  # some clients tell that they have given up
                answering.cancel()
        if answering.cancelled() or isinstance(answering.exception(), CrashedError):
            await asyncio.get_running_loop().create_future()
        response = answering.result()
        await self._pass()
        return response

    def _send(self, node: Node, op: str, request: Message) -> "asyncio.Task[Any]":
        async def handle() -> Any:
            return await node.handler(op)(request, CALL)

        handling = node.spawn(handle())
        handling.add_done_callback(_quietly)
        if not node.is_serving:
            handling.cancel()
        return handling

    async def keep(self, client: str, lease: str, only: Node | None = None) -> bool:
        """A keepalive; False if the lease is known to be gone."""
        node = self.serving(only)
        if node is None:
            await asyncio.sleep(0.1)
            return True
        call = self.history.keep_sent(client, lease)

        async def handle() -> Any:
            stream = node.handler("KeepLeaseAlive")(one(KeepLeaseAliveRequest(leases=[lease])), CALL)
            return await anext(stream)

        handling = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._pass()
                handling = node.spawn(handle())
                handling.add_done_callback(_quietly)
                await asyncio.wait([handling])
                if handling.cancelled() or handling.exception() is not None:
                    await asyncio.get_running_loop().create_future()  # nobody answers
                response = handling.result()
                await self._pass()
        except TimeoutError:
            if handling is not None:
                handling.cancel()
            self.history.keep_lost(client, call, lease)
            return True
        result = response.results[0]
        self.history.keep_answered(client, call, result)
        return not result.HasField("status")

    async def hold(self, client: str, lease: str, every_s: float, node: Node) -> bool:
        """Keepalives on one stream, whether they are answered or not; False if the lease is known to be gone.

        None is lost while the stream lasts: what is sent to a node that is paused is read when it goes on.
        """
        asked: asyncio.Queue[KeepLeaseAliveRequest] = asyncio.Queue()
        answers: asyncio.Queue[KeepLeaseAliveResult] = asyncio.Queue()
        unanswered: deque[int] = deque()
        serving = node.spawn(self._serve_keeps(node, asked, answers))
        serving.add_done_callback(_quietly)
        if not node.is_serving:
            serving.cancel()
        sending = asyncio.ensure_future(self._send_keeps(client, lease, every_s, asked, unanswered))
        reading = asyncio.ensure_future(self._read_keeps(client, answers, unanswered))
        try:
            await asyncio.wait([serving, reading], return_when=asyncio.FIRST_COMPLETED)
            return not reading.done()
        finally:
            for task in (serving, sending, reading):
                task.cancel()
            for call in unanswered:
                self.history.keep_lost(client, call, lease)

    async def _send_keeps(
        self,
        client: str,
        lease: str,
        every_s: float,
        asked: "asyncio.Queue[KeepLeaseAliveRequest]",
        unanswered: deque[int],
    ) -> None:
        while True:
            unanswered.append(self.history.keep_sent(client, lease))
            asked.put_nowait(KeepLeaseAliveRequest(leases=[lease]))
            await asyncio.sleep(every_s)

    async def _serve_keeps(
        self, node: Node, asked: "asyncio.Queue[KeepLeaseAliveRequest]", answers: "asyncio.Queue[KeepLeaseAliveResult]"
    ) -> None:
        """The node's side: reading takes a moment, so what waited is read after clocks are looked at."""

        async def requests() -> AsyncIterator[KeepLeaseAliveRequest]:
            while True:
                request = await asked.get()
                await asyncio.sleep(self._rng.uniform(0, DELAY_S_MAX))
                yield request

        async for response in node.handler("KeepLeaseAlive")(requests(), CALL):
            answers.put_nowait(response.results[0])

    async def _read_keeps(
        self, client: str, answers: "asyncio.Queue[KeepLeaseAliveResult]", unanswered: deque[int]
    ) -> None:
        """Until the lease is known to be gone."""
        while True:
            result = await answers.get()
            await asyncio.sleep(self._rng.uniform(0, DELAY_S_MAX))
            self.history.keep_answered(client, unanswered.popleft(), result)
            if result.directive == LeaseDirective.LEASE_DIRECTIVE_STOP:
                return

    async def watch(
        self, client: str, request: WatchAgentsRequest, resumes: int, take: Callable[[int, WatchAgentsResponse], Any]
    ) -> str:
        """A watch, until it ends or `take`, which is awaited with each message, says so by a true value.

        Returns why it ended: a reason, `ENDED`, `CLOSED`, or `LOST` if nobody said.
        """
        if (node := self.serving()) is None:
            await asyncio.sleep(0.1)
            return "LOST"
        watch = self.history.watch_begun(client, request.parent, request.filter, request.start_revision, resumes)

        async def heard(message: WatchAgentsResponse) -> Any:
            self.history.watch_message(client, watch, message)
            return await take(watch, message)

        reason = await self._stream(node, _pump(node, "WatchAgents", request, WatchAgentsResponse), heard)
        self.history.watch_ended(client, watch, reason)
        return reason

    async def follow(
        self, client: str, op: str, request: Any, response: type[Message], resumes: int, take: Callable[[int, Any], Any]
    ) -> str:
        """The same of other resources than agents, by the rpc `op` with responses of this type."""
        if (node := self.serving()) is None:
            await asyncio.sleep(0.1)
            return "LOST"
        watch = self.history.follow_begun(client, op, request, resumes)

        async def heard(message: Any) -> Any:
            self.history.follow_message(client, watch, message)
            return await take(watch, message)

        reason = await self._stream(node, _pump(node, op, request, response), heard)
        self.history.follow_ended(client, watch, reason)
        return reason

    async def observe(self, client: str, request: Any, take: Callable[[Any], Any]) -> str:
        """The same of an election's leaders, by ObserveLeader."""
        if (node := self.serving()) is None:
            await asyncio.sleep(0.1)
            return "LOST"
        watch, heard_of = self.history.new_id(), itertools.count()

        async def heard(message: Any) -> Any:
            self.history.leader_told(client, watch, message, is_first=next(heard_of) == 0)
            return await take(message)

        return await self._stream(node, _pump(node, "ObserveLeader", request, ObserveLeaderResponse), heard)

    async def _stream(
        self, node: Node, pump: "Callable[[asyncio.Queue[Any]], Any]", heard: Callable[[Any], Any]
    ) -> str:
        unread: asyncio.Queue[Any] = asyncio.Queue(UNREAD_MAX)
        sending = node.spawn(pump(unread))
        sending.add_done_callback(_quietly)
        reading = asyncio.ensure_future(self._read(unread, heard))
        try:
            await asyncio.wait([sending, reading], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done() and not sending.cancelled() and sending.exception() is None:
                await reading
            return reading.result() if reading.done() else "LOST"
        finally:
            reading.cancel()
            sending.cancel()

    async def _read(self, unread: "asyncio.Queue[Any]", heard: Callable[[Any], Any]) -> str:
        while True:
            message = await unread.get()
            await asyncio.sleep(self._rng.uniform(0, DELAY_S_MAX))
            if isinstance(message, str):
                return message
            if await heard(message):
                return "CLOSED"


def _pump(node: Node, op: str, request: Any, response: type[Message]) -> "Callable[[asyncio.Queue[Any]], Any]":
    """Sends what a handler gives, as fast as it is read."""

    async def pump(unread: "asyncio.Queue[Any]") -> None:
        reason = "ENDED"
        try:
            async with contextlib.aclosing(node.handler(op)(request, CALL)) as told:
                async for each in told:
                    await unread.put(response.FromString(each) if isinstance(each, bytes) else each)
        except HoldfastError as error:
            reason = error.reason.name
        await unread.put(reason)

    return pump


def _quietly(task: "asyncio.Task[Any]") -> None:
    """What nobody waits for any more is no defect."""
    if not task.cancelled():
        task.exception()
