"""Work of an agent: assignments as they come, each a block that is accepted, kept alive, and completed or failed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from holdfast.client.activations import ENDED
from holdfast.client.calling import Repeat, may_repeat
from holdfast.client.errors import (
    ActivationClosedError,
    FenceStaleError,
    HoldfastError,
    HoldLostError,
    from_rpc_error,
)
from holdfast.client.holds import CLEANUP_S, Hold
from holdfast.client.proof import MARGIN_SHARE, Proof
from holdfast.coordination.v1.activation_service_pb2 import (
    Activation,
    ActivationFailure,
    ActivationProgress,
    ActivationState,
    AssignmentsOpening,
    StreamAssignmentsRequest,
    StreamAssignmentsResponse,
)

if TYPE_CHECKING:
    from holdfast.client.services import Services
    from holdfast.client.sessions import Session

BEATS_PER_TIMEOUT = 3
"""Heartbeats in a heartbeat_timeout: two may be lost."""

LOOK_S_MAX = 0.25
"""Longest sleep between looks at the clock, which need not be the event loop's."""

SETTLE_ATTEMPTS_MAX = 5
"""How often the end of work is told where answers are lost, each time after reading whether it arrived."""

_WORKING = (ActivationState.ACTIVATION_STATE_RUNNING, ActivationState.ACTIVATION_STATE_HANDING_OFF)

log = logging.getLogger("holdfast.client")


