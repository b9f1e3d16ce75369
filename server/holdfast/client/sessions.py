"""Sessions: a lease that is kept, what hangs on it, and the moment from which it must not be relied on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from holdfast.client.elections import WAIT_S_MAX
from holdfast.client.errors import SessionEndedError, SessionLostError, from_status
from holdfast.client.guards import Guard, Stoppable
from holdfast.client.locking import HeldLeadership, HeldLock, hold_leadership, hold_lock
from holdfast.client.proof import Proof
from holdfast.client.services import Services
from holdfast.client.working import Assignments, Work, assigned, do_all
from holdfast.coordination.v1.decision_service_pb2 import Decision
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveResult, LeaseDirective

log = logging.getLogger("holdfast.client")


class Session:
    """A lease that this client keeps. Made by `Client.session`.

    It fences itself: once `TTL - margin` has passed since the last acknowledged keepalive was *sent*, it is lost,
    before the server could have given away what hangs on it. Lost is for good; begin another.

    Attributes:
        lost: Set when it is lost.
        registered: Its agent as it was registered, if it has one.
        draining: Set when an operator wants what this agent has finished and nothing new begun.
    """

    def __init__(
        self, services: Services, lease: str, lease_fence: int, proof: Proof, clock: Callable[[], float]
    ) -> None:
        self._services = services
        self._names: set[str] = set()
        self.lost = asyncio.Event()
        self.draining = asyncio.Event()
        self.registered: Agent | None = None
        self._lease = lease
        self._lease_fence = lease_fence
        self._proof = proof
        self._clock = clock
        self._guards: set[Stoppable] = set()
        self._is_ended = False

    @property
    def lease(self) -> str:
        """The lease's name."""
        return self._lease

    @property
    def ttl_s(self) -> float:
        """The lease's TTL, in seconds."""
        return self._proof.ttl_s

    @property
    def agent(self) -> Agent:
        """The agent as it was registered.

        Raises:
            ValueError: The session was begun without one.
        """
        if self.registered is None:
            raise ValueError("this session has no agent: begin it with client.session(agent='ID').")
        return self.registered

    @property
    def fence(self) -> int:
        """The agent's fence, or the lease's where there is no agent.

        Raises:
            HoldError: It is not proven any more.
        """
        self.check()
        return self.registered.fence if self.registered is not None else self._lease_fence

    @property
    def proven_until_s(self) -> float:
        """Until when it can be relied on unless it is kept again, by the client's clock."""
        return self._proof.until_s

    @property
    def is_proven(self) -> bool:
        """Whether it can be relied on at this moment. By the clock, from any thread, whatever the event loop does."""
        return not self._is_ended and self._proof.is_proven(self._clock())

    def check(self) -> None:
        """Does nothing as long as the session can be relied on. By the clock, from any thread.

        Raises:
            SessionLostError: It may have ended.
            SessionEndedError: Its block was left.
        """
        if self._is_ended:
            raise SessionEndedError(f"the session of {self._lease} has ended with its block; begin another.")
        if not self._proof.is_proven(self._clock()):
            raise SessionLostError(f"{self._lease}: {self._proof.why_lost}. Stop what rests on it, then begin another.")

    def lock(
        self, lock: str, *, wait_s: float = 0.0, delay_s: float | None = None, holder: str = ""
    ) -> AbstractAsyncContextManager[HeldLock]:
        """A block in which a lock is held: cancelled when it is lost, and then raises why.

        Args:
            lock: The lock, by id or full name.
            wait_s: How long to wait in line, in seconds; up to 10 min.
            delay_s: How long nobody gets it after this hold is lost, in seconds; the server's own 1 s unless told. As
                long as a write to what it guards may be under way.
            holder: Who holds it, for people; the agent unless told, or the lease.

        Raises:
            LockHeldError: From entering: the wait ended without it.
            RuntimeError: From entering: this session holds it, or waits for it, already.
            HoldError: From the block: it was lost.
        """
        return hold_lock(self._services, self, lock, holder or self._holder, wait_s, delay_s)

    def leader(
        self, election: str, *, value: bytes = b"", wait_s: float = WAIT_S_MAX, candidate: str = ""
    ) -> AbstractAsyncContextManager[HeldLeadership]:
        """A block in which an election is led: cancelled when that is lost, and then raises why.

        Args:
            election: The election, by id or full name.
            value: What to tell observers, such as an address.
            wait_s: How long to wait in line, in seconds; a day unless told.
            candidate: Who leads; the agent unless told, or the lease.

        Raises:
            LockHeldError: From entering: the wait ended without it.
            RuntimeError: From entering: this session leads it, or waits to, already.
            HoldError: From the block: it was lost.
        """
        return hold_leadership(self._services, self, election, candidate or self._holder, value, wait_s)

    def activations(self) -> AbstractAsyncContextManager[Assignments]:
        """A block in which work comes: `async for work in assignments: async with work: …`; see `Assignments`.

        Raises:
            HoldError: From the block: the session was lost.
            HoldfastError: From the iteration: the agent gets no work any more.
        """
        return assigned(self._services, self, self._clock)

    async def work(self, handler: Callable[[Work], Awaitable[bytes]]) -> None:
        """Does all that is assigned to the agent until the session ends, each piece in a task of its own.

        Args:
            handler: Does one piece; what it returns is the result. WorkFailedError says how it failed, any other
                exception is a failure that may be tried again; both are logged, and the next piece goes on.

        Raises:
            HoldError: The session was lost.
            HoldfastError: The agent gets no work any more.
        """
        await do_all(self._services, self, self._clock, handler)

    async def vote(
        self, decision: str, option: str, *, confidence: float | None = None, rationale: str = ""
    ) -> Decision:
        """Votes for the session's agent, with its fence. A lost answer is not repeated; see `Decisions.vote`.

        Raises:
            HoldError: The session is not proven any more; nothing was sent.
            HoldfastError: Why it failed.
        """
        return await self._services.decisions.vote(
            decision, self.agent.name, option, confidence=confidence, rationale=rationale, fence=self.fence
        )

    def guard(self) -> AbstractAsyncContextManager[object]:
        """A block that is cancelled when the session is lost, and then raises SessionLostError."""
        return Guard(self.check, self._guards)

    # As what holds rest on.

    def rest_on(self, work: Stoppable) -> None:
        """Has this work stopped when the session is lost or ends."""
        self._guards.add(work)

    def rest_no_more(self, work: Stoppable) -> None:
        """Forgets it."""
        self._guards.discard(work)

    @contextmanager
    def alone_with(self, name: str) -> Iterator[None]:
        """Keeps two tasks of this session from both holding what the server gives to a session."""
        if name in self._names:
            raise RuntimeError(
                f"this session holds {name}, or waits for it, already, and the server would give it to both: use an "
                "asyncio.Lock between tasks of one session, or a session for each."
            )
        self._names.add(name)
        try:
            yield
        finally:
            self._names.discard(name)

    @property
    def _holder(self) -> str:
        return self.registered.name if self.registered is not None else self._lease

    # As what the keeper keeps.

    def answered(self, sent_s: float, result: KeepLeaseAliveResult) -> None:
        """Takes in what became of a keepalive sent at that moment."""
        if result.directive == LeaseDirective.LEASE_DIRECTIVE_DRAIN:
            self.draining.set()
        elif result.directive == LeaseDirective.LEASE_DIRECTIVE_CONTINUE:
            self.draining.clear()
        if not result.HasField("status"):
            self._proof.kept(sent_s, self._clock())
        elif result.directive == LeaseDirective.LEASE_DIRECTIVE_STOP:
            error = from_status(result.status)
            self._proof.lose(str(error) if error is not None else result.status.message)
        self.look()

    def look(self) -> float | None:
        """Stops the work if the session is lost. Returns how long until that can be, in seconds; None once it is."""
        now_s = self._clock()
        if not self._proof.is_proven(now_s) and not self.lost.is_set():
            self.lost.set()
            log.warning("session lost: %s: %s", self._lease, self._proof.why_lost)
            for guard in list(self._guards):
                guard.stop()
        return None if self.lost.is_set() else self._proof.until_s - now_s

    def end(self) -> None:
        """Nothing rests on it any more."""
        self._is_ended = True
        for guard in list(self._guards):
            guard.stop()
