"""The client: a connection, a client for each service, and sessions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

import grpc

from holdfast.client import clock as clocks
from holdfast.client.activations import Activations
from holdfast.client.agents import Agents
from holdfast.client.breakers import Breakers
from holdfast.client.calling import Caller, RetryPolicy, Timeouts
from holdfast.client.connection import Connection, checked_target
from holdfast.client.decisions import Decisions
from holdfast.client.elections import Elections
from holdfast.client.errors import HoldfastError
from holdfast.client.handoffs import Handoffs
from holdfast.client.keeping import Keeper
from holdfast.client.leases import Leases
from holdfast.client.locks import Locks
from holdfast.client.naming import Namespace, duration
from holdfast.client.proof import MARGIN_SHARE, Proof
from holdfast.client.services import Services
from holdfast.client.sessions import Session
from holdfast.registry.v1.agent_pb2 import Agent, Capability

TTL_S_DEFAULT = 30.0
"""The server's own default."""

FAREWELL_S = 2.0
"""Longest that the end of a session waits for the server to take its lease back; without an answer it runs out."""


class Client:
    """A client of a Holdfast server: `async with Client("127.0.0.1:50051") as client:`.

    Args:
        target: `HOST:PORT`, or a gRPC target with a scheme.
        namespace: Where ids are looked for; names reach elsewhere.
        timeouts: How long calls may take.
        retries: How calls that are safe to repeat are repeated.
        credentials: For TLS; None is plaintext.
        clock: What leases are proven by, in seconds. Tests pass one that they move.
    """

    def __init__(
        self,
        target: str,
        *,
        namespace: str = "default",
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = clocks.now_s,
    ) -> None:
        self._target = checked_target(target)
        self._namespace = Namespace(namespace)
        self._timeouts = timeouts or Timeouts()
        self._retries = retries or RetryPolicy()
        self._credentials = credentials
        self._clock = clock
        self._open: Services | None = None

    async def __aenter__(self) -> Self:
        if self._open is not None:
            raise RuntimeError("the client is open already: one 'async with' block for each Client.")
        caller = Caller(self._dial(), self._timeouts, self._retries)
        self._open = Services(caller, self._namespace, Keeper(self._dial, self._clock))
        return self

    async def __aexit__(self, *_: object) -> None:
        is_open, self._open = self._services, None
        await is_open.keeper.close()
        await is_open.caller.connection.close()

    @property
    def agents(self) -> Agents:
        """The registry of agents."""
        return self._services.agents

    @property
    def leases(self) -> Leases:
        """Leases, without a session around them."""
        return self._services.leases

    @property
    def activations(self) -> Activations:
        """Pieces of work."""
        return self._services.activations

    @property
    def decisions(self) -> Decisions:
        """Questions put to agents."""
        return self._services.decisions

    @property
    def handoffs(self) -> Handoffs:
        """Work that changes hands."""
        return self._services.handoffs

    @property
    def locks(self) -> Locks:
        """Locks, without a session around them."""
        return self._services.locks

    @property
    def elections(self) -> Elections:
        """Elections, and who leads them."""
        return self._services.elections

    @property
    def breakers(self) -> Breakers:
        """Breakers in front of agents, for operators."""
        return self._services.breakers

    @property
    def sessions(self) -> int:
        """How many sessions are kept."""
        return len(self._services.keeper)

    def session(
        self,
        agent: str = "",
        *,
        ttl_s: float = TTL_S_DEFAULT,
        margin_s: float | None = None,
        capabilities: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        spec: Agent | None = None,
        fence: int = 0,
    ) -> AbstractAsyncContextManager[Session]:
        """A lease for as long as the block runs, and an agent on it if one is named.

        At the end of the block the agent is deregistered and the lease revoked; what hung on it is free.

        Args:
            agent: The id under which to register.
            ttl_s: How long after its last sign of life the server gives the lease away, 1 s to 24 h.
            margin_s: How long before that this client calls it lost; a tenth of the TTL unless told.
            capabilities: Ids of what the agent can do; or give `spec`.
            labels: The agent's labels; or give `spec`.
            spec: All that the agent is.
            fence: Of the agent's incarnation to take the place of.

        Raises:
            ValueError: Options that do not go together; from the call itself.
            HoldfastError: From entering the block: no lease, or no agent.
        """
        described = bool(capabilities or labels)
        if not agent and (described or spec is not None or fence):
            raise ValueError("capabilities, labels, spec and fence describe an agent: name it with agent='ID'.")
        if described and spec is not None:
            raise ValueError("capabilities and labels beside spec: put them into the spec, or leave the spec out.")
        margin_s = ttl_s * MARGIN_SHARE if margin_s is None else margin_s
        if not 0 < margin_s < ttl_s:
            raise ValueError(f"margin_s is {margin_s} and ttl_s {ttl_s}: the margin is above 0 and less than the TTL.")
        duration(ttl_s, "ttl_s")
        if spec is None:
            spec = Agent(capabilities=[Capability(id=each) for each in capabilities], labels=labels)
        return self._session(agent, ttl_s, margin_s, spec, fence)

    @contextlib.asynccontextmanager
    async def _session(
        self, agent: str, ttl_s: float, margin_s: float, spec: Agent, fence: int
    ) -> AsyncIterator[Session]:
        services = self._services
        sent_s = self._clock()  # before the first attempt: whichever was the one, the lease is no older
        lease = await services.leases.grant(ttl_s)
        proof = Proof(lease.ttl.ToMilliseconds() / 1000, margin_s, sent_s)
        session = Session(services, lease.name, lease.fence, proof, self._clock)
        services.keeper.add(session)
        try:
            if agent:
                joining = Agent()
                joining.CopyFrom(spec)
                joining.lease = lease.name
                session.registered = await services.agents.register(agent, joining, fence=fence)
            yield session
        finally:
            session.end()
            await services.keeper.remove(session)
            await self._say_farewell(session)

    async def _say_farewell(self, session: Session) -> None:
        """Gives back what is held, so that others need not wait; what cannot be given back runs out by itself."""
        services, agent = self._services, session.registered
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                if agent is not None:
                    with contextlib.suppress(HoldfastError):
                        await services.agents.deregister(agent.name, fence=agent.fence)
                with contextlib.suppress(HoldfastError):
                    await services.leases.revoke(session.lease)

    @property
    def _services(self) -> Services:
        if self._open is None:
            raise RuntimeError("the client is not open: make calls inside 'async with Client(...) as client:'.")
        return self._open

    def _dial(self) -> Connection:
        return Connection(self._target, self._credentials)
