"""Forgets what has outlived its use: old history, agents expired for long, answers to old requests."""

import asyncio
from collections.abc import Iterator

import structlog

from holdfast.core import requests, retention
from holdfast.errors import HoldfastError
from holdfast.service.registry import Registry
from holdfast.store.interface import Txn

ROUND_EVERY_S = 5.0
"""How often the janitor looks around."""

RETAIN_REVISIONS_DEFAULT = 20_000
"""Revisions of history kept for watches to resume from; some 2 KB of memory each."""

COMPACT_SHARE = 0.1
"""Compaction waits until this share more than asked for is there, so that each does a worthwhile piece."""

FORGET_MAX = 2_000
"""Most transactions of one round: forgetting must not crowd out the callers."""

log = structlog.get_logger()


class Janitor:
    """Keeps the store within its bounds.

    Args:
        registry: The state.
        retain_revisions: Revisions of history to keep at least.
    """

    def __init__(self, registry: Registry, retain_revisions: int = RETAIN_REVISIONS_DEFAULT) -> None:
        self._registry = registry
        self._retain_revisions = retain_revisions

    async def run(self, every_s: float = ROUND_EVERY_S) -> None:
        """Makes a round now and then, until cancelled. A round that the store refuses is made again at the next."""
        while True:
            try:
                await self.make_round()
            except HoldfastError as error:
                log.warning("janitor_round_failed", reason=error.reason.name, message=error.message)
            await asyncio.sleep(every_s)

    async def make_round(self) -> None:
        """Forgets everything that is due now.

        Raises:
            HoldfastError: STORE_UNAVAILABLE, OVERLOADED.
        """
        await self._forget_records()
        await self._compact()

    async def _forget_records(self) -> None:
        now_s = self._registry.wall_clock()
        transactions = self._due(now_s)
        for txn, _ in zip(transactions, range(FORGET_MAX), strict=False):
            await self._registry.store.commit(txn)

    def _due(self, now_s: float) -> Iterator[Txn]:
        view = self._registry.view
        for lease in view.ended_leases():
            if now_s - lease.record.end.time.ToMilliseconds() / 1000 < retention.EXPIRED_KEPT_S:
                break
            yield from retention.forget_lease(view, lease)
        yield from retention.forget_keys(self._old_requests(now_s))

    def _old_requests(self, now_s: float) -> list[str]:
        kept = list(self._registry.view.requests())
        surplus = len(kept) - requests.KEPT_MAX
        return [
            key
            for index, (key, entry) in enumerate(kept)
            if index < surplus or now_s - entry.record.time.ToMilliseconds() / 1000 >= requests.KEPT_S
        ]

    async def _compact(self) -> None:
        store = self._registry.store
        if store.revision - store.compact_revision <= self._retain_revisions * (1 + COMPACT_SHARE):
            return
        await store.compact(store.revision - self._retain_revisions)
        self._registry.view.history.forget(store.compact_revision)
