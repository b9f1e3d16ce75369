"""The state behind the handlers: a store, the view of it, and the keeper of leases, with the way writes are made."""

import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import failpoints, names
from holdfast.coordination.v1.decision_service_pb2 import CastVoteRequest, Decision
from holdfast.core import keys, leases
from holdfast.core.activations import ending as activation_endings
from holdfast.core.activations.breaker import POLICY_DEFAULT, Policy
from holdfast.core.decisions import deciding
from holdfast.core.handoffs import deciding as handing
from holdfast.core.state import Plan
from holdfast.deadlines import Deadlines
from holdfast.errors import HoldfastError
from holdfast.failpoints import Failpoint
from holdfast.leases import LeaseKeeper
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.registry.v1.lease_service_pb2 import RevokeLeaseResponse
from holdfast.replicas import TAKEN_AT_ONCE, TAKEOVER_S, Replicas
from holdfast.service.audience import Audience
from holdfast.service.heartbeats import Heartbeats
from holdfast.service.holding import Holding
from holdfast.service.voting import Voting
from holdfast.service.writing import Writer
from holdfast.storage.v1.records_pb2 import LeaseEndReason
from holdfast.store.interface import Store, Txn
from holdfast.timers import timer_of
from holdfast.view import View

A = TypeVar("A")


def random_id() -> str:
    """A version 4 UUID; no secret, so the system is not asked for each, which would cost as much as a decision."""
    return UUID(int=random.getrandbits(128), version=4).hex


