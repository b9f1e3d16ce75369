"""A stream of assignments as an agent has it, without gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.service.context import CallContext
from support.replica import CALL, Replica
from support.working import agent

WAIT_S = 5.0
"""Longest wait for something that is said; a bound, nothing rests on it."""


class Line:
    """A stream of assignments as an agent has it."""

    def __init__(self, here: Replica, name: str = "a", context: CallContext = CALL, **opening: Any) -> None:
        self._here = here
        self._said: asyncio.Queue[pb.StreamAssignmentsRequest | None] = asyncio.Queue()
        self.say(open=pb.AssignmentsOpening(agent=agent(name), **opening))
        self.heard = here.activations.stream_assignments(self._requests(), context)

    async def _requests(self) -> AsyncIterator[pb.StreamAssignmentsRequest]:
        while (request := await self._said.get()) is not None:
            yield request

    def say(self, **step: Any) -> None:
        self._said.put_nowait(pb.StreamAssignmentsRequest(**step))

    def hang_up(self) -> None:
        self._said.put_nowait(None)

    async def hear(self) -> pb.StreamAssignmentsResponse:
        async with asyncio.timeout(WAIT_S):
            return await anext(self.heard)

    async def assignment(self) -> pb.Activation:
        heard = await self.hear()
        assert heard.HasField("assignment"), heard
        return heard.assignment

    async def answer(self) -> pb.AssignmentAnswer:
        heard = await self.hear()
        assert heard.HasField("answer"), heard
        return heard.answer

    async def is_quiet(self) -> bool:
        """Whether nothing more is said, once all has happened; the stream is over afterwards."""
        hearing = asyncio.ensure_future(anext(self.heard))
        for _ in range(20):
            await self._here.settle()
            await asyncio.sleep(0)
        is_quiet = not hearing.done()
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        return is_quiet


@contextlib.asynccontextmanager
async def line(here: Replica, name: str = "a", **opening: Any) -> AsyncIterator[Line]:
    opened = Line(here, name, **opening)
    try:
        yield opened
    finally:
        await opened.heard.aclose()  # type: ignore[attr-defined]
