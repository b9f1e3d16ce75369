"""What agents hear of their assignments: on a stream, or when they ask.

Both are told from what the view says that the agent holds, compared with what it was told before: nothing is queued for
an agent, so one that does not read holds no memory, and hears of what is then the case.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from holdfast import validation
from holdfast.coordination.v1.activation_service_pb2 import (
    Activation,
    AssignmentAnswer,
    AssignmentRevocation,
    AssignmentsOpening,
    FetchAssignmentsRequest,
    FetchAssignmentsResponse,
    StreamAssignmentsRequest,
    StreamAssignmentsResponse,
)
from holdfast.core.activations.creating import ms
from holdfast.core.activations.entry import ASSIGNED, ActivationEntry, shown
from holdfast.core.finding import check_fence, find
from holdfast.core.handoffs.entry import shown as shown_handoff
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_BANNED
from holdfast.service.context import CallContext
from holdfast.service.owners import Owners
from holdfast.service.paging import PAGE_BYTES_MAX
from holdfast.service.registry import Registry

ANSWERS_WAITING_MAX = 16
"""Most answers on a stream that wait to be read; beyond, what the agent says next is not read."""


_GIVES_UP = frozenset({"decline", "complete", "fail"})
"""Steps after which an activation is not the agent's any more, as it knows."""


@dataclass(slots=True)
class _Line:
    """One stream: whose it is, what it was told it holds, what it is offered, and what it gives up itself."""

    agent: str
    fence: int
    bell: asyncio.Event
    told: dict[str, int] = field(default_factory=dict[str, int])
    offered: set[str] = field(default_factory=set[str])
    leaving: set[str] = field(default_factory=set[str])
    answers: "asyncio.Queue[StreamAssignmentsResponse]" = field(
        default_factory=lambda: asyncio.Queue(ANSWERS_WAITING_MAX)
    )