class WorkFailedError(Exception):
    """Raise it in the block of a piece of work to say how it failed. Any other exception is a retryable failure.

    Args:
        message: For people.
        reason: A word for machines.
        retryable: Whether another attempt could succeed.
    """

    def __init__(self, message: str, *, reason: str = "FAILED", retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class Work(Hold):
    """A piece of work, for one `async with` block: accepted at its beginning, kept alive, and ended with it.

    At the end of the block it is completed with `result`; an exception fails it, and passes on. The block is cancelled
    when the work is not this agent's any more: revoked, its heartbeats unanswered, or the session lost.

    Attributes:
        activation: As it was assigned, with its payload.
        result: What came of it; set it in the block.
    """

    def __init__(
        self, services: "Services", session: "Session", activation: Activation, clock: Callable[[], float]
    ) -> None:
        super().__init__(activation.name, activation.fence, session)
        self.activation = activation
        self.result = b""
        self._calls = services.activations
        self._clock = clock
        timeout_s = activation.heartbeat_timeout.ToMilliseconds() / 1000
        self._proof = Proof(timeout_s, timeout_s * MARGIN_SHARE, clock())
        self._progress: ActivationProgress | None = None
        self._beating: asyncio.Task[None] | None = None
        self._block = self.guard()

    @property
    def payload(self) -> bytes:
        """What is to be done."""
        return self.activation.payload

    @property
    def proven_until_s(self) -> float:
        """Until when it can be relied on unless another heartbeat is answered, by the client's clock."""
        return self._proof.until_s

    def progress(self, percent: int, message: str = "") -> None:
        """Says how far it is, with the next heartbeat.

        Raises:
            ValueError: `percent` is not 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent is {percent}: 0 to 100.")
        self._progress = ActivationProgress(percent=percent, message=message)

    def check(self) -> None:
        """As that of every hold; HoldLostError as well once its heartbeats went unanswered for too long."""
        super().check()
        if self._beating is not None and not self._proof.is_proven(self._clock()):
            raise HoldLostError(f"{self.name}: {self._proof.why_lost}. Stop: another may be at it.")

    async def decline(self, reason: str = "") -> None:
        """Gives it back before any work: it goes to another agent and costs no attempt.

        Raises:
            HoldfastError: Why it failed.
        """
        await self._calls.decline(self.name, self.fence, reason)
        self.end()

    async def __aenter__(self) -> Self:
        sent_s = self._clock()
        if self.activation.state not in _WORKING:
            await self._settle(lambda fence: self._calls.accept(self.name, fence), self._is_running)
        self._proof.sent_s = sent_s
        await self._block.__aenter__()
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._block.__aexit__(kind, error, trace)
            if error is None:
                await self._settle(
                    lambda fence: self._calls.complete(self.name, fence, self.result), self._has_succeeded
                )
            elif not self.lost.is_set():
                await self._fail(error)
        finally:
            self.end()
            if self._beating is not None:
                self._beating.cancel()
                await asyncio.gather(self._beating, return_exceptions=True)

    async def _fail(self, error: BaseException) -> None:
        """Tells that it failed; what the block raised is what counts, so nothing here does."""
        told = ActivationFailure(reason=type(error).__name__[:128], message=str(error)[:1000], retryable=True)
        if isinstance(error, WorkFailedError):
            told.reason, told.retryable = error.reason, error.retryable
        with contextlib.suppress(HoldfastError, TimeoutError):
            async with asyncio.timeout(CLEANUP_S):
                await self._settle(lambda fence: self._calls.fail(self.name, fence, told), self._has_ended)

    async def _settle(self, tell: Callable[[int], Awaitable[object]], is_settled: Callable[[Activation], bool]) -> None:
        """Tells something once: where the answer is lost it reads whether it arrived, before it tells it again.

        Raises:
            HoldError: It is not this agent's any more.
            HoldfastError: Nobody knows.
        """
        attempts = 0
        while True:
            try:
                await tell(self.fence)
            except (FenceStaleError, ActivationClosedError) as error:
                if attempts and is_settled(await self._calls.get(self.name)):
                    return
                self.lose(str(error))
                self.check()
            except HoldfastError as error:
                attempts += 1
                if error.definite or not may_repeat(error, Repeat.ALWAYS) or attempts == SETTLE_ATTEMPTS_MAX:
                    raise
                if is_settled(await self._calls.get(self.name)):
                    return
            else:
                return

    def _is_running(self, now: Activation) -> bool:
        return now.state in _WORKING and now.fence == self._fence

    def _has_succeeded(self, now: Activation) -> bool:
        mine = now.agent == self.activation.agent and now.attempt == self.activation.attempt
        return now.state == ActivationState.ACTIVATION_STATE_SUCCEEDED and mine

    def _has_ended(self, now: Activation) -> bool:
        return now.state in ENDED or now.fence != self._fence

    async def _beat(self) -> None:
        """Keeps it alive, and stops it when that fails for too long."""
        every_s = self._proof.ttl_s / BEATS_PER_TIMEOUT
        due_s = self._proof.sent_s + every_s
        told: ActivationProgress | None = None
        while True:
            now_s = self._clock()
            if not self._proof.is_proven(now_s):
                self.lose(f"{self._proof.why_lost} (heartbeats)")
                return
            if now_s < due_s and (self._progress is told or now_s < due_s - every_s + 1.0):
                await asyncio.sleep(min(LOOK_S_MAX, max(0.01, self._proof.until_s - now_s)))
                continue
            progress = self._progress if self._progress is not told else None
            try:
                async with asyncio.timeout(max(0.05, min(every_s, self._proof.until_s - now_s))):
                    await self._calls.heartbeat(self.name, self._fence, progress)
            except (FenceStaleError, ActivationClosedError) as error:
                self.lose(str(error))
                return
            except (HoldfastError, TimeoutError) as error:
                log.debug("heartbeat of %s failed: %s", self.name, error)
                due_s = now_s + every_s / 3
            else:
                self._proof.kept(now_s, self._clock())
                told = progress or told
                due_s = now_s + every_s


class Assignments:
    """What is assigned to a session's agent, as it comes: `async for work in assignments: async with work: …`.

    As much as the agent's `max_concurrency` comes before any of it has ended; run each in a task of its own to do
    more than one at a time, or use `Session.work`.
    """

    def __init__(self, services: "Services", session: "Session", clock: Callable[[], float]) -> None:
        self._services = services
        self._session = session
        self._clock = clock
        self._mine: dict[str, Work] = {}
        self._coming: asyncio.Queue[Work | None] = asyncio.Queue()  # no longer than the agent's slots
        self._running: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncIterator[Work]:
        return self

    async def __anext__(self) -> Work:
        while True:
            work = await self._coming.get()
            if work is None:
                self._coming.put_nowait(None)
                assert self._running is not None, "only its end puts None"
                await self._running
                raise StopAsyncIteration
            if not work.lost.is_set():  # it may have been taken back while it waited
                return work

    async def listen(self) -> None:
        """Hears of assignments until the agent is gone, over lost connections and restarts of the server.

        Raises:
            HoldfastError: The agent gets no work any more.
        """
        self._running = asyncio.current_task()
        failures = 0
        try:
            while True:
                try:
                    async with contextlib.aclosing(self._heard()) as responses:
                        async for response in responses:
                            failures = 0
                            self._take(response)
                except HoldfastError as error:
                    if not may_repeat(error, Repeat.ALWAYS):
                        raise
                failures += 1
                await asyncio.sleep(self._services.caller.retries.backoff_s(failures))
        finally:
            self._coming.put_nowait(None)

    async def _heard(self) -> AsyncGenerator[StreamAssignmentsResponse, None]:
        connection = self._services.caller.connection
        await connection.ready(self._services.caller.timeouts.connect_s)
        call = self._services.activations.stub.StreamAssignments()
        opening = AssignmentsOpening(agent=self._session.agent.name, fence=self._session.fence)
        try:
            await call.write(StreamAssignmentsRequest(open=opening))
            while isinstance(response := await call.read(), StreamAssignmentsResponse):
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, f"StreamAssignments at {connection.target}") from error
        finally:
            call.cancel()

    def _take(self, response: StreamAssignmentsResponse) -> None:
        match response.WhichOneof("step"):
            case "assignment":
                self._assigned(response.assignment)
            case "revocation":
                told = response.revocation
                work = self._mine.get(told.activation)
                if work is not None and work.is_of(told.fence):
                    work.lose(f"it was taken back, and is {ActivationState.Name(told.state)} now")
            case _:
                pass

    def _assigned(self, activation: Activation) -> None:
        """What is known goes on: a stream that is opened anew begins with all that the agent holds."""
        self._mine = {name: work for name, work in self._mine.items() if not work.is_over}
        known = self._mine.get(activation.name)
        if known is not None and known.is_of(activation.fence):
            return
        if known is not None:
            known.lose(f"it has another fence, {activation.fence}, now")
        work = self._mine[activation.name] = Work(self._services, self._session, activation, self._clock)
        self._coming.put_nowait(work)


@asynccontextmanager
async def assigned(services: "Services", session: "Session", clock: Callable[[], float]) -> AsyncIterator[Assignments]:
    """A guarded block in which assignments come."""
    assignments = Assignments(services, session, clock)
    listening = asyncio.create_task(assignments.listen())
    try:
        async with session.guard():
            yield assignments
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def do_all(
    services: "Services", session: "Session", clock: Callable[[], float], handler: Callable[[Work], Awaitable[bytes]]
) -> None:
    """Does all that is assigned, each piece in a task of its own, until the session ends."""
    tasks = set[asyncio.Task[None]]()  # no more than the agent's slots
    try:
        async with assigned(services, session, clock) as assignments:
            async for work in assignments:
                task = asyncio.create_task(_do(work, handler))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _do(work: Work, handler: Callable[[Work], Awaitable[bytes]]) -> None:
    try:
        async with work:
            work.result = await handler(work)
    except HoldfastError as error:
        log.warning("%s was not done: %s", work.name, error)
    except Exception:
        log.exception("%s failed", work.name)
