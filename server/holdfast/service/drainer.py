"""Brings draining to its end: an agent that is DRAINING and holds no work becomes DRAINED."""

import asyncio

import structlog

from holdfast.core.admin import Act, Ruling, rule
from holdfast.errors import HoldfastError, Reason
from holdfast.service.registry import Registry

RETRY_S = 1.0
"""Pause before what the store refused, or what still held work, is looked at again."""

AT_ONCE = 64
"""Decisions written concurrently; group commit makes few transactions of disk of them."""

log = structlog.get_logger()


class Drainer:
    """Acts when an agent is told to drain, and at its start for those told before it. Keeps nothing itself."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self) -> None:
        """Finishes what can be finished, until cancelled."""
        view = self._registry.view
        while True:
            view.drain_asked.clear()
            try:
                await self.make_round()
            except HoldfastError as error:
                log.warning("drainer_round_failed", reason=error.reason.name, message=error.message)
            if view.to_drain and not view.drain_asked.is_set():
                await asyncio.sleep(RETRY_S)
            else:
                await view.drain_asked.wait()

    async def make_round(self) -> None:
        """Finishes every agent that holds no work now.

        Raises:
            HoldfastError: STORE_UNAVAILABLE, OVERLOADED.
        """
        view = self._registry.view
        ready = [name for name in view.to_drain if not view.slots_held(name)]
        for first in range(0, len(ready), AT_ONCE):
            outcomes = await asyncio.gather(
                *(self._finish(name) for name in ready[first : first + AT_ONCE]), return_exceptions=True
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _finish(self, name: str) -> None:
        registry = self._registry
        admin = registry.view.admin(name)
        ruling = Ruling(Act.FINISH, name, admin.record.reason if admin is not None else "", registry.now())
        try:
            await registry.execute(lambda reader: rule(reader, ruling))
        except HoldfastError as error:
            # An operator was faster, or another replica: it is not DRAINING any more.
            if error.reason not in (Reason.ADMIN_STATE_CONFLICT, Reason.AGENT_BANNED, Reason.AGENT_NOT_FOUND):
                raise
