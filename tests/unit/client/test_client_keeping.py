"""Keepalives: when they were sent is what counts, many share a message, and a stream that does not answer is left."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import pytest

from holdfast.client import keeping
from holdfast.client.keeping import Keeper
from holdfast.client.proof import Proof
from holdfast.registry.v1.lease_service_pb2 import (
    KeepLeaseAliveRequest,
    KeepLeaseAliveResponse,
    KeepLeaseAliveResult,
)
from holdfast.testing import Clock

Answer = Callable[[KeepLeaseAliveRequest], KeepLeaseAliveResponse | None]


def kept(request: KeepLeaseAliveRequest) -> KeepLeaseAliveResponse:
    return KeepLeaseAliveResponse(results=[KeepLeaseAliveResult(lease=lease) for lease in request.leases])


def unknown(request: KeepLeaseAliveRequest) -> KeepLeaseAliveResponse:
    response = kept(request)
    for result in response.results:
        result.status.code = 14
    return response


@dataclass
class Stream:
    """Answers each message by the next rule, or never."""

    service: "Service"
    waiting: list[KeepLeaseAliveResponse | None] = field(default_factory=list)

    async def write(self, request: KeepLeaseAliveRequest) -> None:
        self.service.sent.append((self.service.clock(), list(request.leases)))
        rule = self.service.rules.pop(0) if self.service.rules else kept
        self.waiting.append(rule(request) if rule is not None else None)

    async def read(self) -> KeepLeaseAliveResponse:
        answer = self.waiting.pop(0)
        self.service.clock.now_s += self.service.flight_s
        if answer is None:
            await asyncio.Event().wait()
        assert answer is not None
        return answer


@dataclass
class Service:
    """The far end of all connections: what it was sent when, and how it answers."""

    clock: Clock
    rules: list[Answer | None] = field(default_factory=list)
    sent: list[tuple[float, list[str]]] = field(default_factory=list)
    dialled: int = 0
    closed: int = 0
    flight_s: float = 0.0
    target: str = "x:1"

    def dial(self) -> "Service":
        self.dialled += 1
        return self

    @property
    def channel(self) -> "Service":
        return self

    def unary_unary(self, *_: object, **__: object) -> None:
        """Other calls of the service."""

    def stream_stream(self, *_: object, **__: object) -> Callable[[], Stream]:
        return lambda: Stream(self)

    async def ready(self, _timeout_s: float) -> None:
        """It stands."""

    async def close(self) -> None:
        self.closed += 1


@dataclass(eq=False)
class Lease:
    """One that is kept."""

    lease: str
    proof: Proof
    clock: Clock
    answers: int = 0

    @property
    def ttl_s(self) -> float:
        return self.proof.ttl_s

    def answered(self, sent_s: float, result: KeepLeaseAliveResult) -> None:
        assert result.lease == self.lease
        self.answers += 1
        if not result.HasField("status"):
            self.proof.kept(sent_s, self.clock())

    def look(self) -> float | None:
        return self.proof.until_s - self.clock() if self.proof.is_proven(self.clock()) else None


@pytest.fixture
def service() -> Service:
    return Service(Clock())


@pytest.fixture
async def keeper(service: Service) -> AsyncIterator[Keeper]:
    keeper = Keeper(service.dial, service.clock)  # type: ignore[arg-type] # as much of a connection as it needs
    yield keeper
    await keeper.close()


def lease(service: Service, name: str, ttl_s: float = 30.0) -> Lease:
    return Lease(name, Proof(ttl_s, ttl_s / 10, service.clock()), service.clock)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what the keeper's tasks do
            await asyncio.sleep(0.001)


async def test_what_counts_is_when_it_was_sent_not_when_it_was_answered(service: Service, keeper: Keeper) -> None:
    """The server's TTL began when it received it; the answer may be long under way."""
    one = lease(service, "a")
    service.flight_s = 4.0
    keeper.add(one)
    service.clock.now_s += 10
    await until(lambda: one.answers)
    sent_s = service.sent[0][0]
    assert one.proof.sent_s == sent_s
    assert one.proof.until_s == sent_s + 27
    assert service.clock() == sent_s + 4


async def test_it_is_kept_three_times_in_a_ttl(service: Service, keeper: Keeper) -> None:
    one = lease(service, "a")
    began_s = service.clock()
    keeper.add(one)
    for answers in (1, 2, 3, 4):
        service.clock.now_s += 10
        await until(lambda answers=answers: one.answers == answers)
    assert [sent_s - began_s for sent_s, _ in service.sent] == [10, 20, 30, 40]


async def test_leases_due_together_share_a_message_and_a_message_has_a_bound(
    service: Service, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LEASES_PER_MESSAGE", 4)
    leases = [lease(service, f"l{n}") for n in range(10)]
    for each in leases:
        keeper.add(each)
    service.clock.now_s += 10
    await until(lambda: all(each.answers for each in leases))
    assert [len(names) for _, names in service.sent] == [4, 4, 2]
    assert service.dialled == 1


async def test_a_stream_that_does_not_answer_is_left_for_another_connection(service: Service, keeper: Keeper) -> None:
    one = lease(service, "a", ttl_s=1.0)
    service.rules = [None, kept]
    keeper.add(one)
    service.clock.now_s += 0.4
    await until(lambda: one.answers)
    assert (service.dialled, service.closed) == (2, 1)


async def test_where_the_server_cannot_say_it_asks_again_soon_and_on_the_same_stream(
    service: Service, keeper: Keeper
) -> None:
    one = lease(service, "a")
    service.rules = [unknown, kept]
    keeper.add(one)
    service.clock.now_s += 10
    await until(lambda: one.answers == 1)
    before_s = one.proof.sent_s
    service.clock.now_s += keeping.RETRY_S
    await until(lambda: one.answers == 2)
    assert one.proof.sent_s > before_s
    assert service.dialled == 1


async def test_what_is_lost_is_kept_no_longer(service: Service, keeper: Keeper) -> None:
    """Its work was told to stop: keeping it would only make others wait."""
    one, two = lease(service, "a", ttl_s=10), lease(service, "b", ttl_s=1000)
    keeper.add(one)
    keeper.add(two)
    service.clock.now_s += 400
    await until(lambda: two.answers)
    assert [names for _, names in service.sent] == [["b"]]
    assert len(keeper) == 1


async def test_the_last_one_ends_the_stream_and_the_next_begins_another(service: Service, keeper: Keeper) -> None:
    for n in (1, 2):
        one = lease(service, "a")
        keeper.add(one)
        await until(lambda n=n: service.dialled == n)
        await keeper.remove(one)
        assert service.closed == n


async def test_a_server_that_ends_the_stream_is_dialled_again(service: Service, keeper: Keeper) -> None:
    def ends(_request: KeepLeaseAliveRequest) -> KeepLeaseAliveResponse:
        return grpc.aio.EOF  # type: ignore[return-value]

    one = lease(service, "a")
    service.rules = [ends, kept]
    keeper.add(one)
    service.clock.now_s += 10
    await until(lambda: one.answers)
    assert service.dialled == 2
