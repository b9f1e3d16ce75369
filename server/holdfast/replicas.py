"""Replicas that share a store: each proves that it is there, and takes over the leases of those that no longer do.

A lease has one owner, the replica that keeps its deadline in memory. Nothing is compared but intervals of one clock
each:

- A replica writes a beat now and then. It acknowledges keepalives only while its last acknowledged beat *began* less
  than `PROOF_S` ago, and only once its view has reached that beat.
- Another takes over once it has not *seen* a new beat for `TAKEOVER_S`, which is longer, in a transaction that compares
  the beat it saw last: at that revision the owner's proof has run out, since it began before it was seen. A beat that
  comes later finds the leases gone before it gives proof.
- Who takes over gives each lease its full TTL from then. So no lease ends before its last acknowledged keepalive and
  its TTL.
- A keepalive that comes to another replica than the owner moves the lease there at once. The owner may acknowledge one
  more until its view has the move, at most `PROOF_S` later by its own clock: the new owner gives `TAKEOVER_S` more by
  its own. So does who takes over from that one, if the lease came to it after the last beat that was seen of it.

Clocks may run apart by the ratio of the two intervals. A store of one process needs none of this and has none of it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core import leases
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError
from holdfast.storage.v1.records_pb2 import ReplicaRecord
from holdfast.store.interface import Committed, Store, Txn
from holdfast.view import View

BEAT_EVERY_S = 1.0
"""How often a replica says that it is there."""

PROOF_S = 4.0
"""How long a beat proves that nobody has taken over: three may fail before keepalives are refused."""

TAKEOVER_S = 6.0
"""Silence after which a replica's leases are taken over: half as long again as a proof, for clocks that run apart."""

TAKEN_AT_ONCE = 500
"""Leases taken over by one transaction."""


@dataclass(slots=True)
class _Heard:
    """The last beat of another replica: where it was written, and when it was first seen here."""

    mod_revision: int
    at_s: float


class Replicas:
    """What one replica knows of the others. `run` beats and takes over; tests and simulations call `make_round`.

    Args:
        replica: This one's id, new with each start.
        store: The store they share.
        view: The view of it.
        clock: A monotonic clock, in seconds.
        now: The wall clock, for people.
    """

    def __init__(
        self, replica: str, store: Store, view: View, clock: Callable[[], float], now: Callable[[], Timestamp]
    ) -> None:
        self._replica = replica
        self._store = store
        self._view = view
        self._clock = clock
        self._record = ReplicaRecord(start_time=now())
        self._heard: dict[str, _Heard] = {}
        self._proven_s = float("-inf")
        self.takeovers_total = 0

    @property
    def may_keep(self) -> bool:
        """Whether this replica can prove that what it owns has not been taken over."""
        return self._clock() < self._proven_s + PROOF_S

    async def run(self) -> None:
        """Makes a round now and then, until cancelled. A round that the store refuses is made again at the next."""
        while True:
            with contextlib.suppress(HoldfastError):  # what could not be proven is not claimed: `may_keep` says so
                await self.make_round()
            await asyncio.sleep(BEAT_EVERY_S)

    async def make_round(self) -> None:
        """Beats, listens, and takes over from the silent.

        Whoever could not prove to be there itself listens anew: when a store that nobody could reach is back, the first
        to write must not find all others silent.

        Raises:
            HoldfastError: STORE_UNAVAILABLE, OVERLOADED.
        """
        if not self.may_keep:
            self._heard.clear()
        await self._beat()
        for replica in self._silent():
            await self._take_over(replica)

    async def _beat(self) -> None:
        began_s = self._clock()
        self._record.beat += 1
        put = (names.replica_key(self._replica), self._record.SerializeToString())
        outcome = await self._store.commit(Txn(puts=(put,)))
        await self._view.reached(outcome.revision)
        self._proven_s = began_s

    def _silent(self) -> list[str]:
        """Owners of leases that have not been heard for `TAKEOVER_S`, those that never beat included."""
        now_s, silent = self._clock(), []
        others = (self._view.leases.owners | self._view.replicas.keys()) - {self._replica}
        self._heard = {replica: heard for replica, heard in self._heard.items() if replica in others}
        for replica in sorted(others):
            mod_revision = self._view.replicas.get(replica, 0)
            heard = self._heard.get(replica)
            if heard is None or heard.mod_revision != mod_revision:
                self._heard[replica] = _Heard(mod_revision, now_s)
            elif now_s - heard.at_s >= TAKEOVER_S:
                silent.append(replica)
        return silent

    async def _take_over(self, silent: str) -> None:
        """Takes what a silent replica owns, and then its record; a beat of its own, or another's taking, ends it."""
        condition = (names.replica_key(silent), self._heard[silent].mod_revision)
        while due := self._view.leases.owned_by(silent, TAKEN_AT_ONCE):
            plan = leases.take_over(self._view, due, self._replica, condition)
            if not await self._commit(plan):
                return
            self.takeovers_total += len(due)
        if condition[1]:
            await self._commit(Plan(Txn(compares=(condition,), deletes=(condition[0],)), lambda _: None))

    async def _commit(self, plan: Plan[None]) -> bool:
        outcome = await self._store.commit(plan.txn)
        await self._view.reached(outcome.revision)
        return isinstance(outcome, Committed)
