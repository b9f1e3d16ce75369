"""How decisions become writes: made on the view, written on the condition that they still hold, made anew if not."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar

from holdfast.core import leases
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason
from holdfast.service.queues import Queues
from holdfast.store.interface import Committed, Conflict, Store, Txn
from holdfast.view import View

ATTEMPTS_MAX = 8
"""How often a write is decided anew because others changed what it was decided on."""

A = TypeVar("A")


class _AnewError(Exception):
    """It must be decided anew, in the turn of a resource that others change, or at once."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Writer:
    """Makes decisions and writes them.

    Those who are too late for a resource they would change, and those who come after them, queue for it. Otherwise
    each attempt would let one of them through, and the others would fail together, again and again.

    Args:
        store: Where is written.
        view: What is decided on.
        replica: Who writes, for a store that several share.
    """

    def __init__(self, store: Store, view: View, replica: str) -> None:
        self._store = store
        self._view = view
        self._replica = replica
        self._queues = Queues()
        self._growing: set[asyncio.Task[Committed | Conflict]] = set()

    async def execute(self, decide: Callable[[View], Plan[A]]) -> A:
        """See `Registry.execute`."""
        try:
            return await self._attempt(decide)
        except _AnewError as late:
            return await self._in_turn(decide, late.name)

    def stop(self) -> None:
        """Waits no longer for what is on its way, once the view is not kept up any more."""
        for task in self._growing:
            task.cancel()

    async def _in_turn(self, decide: Callable[[View], Plan[A]], name: str) -> A:
        attempts = 1
        while attempts < ATTEMPTS_MAX:
            async with self._queues.turn(name):
                wanted = name
                while wanted == name and attempts < ATTEMPTS_MAX:
                    attempts += 1
                    try:
                        return await self._attempt(decide, has_turn=bool(name))
                    except _AnewError as late:
                        wanted = late.name
            name = wanted
        raise HoldfastError(
            Reason.TXN_CONFLICT,
            f"others changed the same records {ATTEMPTS_MAX} times in a row; try again after a random delay.",
        )

    async def _attempt(self, decide: Callable[[View], Plan[A]], *, has_turn: bool = False) -> A:
        plan, seen = await self._decided(decide)
        if plan.txn.is_empty:
            return plan.answer(seen)
        if self._queues and not has_turn and (queued := self._queues.first_of(_written(plan.txn))):
            raise _AnewError(queued)
        if plan.grows and self._store.is_shared:
            await self._count_here(plan)
        outcome = await (self._grow(plan) if plan.grows else self._commit(plan.txn))
        if isinstance(outcome, Conflict):
            raise _AnewError(self._contended(plan.txn))
        return plan.answer(outcome.revision)

    async def _decided(self, decide: Callable[[View], Plan[A]]) -> tuple[Plan[A], int]:
        """A decision and the revision it was made on. A refusal counts if that is as new as the call."""
        seen = self._view.revision
        try:
            return decide(self._view), seen
        except HoldfastError:
            floor = await self._store.current_revision()
            if seen >= floor:
                raise
        await self._view.reached(floor)
        seen = self._view.revision
        return decide(self._view), seen

    async def _commit(self, txn: Txn) -> Committed | Conflict:
        """What is answered here must not be contradicted here: no keepalive is acknowledged after a revocation."""
        outcome = await self._store.commit(txn)
        await self._view.reached(outcome.revision)
        return outcome

    def _contended(self, txn: Txn) -> str:
        """What others changed of the resources that a transaction writes; empty if it only rests on what they did.

        Many join a lease, or go with it, without being in each other's way: they need no queue.
        """
        written = set(_written(txn))
        changed = (key for key, expected in txn.compares if self._view.mod_revision(key) != expected)
        return next((name for key in changed if (name := _name_of(key)) in written), "")

    # What makes the agents of a lease larger.

    async def _grow(self, plan: Plan[A]) -> Committed | Conflict:
        """Commits, and counts what is on its way until the view has it, or it failed, whether the caller waits or not.

        Others who join meanwhile do not see it in the view, nor does its transaction fail by theirs.
        """
        self._view.growing.update(dict(plan.grows))
        task = asyncio.create_task(self._counted(plan))
        self._growing.add(task)
        task.add_done_callback(self._grown)
        await asyncio.wait((task,))
        return task.result()

    def _grown(self, task: "asyncio.Task[Committed | Conflict]") -> None:
        self._growing.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may have gone

    async def _counted(self, plan: Plan[A]) -> Committed | Conflict:
        try:
            return await self._commit(plan.txn)
        finally:
            for lease, more_bytes in plan.grows:
                self._view.growing[lease] -= more_bytes
                if not self._view.growing[lease]:
                    del self._view.growing[lease]

    async def _count_here(self, plan: Plan[A]) -> None:
        """Makes this the one replica that lets agents join these leases, since only one can count them."""
        grown = [name for name, _ in plan.grows]
        if leases.joined_elsewhere(self._view, grown, self._replica):
            await self.execute(lambda reader: leases.join_through(reader, grown, self._replica))
            raise _AnewError("")


def _name_of(key: str) -> str:
    """The resource that a record is about."""
    return key.partition(":")[2]


def _written(txn: Txn) -> Iterator[str]:
    """The resources that a transaction writes."""
    yield from (_name_of(key) for key, _ in txn.puts)
    yield from map(_name_of, txn.deletes)
