"""WatchActivations: what is told where one revision changes more than one message may have."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.service.context import CallContext
from support.replica import CALL, PARENT, Replica, replica
from support.working import agent

MESSAGE_BYTES_MAX = 4 << 20
"""What gRPC clients take unless told otherwise."""


@contextlib.asynccontextmanager
async def watching(here: Replica, **fields: object) -> AsyncIterator[AsyncIterator[pb.WatchActivationsResponse]]:
    """A watch, closed at the end of the block."""
    request = pb.WatchActivationsRequest(parent=PARENT, **fields)
    responses = here.activations.watch_activations(request, CallContext("service", "method", "correlation", ""))

    async def parsed() -> AsyncIterator[pb.WatchActivationsResponse]:
        async for each in responses:
            encoded = each if isinstance(each, bytes) else each.SerializeToString()
            yield pb.WatchActivationsResponse.FromString(encoded)

    async with asyncio.timeout(60), contextlib.aclosing(parsed()) as read_out:
        yield read_out


async def one_revision(responses: AsyncIterator[pb.WatchActivationsResponse]) -> list[pb.WatchActivationsResponse]:
    """The messages of one revision, up to the one that says that it is the last."""
    found = [await anext(responses)]
    while found[-1].events.continues:
        found.append(await anext(responses))
        assert found[-1].revision == found[0].revision
    return found


async def burdened(here: Replica, count: int, *names: str) -> str:
    """A lease whose agents hold so many activations together; its name."""
    lease = (await here.grant(ttl_s=3600)).name
    for name in names:
        await here.register(name, agent=Agent(lease=lease, max_concurrency=count))
    for number in range(count):
        activation = pb.Activation(
            selector=AgentSelector(agent=agent(names[number % len(names)])),
            correlation_id=f"{number:0128d}",
            traceparent="t" * 128,
            requester="r" * 160,
        )
        request = pb.CreateActivationRequest(parent=PARENT, activation=activation)
        await here.activations.create_activation(request, CALL)
    await here.settle()
    assert sum(here.registry.view.slots_held(agent(name)) for name in names) == count
    return lease


async def test_the_end_of_a_lease_that_held_thousands_is_told_whole_in_messages_that_clients_take() -> None:
    """W4, L3: parts of one revision, each activation once, the last says that it is; then the next revision."""
    async with replica() as here:
        lease = await burdened(here, 7_000, "a", "b")
        start = here.registry.store.revision + 1
        revision = await here.revoke(lease)
        async with watching(here, start_revision=start) as responses:
            parts = await one_revision(responses)
            assert len(parts) > 2
            assert parts[0].revision == revision
            assert all(each.ByteSize() < MESSAGE_BYTES_MAX for each in parts)
            told = [each for part in parts for each in part.events.activations]
            assert sum(each.ByteSize() for each in told) > MESSAGE_BYTES_MAX
            assert len({each.name for each in told}) == len(told) == 7_000
            assert {each.state for each in told} == {pb.ACTIVATION_STATE_BACKOFF}
            await here.register("c")
            await here.settle()
            assert (await one_revision(responses))[0].revision > revision


@pytest.mark.parametrize(
    ("only", "sizes"),
    [
        ("", [3, 3, 3, 1]),
        (f'agent = "{agent("a")}"', [3, 2]),
        ('agent = "nobody"', []),
        ("state = BACKOFF", [3, 3, 3, 1]),
    ],
)
async def test_a_filter_parts_what_it_lets_through(
    only: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are full whatever it leaves out in between, and a revision of which nothing is wanted says nothing."""
    async with replica() as here:
        lease = await burdened(here, 10, "a", "b")
        start = here.registry.store.revision + 1
        revision = await here.revoke(lease)
        (lost,) = here.registry.view.activations.after(PARENT, limit=1)
        shown_bytes = (await here.activations.get_activation(pb.GetActivationRequest(name=lost.name), CALL)).activation
        monkeypatch.setattr("holdfast.service.following.PAGE_BYTES_MAX", 3 * shown_bytes.ByteSize() + 30)
        async with watching(here, start_revision=start, filter=only, progress_notify=True) as responses:
            first = await anext(responses)
            if not sizes:
                assert first.WhichOneof("step") == "progress"
                assert first.revision >= revision
                return
            found = [first]
            while found[-1].events.continues:
                found.append(await anext(responses))
            assert [len(each.events.activations) for each in found] == sizes
            assert {each.revision for each in found} == {revision}


async def test_no_part_is_empty_though_much_is_left_out_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica() as here:
        lease = await burdened(here, 10, "a", "b")
        start = here.registry.store.revision + 1
        revision = await here.revoke(lease)
        monkeypatch.setattr("holdfast.service.following.PAGE_BYTES_MAX", 1)
        async with watching(here, start_revision=start, filter=f'agent = "{agent("a")}"') as responses:
            found = await one_revision(responses)
        assert [len(each.events.activations) for each in found] == [1] * 5
        assert {each.revision for each in found} == {revision}


async def test_a_part_that_is_gone_is_a_reset_and_not_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.service.following.PAGE_BYTES_MAX", 1)
    async with replica() as here:
        lease = await burdened(here, 3, "a")
        start = here.registry.store.revision + 1
        revision = await here.revoke(lease)
        async with watching(here, start_revision=start) as responses:
            assert (await anext(responses)).events.continues
            here.registry.view.history.forget(revision)
            assert (await anext(responses)).WhichOneof("step") == "reset"
