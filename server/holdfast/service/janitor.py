"""Forgets what has outlived its use: old history, agents expired for long, answers to old requests."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.core import requests, retention
from holdfast.core.state import LeaseEntry
from holdfast.errors import HoldfastError
from holdfast.service.registry import Registry
from holdfast.store.interface import Conflict

ROUND_EVERY_S = 5.0
"""How often the janitor looks around."""

RETAIN_REVISIONS_DEFAULT = 20_000
"""Revisions of history kept for watches to resume from, unless they take more than `HISTORY_BYTES_MAX`."""

COMPACT_SHARE = 0.1
"""Compaction waits until this share more than asked for is there, so that each does a worthwhile piece."""

FORGET_MAX = 100
"""Most transactions of one round, of some hundred keys each: forgetting must not crowd out the callers."""

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
        """Makes a round now and then, and when the history overflows, until cancelled.

        A round that the store refuses is made again at the next.
        """
        overflowed = self._registry.view.history.has_overflowed
        while True:
            overflowed.clear()
            try:
                await self.make_round()
            except HoldfastError as error:
                log.warning("janitor_round_failed", reason=error.reason.name, message=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await overflowed.wait()

    async def make_round(self) -> None:
        """Forgets everything that is due now.

        Raises:
            HoldfastError: STORE_UNAVAILABLE, OVERLOADED.
        """
        await self._forget_records()
        await self._compact()

    async def _forget_records(self) -> None:
        now_s = self._registry.wall_clock()
        view, room = self._registry.view, FORGET_MAX
        for transactions in (
            retention.forget_leases(view, self._old_leases(now_s)),
            retention.forget_keys(self._old_requests(now_s)),
        ):
            for txn in itertools.islice(transactions, room):
                room -= 1
                outcome = await self._registry.store.commit(txn)
                await view.reached(outcome.revision)
                if isinstance(outcome, Conflict):  # what follows may rest on it: the next round decides anew
                    break

    def _old_leases(self, now_s: float) -> Iterator[LeaseEntry]:
        for lease in self._registry.view.ended_leases():
            if _age_s(lease.record.end.time, now_s) < retention.EXPIRED_KEPT_S:
                return
            yield lease

    def _old_requests(self, now_s: float) -> list[str]:
        """The oldest answers, as many as are too old or too many."""
        view = self._registry.view
        kept, size_bytes, old = view.requests_count, view.requests_bytes, []
        for key, entry in view.requests():
            is_too_much = kept > requests.KEPT_MAX or size_bytes > requests.KEPT_BYTES_MAX
            if not is_too_much and _age_s(entry.record.time, now_s) < requests.KEPT_S:
                break
            old.append(key)
            kept -= 1
            size_bytes -= len(key) + len(entry.value)
            if len(old) >= FORGET_MAX * retention.CHUNK_KEYS:
                break
        return old

    async def _compact(self) -> None:
        """Drops history that is older than asked for, and what the view has dropped because it took too much."""
        store, view = self._registry.store, self._registry.view
        before = view.history.start
        if store.revision - store.compact_revision > self._retain_revisions * (1 + COMPACT_SHARE):
            before = max(before, min(store.revision - self._retain_revisions, view.revision))  # not ahead of the view
        if before <= store.compact_revision:
            return
        await store.compact(before)
        view.history.forget(min(store.compact_revision, view.revision))  # others may have compacted what it lacks


def _age_s(time: Timestamp, now_s: float) -> float:
    return now_s - time.ToMilliseconds() / 1000
