"""Forgets what has outlived its use: old history, agents expired for long, answers to old requests."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import structlog

from holdfast.core import requests, retention
from holdfast.core.activations import forgetting as ended
from holdfast.core.decisions import forgetting
from holdfast.core.handoffs import forgetting as handed
from holdfast.core.retention import Kept, age_s, outlived
from holdfast.core.state import LeaseEntry
from holdfast.errors import HoldfastError
from holdfast.service.registry import Registry
from holdfast.store.interface import Conflict, Txn

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
        on_forgotten_early: Called with the number of answers forgotten before their time, since there were too many.
    """

    def __init__(
        self,
        registry: Registry,
        retain_revisions: int = RETAIN_REVISIONS_DEFAULT,
        on_forgotten_early: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._registry = registry
        self._retain_revisions = retain_revisions
        self._on_forgotten_early = on_forgotten_early

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
        room = FORGET_MAX
        for transactions in self._outlived(self._registry.wall_clock()):
            room -= await self._commit(transactions, room)
        beyond = self._answers_beyond()
        count = await self._commit(retention.forget_keys(beyond), room)
        self._on_forgotten_early(min(len(beyond), count * retention.CHUNK_KEYS))

    def _outlived(self, now_s: float) -> Iterator[Iterable[Txn]]:
        """What drops what is due of each kind, found when its turn comes."""
        view = self._registry.view
        yield retention.forget_leases(view, self._old_leases(now_s))
        decisions = Kept(forgetting.ENDED_KEPT_S, forgetting.ENDED_MAX, forgetting.ENDED_BYTES_MAX)
        yield forgetting.forget(outlived(view.decisions, decisions, now_s))
        activations = Kept(ended.ENDED_KEPT_S, ended.ENDED_MAX, ended.ENDED_BYTES_MAX)
        yield ended.forget(outlived(view.activations.remembered, activations, now_s))
        yield ended.forget(outlived(view.activations.dead, replace(activations, for_s=ended.DEAD_KEPT_S), now_s))
        handoffs = Kept(handed.ENDED_KEPT_S, handed.ENDED_MAX, handed.ENDED_BYTES_MAX)
        yield handed.forget(outlived(view.handoffs, handoffs, now_s))
        yield ended.forget_work(view.breakers.idle())
        yield retention.forget_keys(self._old_answers(now_s))

    async def _commit(self, transactions: Iterable[Txn], room: int) -> int:
        """Commits at most `room` transactions, and returns how many."""
        count = 0
        for txn in itertools.islice(transactions, room):
            count += 1
            outcome = await self._registry.store.commit(txn)
            await self._registry.view.reached(outcome.revision)
            if isinstance(outcome, Conflict):  # what follows may rest on it: the next round decides anew
                break
        return count

    def _old_leases(self, now_s: float) -> Iterator[LeaseEntry]:
        """Ended leases that have had their time, or are too many, or whose agents are; the first ended first."""
        view = self._registry.view
        count, agents, size_bytes = view.leases.ended_count, view.expired_count, view.expired_bytes
        for lease in view.leases.ended():
            is_much = agents > retention.EXPIRED_MAX or size_bytes > retention.EXPIRED_BYTES_MAX
            is_much = is_much or count > retention.ENDED_MAX
            if not is_much and age_s(lease.record.end.time, now_s) < retention.EXPIRED_KEPT_S:
                return
            count, agents = count - 1, agents - len(view.agents_of(lease.name))
            size_bytes -= view.agents_bytes(lease.name)
            yield lease

    def _old_answers(self, now_s: float) -> list[str]:
        old = itertools.takewhile(
            lambda each: age_s(each[1].record.time, now_s) >= requests.KEPT_S, self._registry.view.answers.oldest()
        )
        return [key for key, _ in itertools.islice(old, FORGET_MAX * retention.CHUNK_KEYS)]

    def _answers_beyond(self) -> list[str]:
        beyond = self._registry.view.answers.beyond(requests.KEPT_MAX, requests.KEPT_BYTES_MAX)
        return list(itertools.islice(beyond, FORGET_MAX * retention.CHUNK_KEYS))

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
