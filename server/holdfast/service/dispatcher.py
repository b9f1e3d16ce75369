"""Gives waiting activations to agents, and takes back what lost its owner; acts when something changed.

It keeps nothing itself: what it does is decided against the store, so that every replica may have one. They get in
each other's way now and then, and the later decides anew.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import structlog

from holdfast.core.activations.assigning import TOGETHER_MAX, assign
from holdfast.core.activations.ending import lose
from holdfast.core.handoffs.deciding import cancel_void
from holdfast.errors import HoldfastError, Reason
from holdfast.service.registry import Registry

ROUND_MAX = 512
"""Most activations given away in one round; what is written together shares a sync of the disk."""

RANKED_AT_ONCE = 1_000
"""Agents looked at in one round for what is asked for the first time: some 3 ms."""

RETRY_S = 0.5
"""Pause before a round is made again that the store refused."""

log = structlog.get_logger()


class Dispatcher:
    """Brings agents and activations together. `run` works in the background; tests and simulations make rounds."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self) -> None:
        """Makes a round whenever there may be something to do, until cancelled."""
        activations = self._registry.view.activations
        while True:
            await activations.changed.wait()
            try:
                await self.make_round()
            except HoldfastError as error:
                log.warning("dispatcher_round_failed", reason=error.reason.name, message=error.message)
                activations.changed.set()
                await asyncio.sleep(RETRY_S)

    async def make_round(self) -> None:
        """Takes back what is lost, then gives away what can be given now, at most `ROUND_MAX`.

        Where a selector asks something new of a large fleet, that takes several rounds.

        Raises:
            HoldfastError: STORE_UNAVAILABLE, OVERLOADED.
        """
        activations = self._registry.view.activations
        activations.changed.clear()
        losing = {agent: list(held) for agent, held in activations.lost.items()}
        losing |= {agent: list(activations.held_by(agent)) for agent in activations.banned}
        await self._all(self._lose(agent, held) for agent, held in losing.items())
        void, self._registry.view.handoffs.void = self._registry.view.handoffs.void, {}
        await self._all(self._cancel(handoff) for handoff in void)
        if activations.scheduler.rank(RANKED_AT_ONCE):
            await self._registry.view.turns.wait()
        picked = activations.scheduler.pick(ROUND_MAX)
        try:
            await self._all(
                self._assign(agent, names[first : first + TOGETHER_MAX])
                for agent, names in picked.items()
                for first in range(0, len(names), TOGETHER_MAX)
            )
        finally:
            activations.scheduler.settle(picked)
        left = activations.lost or activations.banned or self._registry.view.handoffs.void
        if activations.scheduler.has_work or left:
            activations.changed.set()

    async def _all(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, HoldfastError) and outcome.reason is Reason.TXN_CONFLICT:
                continue  # others are at it; what is left is seen at the next round
            if isinstance(outcome, BaseException):
                raise outcome

    async def _lose(self, agent: str, held: Sequence[str]) -> None:
        registry = self._registry
        while await registry.execute(lambda reader: lose(reader, agent, held, registry.now())):
            pass

    async def _cancel(self, handoff: str) -> None:
        registry = self._registry
        try:
            await registry.execute(lambda reader: cancel_void(reader, handoff, registry.now()))
        except HoldfastError:
            registry.view.handoffs.void[handoff] = None
            raise

    async def _assign(self, agent: str, picked: Sequence[str]) -> None:
        registry = self._registry
        await registry.take(lambda reader: assign(reader, agent, picked, registry.now(), registry.store.epoch))
