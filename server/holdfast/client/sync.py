"""The client for programs without asyncio: the same, with one event loop in a thread behind it.

```python
with Client("127.0.0.1:50051") as client:
    with client.session(agent="builder-1") as session:
        build(fence=session.fence)
```

Nothing is done twice: each name here runs what has that name in `holdfast.client`, whose documentation holds. What
differs: a block of work cannot be cancelled from another thread, so ask. `session.fence`, `lock.fence` and `check()`
raise, in any thread, as soon as what they are of is not proven, and so does the end of a lock's block.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import grpc

from holdfast import client as aio
from holdfast.client import clock as clocks
from holdfast.client.background import BackgroundLoop
from holdfast.registry.v1.agent_pb2 import Agent

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
S = TypeVar("S", bound="Facade[Any]")


class Facade(Generic[A]):
    """Something of `holdfast.client`, and the loop it lives in."""

    def __init__(self, inner: A, loop: BackgroundLoop) -> None:
        self._inner = inner
        self._loop = loop


class Asks(Generic[P, R]):
    """A method that is called as it is: it is safe in any thread."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, facade: Facade[Any], _owner: type | None = None) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return self._method(facade._inner, *args, **kwargs)  # noqa: SLF001 - of one module

        return call


class Waits(Generic[P, R]):
    """A method that waits for the coroutine of the same name."""

    def __init__(self, method: Callable[Concatenate[Any, P], Awaitable[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, facade: Facade[Any], _owner: type | None = None) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return facade._loop.run(self._method(facade._inner, *args, **kwargs))  # noqa: SLF001 - of one module

        return call


class Iterates(Generic[P, R]):
    """A method that gives what the asynchronous iterator of the same name gives."""

    def __init__(self, method: Callable[Concatenate[Any, P], AsyncIterator[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, facade: Facade[Any], _owner: type | None = None) -> Callable[P, Generator[R, None, None]]:
        def call(*args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
            return facade._loop.iterated(lambda: self._method(facade._inner, *args, **kwargs))  # noqa: SLF001

        return call


class Enters(Generic[P, S]):
    """A method that gives a block around the asynchronous one of the same name."""

    def __init__(self, method: Callable[Concatenate[Any, P], AbstractAsyncContextManager[Any]], gives: type[S]) -> None:
        self._method = method
        self._gives = gives
        self.__doc__ = method.__doc__

    def __get__(self, facade: Facade[Any], _owner: type | None = None) -> Callable[P, AbstractContextManager[S]]:
        @contextmanager
        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[S]:
            loop = facade._loop  # noqa: SLF001
            with loop.entered(lambda: self._method(facade._inner, *args, **kwargs)) as inner:  # noqa: SLF001
                yield self._gives(inner, loop)

        return call


class Agents(Facade[aio.Agents]):
    """See `holdfast.client.Agents`."""

    register = Waits(aio.Agents.register)
    register_batch = Waits(aio.Agents.register_batch)
    get = Waits(aio.Agents.get)
    list = Iterates(aio.Agents.list)
    update = Waits(aio.Agents.update)
    deregister = Waits(aio.Agents.deregister)
    watch = Iterates(aio.Agents.watch)
    match = Waits(aio.Agents.match)
    cordon = Waits(aio.Agents.cordon)
    uncordon = Waits(aio.Agents.uncordon)
    drain = Waits(aio.Agents.drain)
    ban = Waits(aio.Agents.ban)
    unban = Waits(aio.Agents.unban)


class Leases(Facade[aio.Leases]):
    """See `holdfast.client.Leases`."""

    grant = Waits(aio.Leases.grant)
    revoke = Waits(aio.Leases.revoke)
    get = Waits(aio.Leases.get)
    list = Iterates(aio.Leases.list)


class Activations(Facade[aio.Activations]):
    """See `holdfast.client.Activations`."""

    create = Waits(aio.Activations.create)
    get = Waits(aio.Activations.get)
    list = Iterates(aio.Activations.list)
    cancel = Waits(aio.Activations.cancel)
    requeue = Waits(aio.Activations.requeue)
    fetch = Waits(aio.Activations.fetch)
    accept = Waits(aio.Activations.accept)
    decline = Waits(aio.Activations.decline)
    heartbeat = Waits(aio.Activations.heartbeat)
    complete = Waits(aio.Activations.complete)
    fail = Waits(aio.Activations.fail)
    watch = Iterates(aio.Activations.watch)
    ended = Waits(aio.Activations.ended)


class Decisions(Facade[aio.Decisions]):
    """See `holdfast.client.Decisions`."""

    create = Waits(aio.Decisions.create)
    get = Waits(aio.Decisions.get)
    list = Iterates(aio.Decisions.list)
    vote = Waits(aio.Decisions.vote)
    close = Waits(aio.Decisions.close)
    cancel = Waits(aio.Decisions.cancel)
    resolve = Waits(aio.Decisions.resolve)
    watch = Iterates(aio.Decisions.watch)
    ended = Waits(aio.Decisions.ended)


class Handoffs(Facade[aio.Handoffs]):
    """See `holdfast.client.Handoffs`."""

    offer = Waits(aio.Handoffs.offer)
    accept = Waits(aio.Handoffs.accept)
    reject = Waits(aio.Handoffs.reject)
    withdraw = Waits(aio.Handoffs.withdraw)
    get = Waits(aio.Handoffs.get)
    list = Iterates(aio.Handoffs.list)


class Locks(Facade[aio.Locks]):
    """See `holdfast.client.Locks`."""

    acquire = Waits(aio.Locks.acquire)
    release = Waits(aio.Locks.release)
    get = Waits(aio.Locks.get)
    list = Iterates(aio.Locks.list)
    verify_fence = Waits(aio.Locks.verify_fence)
    force_release = Waits(aio.Locks.force_release)


class Elections(Facade[aio.Elections]):
    """See `holdfast.client.Elections`."""

    campaign = Waits(aio.Elections.campaign)
    proclaim = Waits(aio.Elections.proclaim)
    resign = Waits(aio.Elections.resign)
    get = Waits(aio.Elections.get)
    observe = Iterates(aio.Elections.observe)


class Breakers(Facade[aio.Breakers]):
    """See `holdfast.client.Breakers`."""

    list = Iterates(aio.Breakers.list)
    reset = Waits(aio.Breakers.reset)


class HeldLock(Facade[aio.HeldLock]):
    """A lock that is held. `fence` and `check` raise as soon as it is not proven."""

    check = Asks(aio.HeldLock.check)

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._inner.name

    @property
    def fence(self) -> int:
        """The fence to send with each write. Ask for it each time: that is the check."""
        return self._inner.fence


class HeldLeadership(Facade[aio.HeldLeadership]):
    """A leadership that is held. `fence` and `check` raise as soon as it is not proven."""

    check = Asks(aio.HeldLeadership.check)
    proclaim = Waits(aio.HeldLeadership.proclaim)

    @property
    def name(self) -> str:
        """The election's name."""
        return self._inner.name

    @property
    def fence(self) -> int:
        """The fence to send with each write. Ask for it each time: that is the check."""
        return self._inner.fence


class Work(Facade[aio.Work]):
    """A piece of work that is being done. `fence` and `check` raise as soon as it is not proven."""

    check = Asks(aio.Work.check)
    progress = Asks(aio.Work.progress)

    @property
    def name(self) -> str:
        """The activation's name."""
        return self._inner.name

    @property
    def payload(self) -> bytes:
        """What is to be done."""
        return self._inner.payload

    @property
    def fence(self) -> int:
        """The fence to send with each write. Ask for it each time: that is the check."""
        return self._inner.fence


class Session(Facade[aio.Session]):
    """A lease that the client keeps, in its thread. `fence` and `check` raise as soon as it is not proven."""

    check = Asks(aio.Session.check)
    lock = Enters(aio.Session.lock, HeldLock)
    leader = Enters(aio.Session.leader, HeldLeadership)
    vote = Waits(aio.Session.vote)

    def work(self, handler: Callable[[Work], bytes]) -> None:
        """Does all that is assigned to the agent until the session ends, each piece in a thread of its own.

        A thread cannot be cancelled, and its end is waited for: let the handler ask for `work.fence` at each write, or
        `check` in between.

        Args:
            handler: Does one piece; what it returns is the result. See `holdfast.client.Session.work`.

        Raises:
            HoldError: The session was lost.
            HoldfastError: The agent gets no work any more.
        """

        async def inside(work: aio.Work) -> bytes:
            return await asyncio.get_running_loop().run_in_executor(threads, handler, Work(work, self._loop))

        with ThreadPoolExecutor(self.agent.max_concurrency, "holdfast-work") as threads:
            self._loop.run(self._inner.work(inside))

    @property
    def lease(self) -> str:
        """The lease's name."""
        return self._inner.lease

    @property
    def agent(self) -> Agent:
        """The agent as it was registered."""
        return self._inner.agent

    @property
    def fence(self) -> int:
        """The agent's fence, or the lease's where there is no agent."""
        return self._inner.fence

    @property
    def is_proven(self) -> bool:
        """Whether it can be relied on at this moment."""
        return self._inner.is_proven

    @property
    def is_draining(self) -> bool:
        """Whether an operator wants what this agent has finished and nothing new begun."""
        return self._inner.draining.is_set()


class Client(Facade[aio.Client]):
    """A client of a Holdfast server: `with Client("127.0.0.1:50051") as client:`. Any thread may use it.

    The arguments are those of `holdfast.client.Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        namespace: str = "default",
        timeouts: aio.Timeouts | None = None,
        retries: aio.RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = clocks.now_s,
    ) -> None:
        inner = aio.Client(
            target, namespace=namespace, timeouts=timeouts, retries=retries, credentials=credentials, clock=clock
        )
        super().__init__(inner, BackgroundLoop())
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self._loop)
            opening.enter_context(self._loop.entered(lambda: self._inner))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def agents(self) -> Agents:
        """The registry of agents."""
        return Agents(self._inner.agents, self._loop)

    @property
    def leases(self) -> Leases:
        """Leases, without a session around them."""
        return Leases(self._inner.leases, self._loop)

    @property
    def activations(self) -> Activations:
        """Pieces of work."""
        return Activations(self._inner.activations, self._loop)

    @property
    def decisions(self) -> Decisions:
        """Questions put to agents."""
        return Decisions(self._inner.decisions, self._loop)

    @property
    def handoffs(self) -> Handoffs:
        """Work that changes hands."""
        return Handoffs(self._inner.handoffs, self._loop)

    @property
    def locks(self) -> Locks:
        """Locks, without a session around them."""
        return Locks(self._inner.locks, self._loop)

    @property
    def elections(self) -> Elections:
        """Elections, and who leads them."""
        return Elections(self._inner.elections, self._loop)

    @property
    def breakers(self) -> Breakers:
        """Breakers in front of agents, for operators."""
        return Breakers(self._inner.breakers, self._loop)

    session = Enters(aio.Client.session, Session)