class Registry:
    """One replica's state.

    Args:
        store: Where everything durable lives.
        clock: A monotonic clock, in seconds.
        wall_clock: Unix time, in seconds; for what people read and for retention, never for deadlines.
        new_id: Makes ids that never repeat.
        new_key: Makes keys that nobody can guess.
        breaker_policy: When breakers in front of agents open.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = random_id,
        new_key: Callable[[], bytes] = secrets.token_bytes,
        breaker_policy: Policy = POLICY_DEFAULT,
    ) -> None:
        self.store = store
        self.clock = clock
        self.wall_clock = wall_clock
        self.new_id = new_id
        self._new_key = new_key
        self.replica = new_id()
        self.keeper = self._shared_keeper() if store.is_shared else LeaseKeeper(clock, self._expire)
        self._when_due: dict[str, Callable[[str], Awaitable[object]]] = {
            "decisions": self._end_voting,
            "activations": self._time_passed,
            "agents": self._time_passed,
            "handoffs": self._offer_over,
        }
        self.deadlines = Deadlines(clock, wall_clock, self._act_on_deadline)
        self.view = View(self.keeper, self.deadlines, breaker_policy)
        self.holding = Holding(self.take, self.now, self.deadlines)
        self.view.holds.listener = self.holding
        self._when_due |= {"locks": self.holding.end_delay, "elections": self.holding.end_delay}
        self.replicas = Replicas(self.replica, store, self.view, clock, self.now) if store.is_shared else None
        self.audience = Audience()
        self.heartbeats = Heartbeats(clock)
        self._writer = Writer(store, self.view, self.replica)
        self.voting = Voting(self._count_votes)

    def now(self) -> Timestamp:
        """The wall clock's time."""
        now = Timestamp()
        now.FromMilliseconds(int(self.wall_clock() * 1000))
        return now

    def _shared_keeper(self) -> LeaseKeeper:
        return LeaseKeeper(
            self.clock,
            self._expire,
            owns=lambda lease: lease.record.owner == self.replica,
            may_keep=lambda: self.replicas is not None and self.replicas.may_keep,
            moved_grace_s=TAKEOVER_S,
        )

    async def follow_store(self) -> None:
        """Builds the view and keeps it up with the store, until cancelled."""
        try:
            await self.view.run(self.store)
        finally:
            self._writer.stop()
            self.voting.stop()
            self.holding.stop()

    async def start_keeping(self) -> None:
        """Gives every lease its full TTL, then ends those nobody keeps, until cancelled; the view must be whole."""
        self.keeper.restart_clocks()
        await self.keeper.run()

    async def execute(self, decide: Callable[[View], Plan[A]]) -> A:
        """Decides on the view, and writes under the condition that the decision still holds; anew when it does not.

        Those who would change one resource at once do so one after the other.

        A refusal counts only if it was decided on a view as new as the call. What is written needs no such look-up: the
        comparisons of its transaction say the same.

        Raises:
            HoldfastError: What `decide` raises, what the store raises, or TXN_CONFLICT.
        """
        return await self._writer.execute(decide)

    async def take(self, decide: Callable[[View], Plan[A]]) -> A:
        """As `execute`, for what gives someone a fence: there a crash is most dangerous, so tests make one there."""

        def taking(reader: View) -> Plan[A]:
            plan = decide(reader)
            failpoints.hit(Failpoint.BEFORE_FENCE)
            return plan

        answer = await self.execute(taking)
        failpoints.hit(Failpoint.AFTER_FENCE)
        return answer

    async def await_consistency(self, consistency: Consistency.ValueType) -> None:
        """Waits until the view has everything acknowledged before the call, unless SERIALIZABLE is enough."""
        if consistency != Consistency.CONSISTENCY_SERIALIZABLE:
            await self.view.reached(await self.store.current_revision())

    async def page_key(self) -> bytes:
        """What tokens of pages are signed with: made for the first, the same on every replica and after a restart.

        Raises:
            HoldfastError: STORE_UNAVAILABLE, at the first.
        """
        known = self.view.secret(keys.PAGES)
        return known or await self.execute(lambda reader: keys.keep(reader, keys.PAGES, self._new_key()))

    async def revoke(self, name: str) -> RevokeLeaseResponse:
        """Ends a lease because its holder asks for it.

        Raises:
            HoldfastError: LEASE_NOT_FOUND, STORE_UNAVAILABLE.
        """
        reason = LeaseEndReason.LEASE_END_REASON_REVOKED
        return await self.execute(lambda reader: leases.end(reader, name, reason, self.now()))

    async def take_in(self, asked: Iterable[str]) -> None:
        """Moves leases here that other replicas keep, since their holder came here; those that do not stand stay away.

        Raises:
            HoldfastError: STORE_UNAVAILABLE.
        """
        if self.replicas is None or not self.replicas.may_keep:
            return
        moving = list(dict.fromkeys(asked))
        for first in range(0, len(moving), TAKEN_AT_ONCE):
            some = moving[first : first + TAKEN_AT_ONCE]
            await self.execute(lambda reader, some=some: leases.move(reader, some, self.replica))  # type: ignore[misc]

    async def _act_on_deadline(self, name: str) -> None:
        """Does what the passing of a resource's deadline does, by its collection."""
        await self._when_due[names.collection_of(name)](name)

    async def _count_votes(self, together: Sequence[CastVoteRequest]) -> Sequence[Decision | HoldfastError]:
        """Casts votes on one decision."""
        await self.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)  # a refusal is as new as its call
        name = together[0].decision
        return await self.execute(
            lambda reader: deciding.vote(reader, together, self.now(), is_over=self.deadlines.is_past(name))
        )

    async def _end_voting(self, name: str) -> None:
        """Does what the passing of a decision's deadline does."""
        await self.execute(
            lambda reader: deciding.expire(reader, name, self.now(), is_over=self.deadlines.is_past(name))
        )

    async def _time_passed(self, key: str) -> None:
        """Does what the passing of a time does that an activation, or an agent's breaker, waited for."""
        timer, name = timer_of(key)

        def decide(reader: View) -> Plan[bool]:
            if not self.deadlines.is_past(key):  # something was heard meanwhile
                return Plan(Txn(), lambda _: False)
            return activation_endings.pass_time(reader, timer, name, self.now())

        await self.execute(decide)

    async def _offer_over(self, name: str) -> None:
        """Does what the passing of an offer's deadline does."""
        await self.execute(
            lambda reader: handing.expire(reader, name, self.now(), is_over=self.deadlines.is_past(name))
        )

    def _still(self, due: Sequence[str]) -> Sequence[str]:
        return [name for name in due if self.keeper.is_ending(name)]

    async def _expire(self, due: Sequence[str]) -> int:
        """Ends leases that have run out, in as few revisions as may be; returns how many it ended."""
        ended = 0
        failpoints.hit(Failpoint.BEFORE_EXPIRY)
        while more := await self.execute(lambda reader: leases.expire(reader, self._still(due), self.now())):
            failpoints.hit(Failpoint.AFTER_EXPIRY)
            ended += more
        return ended
