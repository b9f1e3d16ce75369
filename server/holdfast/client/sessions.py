"""Sessions: a lease that is kept, what hangs on it, and the moment from which it must not be relied on."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from holdfast.client.errors import SessionEndedError, SessionLostError, from_status
from holdfast.client.guards import Guard
from holdfast.client.proof import Proof
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveResult, LeaseDirective


class Session:
    """A lease that this client keeps. Made by `Client.session`.

    It fences itself: once `TTL - margin` has passed since the last acknowledged keepalive was *sent*, it is lost,
    before the server could have given away what hangs on it. Lost is for good; begin another.

    Attributes:
        lost: Set when it is lost.
        registered: Its agent as it was registered, if it has one.
        draining: Set when an operator wants what this agent has finished and nothing new begun.
    """

    def __init__(self, lease: str, lease_fence: int, proof: Proof, clock: Callable[[], float]) -> None:
        self.lost = asyncio.Event()
        self.draining = asyncio.Event()
        self.registered: Agent | None = None
        self._lease = lease
        self._lease_fence = lease_fence
        self._proof = proof
        self._clock = clock
        self._guards: set[Guard] = set()
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

    def guard(self) -> AbstractAsyncContextManager[object]:
        """A block that is cancelled when the session is lost, and then raises SessionLostError."""
        return Guard(self.check, self._guards)

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

    def look(self) -> float:
        """Stops the work if the session is lost. Returns how long until that can be, in seconds."""
        now_s = self._clock()
        if not self._proof.is_proven(now_s) and not self.lost.is_set():
            self.lost.set()
            for guard in list(self._guards):
                guard.stop()
        return self._proof.until_s - now_s if not self.lost.is_set() else float("inf")

    def end(self) -> None:
        """Nothing rests on it any more."""
        self._is_ended = True
        for guard in list(self._guards):
            guard.stop()
