"""Votes on one decision that come while others are written: counted together, in their order, at one revision.

Each vote rests on those before it, so votes that are written apart would wait for each other, one sync of the disk
after the other, and half of them decided anew.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence

from holdfast.coordination.v1.decision_service_pb2 import CastVoteRequest, Decision
from holdfast.errors import HoldfastError, Reason

TOGETHER_MAX = 32
"""Most votes of one revision: with 1 000 electors, each is counted in about a millisecond."""

WAITING_MAX = 1_000
"""Most votes that wait for one decision, as many as there may be electors; more are refused with TXN_CONFLICT."""

_Waiting = tuple[CastVoteRequest, "asyncio.Future[Decision]"]


class Voting:
    """Casts votes; one for all calls of a replica.

    Args:
        decide: Counts votes on one decision and writes them; returns what each is answered.
    """

    def __init__(
        self, decide: Callable[[Sequence[CastVoteRequest]], Awaitable[Sequence[Decision | HoldfastError]]]
    ) -> None:
        self._decide = decide
        self._waiting: dict[str, list[_Waiting]] = {}
        self._counting: set[asyncio.Task[None]] = set()

    async def cast(self, request: CastVoteRequest) -> Decision:
        """Casts a vote; returns the decision once it is counted.

        Raises:
            HoldfastError: As `deciding.vote` and `deciding.cast`, TXN_CONFLICT, STORE_UNAVAILABLE, OVERLOADED.
        """
        name = request.decision
        counted: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        if name not in self._waiting:
            self._waiting[name] = []
            task = asyncio.create_task(self._count(name))
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)
        elif len(self._waiting[name]) >= WAITING_MAX:
            raise HoldfastError(
                Reason.TXN_CONFLICT,
                f"{WAITING_MAX} votes on {name} wait to be counted already; try again after a random delay.",
                subject=name,
            )
        self._waiting[name].append((request, counted))
        return await counted

    def stop(self) -> None:
        """Waits no longer for what is on its way, once the view is not kept up any more."""
        for task in self._counting:
            task.cancel()
        for waiting in self._waiting.values():  # a task that has not begun will not
            for _, counted in waiting:
                counted.cancel()

    async def _count(self, name: str) -> None:
        """Counts what waits for a decision, as often as something came meanwhile."""
        try:
            while self._waiting[name]:
                await self._gather(name)
                waiting = self._waiting[name]
                together, self._waiting[name] = waiting[:TOGETHER_MAX], waiting[TOGETHER_MAX:]
                await self._count_together([each for each in together if not each[1].done()])
        finally:
            del self._waiting[name]

    async def _gather(self, name: str) -> None:
        """Lets those come that are on their way, as long as each turn of the loop brings one: electors vote at once.

        A vote written alone costs as much as thirty together.
        """
        there = 0
        while there < len(self._waiting[name]) < TOGETHER_MAX:
            there = len(self._waiting[name])
            await asyncio.sleep(0)

    async def _count_together(self, some: list[_Waiting]) -> None:
        if not some:  # all callers have gone
            return
        try:
            outcomes = await self._decide([request for request, _ in some])
        except BaseException as error:
            for _, counted in some:
                _tell(counted, copy.copy(error))  # each caller's own: what is raised takes on where
            if not isinstance(error, Exception):
                raise
            return
        for (_, counted), outcome in zip(some, outcomes, strict=True):
            _tell(counted, outcome)


def _tell(counted: "asyncio.Future[Decision]", outcome: Decision | BaseException) -> None:
    if counted.done():
        return
    if isinstance(outcome, Decision):
        counted.set_result(outcome)
    elif isinstance(outcome, asyncio.CancelledError):
        counted.cancel()
    else:
        counted.set_exception(outcome)