class Assignments:
    """The streams of assignments, and the calls that ask for some.

    Args:
        registry: The state.
        owners: Does what agents say on streams.
    """

    def __init__(self, registry: Registry, owners: Owners) -> None:
        self._registry = registry
        self._owners = owners

    async def fetch(self, request: FetchAssignmentsRequest, context: CallContext) -> FetchAssignmentsResponse:
        """What is ASSIGNED to an agent and not begun, the first given first; waits for the first if asked to.

        Raises:
            HoldfastError: AGENT_NOT_FOUND, AGENT_BANNED, FENCE_STALE, QUOTA_EXCEEDED.
        """
        with self._listening(context.client, request.agent) as bell:
            await self._registry.view.reached(await self._registry.store.current_revision())
            self._check(request.agent, request.fence)
            end_s = asyncio.get_running_loop().time() + ms(request.wait) / 1000
            while True:
                bell.clear()
                found = self._assigned(request.agent, request.max or 1)
                if found:
                    return FetchAssignmentsResponse(activations=found)
                try:
                    async with asyncio.timeout_at(end_s):
                        await bell.wait()
                except TimeoutError:
                    return FetchAssignmentsResponse()
                self._check(request.agent, request.fence)

    def _assigned(self, agent: str, count_max: int) -> list[Activation]:
        found: list[Activation] = []
        size_bytes = 0
        for entry in self._held(agent):
            if entry.state.state == ASSIGNED:
                found.append(shown(entry))
                size_bytes += found[-1].ByteSize()
                if len(found) == count_max or size_bytes >= PAGE_BYTES_MAX:
                    break
        return found

    def _held(self, agent: str) -> Iterator[ActivationEntry]:
        activations = self._registry.view.activations
        return (entry for name in activations.held_by(agent) if (entry := activations.get(name)) is not None)

    def _check(self, agent: str, fence: int) -> None:
        entry = find(self._registry.view, agent)
        check_fence(entry.agent, fence)
        if not entry.is_live:
            raise HoldfastError(
                Reason.AGENT_NOT_FOUND, f"{agent} is EXPIRED, and gets no work; register again.", subject=agent
            )
        if entry.agent.admin_state == ADMIN_STATE_BANNED:
            raise HoldfastError(
                Reason.AGENT_BANNED, f"an operator banned {agent}; it gets no work until UnbanAgent.", subject=agent
            )

    @contextmanager
    def _listening(self, client: str, agent: str) -> Iterator[asyncio.Event]:
        """A bell that rings when what an agent holds changes; who listens is one of the audience."""
        activations = self._registry.view.activations
        with self._registry.audience.place(client):
            bell = activations.subscribe(agent)
            try:
                yield bell
            finally:
                activations.unsubscribe(agent, bell)

    async def stream(
        self, requests: AsyncIterator[StreamAssignmentsRequest], context: CallContext
    ) -> AsyncGenerator[StreamAssignmentsResponse, None]:
        """All that is the agent's, then what becomes its own and what ceases to be, and answers to what it says.

        It ends when the agent's incarnation does.

        Raises:
            HoldfastError: INVALID_FIELD, AGENT_NOT_FOUND, AGENT_BANNED, FENCE_STALE, QUOTA_EXCEEDED.
        """
        opening = await _opening(requests)
        if opening is None:
            return
        with self._listening(context.client, opening.agent) as bell:
            await self._registry.view.reached(await self._registry.store.current_revision())
            self._check(opening.agent, opening.fence)
            fence = find(self._registry.view, opening.agent).agent.fence
            line = _Line(opening.agent, fence, bell)
            hearing = asyncio.create_task(self._hear(requests, line))
            try:
                async for response in self._tell(line, hearing):
                    async with self._registry.audience.room.taken(context.client, response.ByteSize()):
                        yield response
            finally:
                hearing.cancel()
                with contextlib.suppress(asyncio.CancelledError, HoldfastError):
                    await hearing

    async def _tell(self, line: "_Line", hearing: "asyncio.Task[None]") -> AsyncIterator[StreamAssignmentsResponse]:
        while True:
            line.bell.clear()
            while not line.answers.empty():
                yield line.answers.get_nowait()
            if hearing.done() and not hearing.cancelled() and (error := hearing.exception()) is not None:
                raise error
            for response in self._changes(line):
                yield response
            self._check(line.agent, line.fence)
            if line.answers.empty():
                await line.bell.wait()

    def _changes(self, line: "_Line") -> Iterator[StreamAssignmentsResponse]:
        """What an agent must be told to know what it holds and is offered, but for what it gives up itself."""
        activations, told = self._registry.view.activations, line.told
        held = {entry.name: entry.fence for entry in self._held(line.agent)}
        for name, fence in list(told.items()):
            if held.get(name) != fence and name not in line.leaving:
                del told[name]
                entry = activations.get(name)
                revocation = AssignmentRevocation(activation=name, fence=fence)
                if entry is not None:
                    revocation.state = entry.current
                yield StreamAssignmentsResponse(revocation=revocation)
        for name, fence in held.items():
            entry = activations.get(name)  # the reader may have taken its time
            if name not in told and entry is not None and entry.fence == fence:
                told[name] = fence
                yield StreamAssignmentsResponse(assignment=shown(entry))
        offers = {offer.name: offer for offer in self._registry.view.handoffs.offered_to(line.agent)}
        new, line.offered = [name for name in offers if name not in line.offered], set(offers)
        for name in new:
            yield StreamAssignmentsResponse(offer=shown_handoff(offers[name]))

    async def _hear(self, requests: AsyncIterator[StreamAssignmentsRequest], line: "_Line") -> None:
        """Does what the agent says, one after the other."""
        try:
            async for request in requests:
                await line.answers.put(StreamAssignmentsResponse(answer=await self._answer(request, line)))
                line.bell.set()
        finally:
            line.bell.set()

    async def _answer(self, request: StreamAssignmentsRequest, line: "_Line") -> AssignmentAnswer:
        """What comes of what an agent says; a refusal is an answer, too, and the stream goes on."""
        step = request.WhichOneof("step")
        if step is None or step == "open":
            raise invalid_field(step or "accept", "only the first message opens the stream; later ones say something")
        try:
            validation.check(request)
            said = getattr(request, step)
            if step in _GIVES_UP:
                line.leaving.add(said.name)
            activation: Activation = await getattr(self._owners, step)(said)
            if step in _GIVES_UP:
                line.told.pop(said.name, None)
            return AssignmentAnswer(activation=activation)
        except HoldfastError as error:
            return AssignmentAnswer(
                activation=Activation(name=getattr(request, step).name),
                code=error.reason.value.code,
                reason=error.reason.name,
                message=error.message,
            )
        finally:
            line.leaving.discard(getattr(request, step).name)


async def _opening(requests: AsyncIterator[StreamAssignmentsRequest]) -> AssignmentsOpening | None:
    """The first message; None if there is none."""
    async for request in requests:
        validation.check(request)
        if not request.HasField("open"):
            raise invalid_field("open", "is required: the first message says which agent it is")
        return request.open
    return None
