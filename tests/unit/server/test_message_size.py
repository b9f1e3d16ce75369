"""W4 within what gRPC clients take: no revision tells more than one message of 4 MB holds, whoever watches it.

Each case writes the most that one revision may, in the smallest agents or in the largest, and is watched from there.
"""

from collections.abc import Sequence

import pytest

from holdfast.core.retention import EXPIRED_KEPT_S
from holdfast.core.telling import ADDED_BYTES_MAX, CHANGED_BYTES_MAX, MESSAGE_BYTES_MAX
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import BatchRegisterAgentsRequest
from holdfast.service.janitor import Janitor
from support.replica import CALL, PARENT, Replica, replica

KINDS = ["small", "large"]


def labels(kind: str, value: str) -> dict[str, str]:
    """None but one label, or as many as there can be."""
    filling = {f"{number:063}": "x" * 256 for number in range(63)} if kind == "large" else {}
    return {"v": value, **filling}


async def put(here: Replica, agents: Sequence[str], fences: Sequence[int] = (), **fields: object) -> list[Agent]:
    """Registers agents in one batch."""
    request = BatchRegisterAgentsRequest(parent=PARENT)
    for number, agent_id in enumerate(agents):
        one = request.requests.add(parent=PARENT, agent_id=agent_id, agent=Agent(**fields))
        one.fence = fences[number] if fences else 0
    return list((await here.agents.batch_register_agents(request, CALL)).agents)


async def fill(here: Replica, lease: str, kind: str) -> list[Agent]:
    """As many agents as the lease takes."""
    fields = {"lease": lease, "labels": labels(kind, "old")}
    found = await put(here, ["first"], **fields)
    one_bytes = (await here.get("first")).ByteSize() + 16
    count = (CHANGED_BYTES_MAX - one_bytes) // one_bytes
    for first in range(0, count, 5000):
        found += await put(here, [f"a{number}" for number in range(first, min(first + 5000, count))], **fields)
    return found


async def sizes(here: Replica, after: int, *filters: str) -> list[int]:
    """Bytes of the one message with the next revision, by filter."""
    messages = [(await here.watch(1, start_revision=after + 1, filter=only))[0] for only in filters]
    assert {message.revision for message in messages} == {after + 1}
    return [message.ByteSize() for message in messages]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_a_full_lease_fits(kind: str) -> None:
    """Told as EXPIRED, as DELETED to those who ask for the LIVE, as ADDED to those who ask for the EXPIRED."""
    async with replica() as here:
        lease = (await here.grant()).name
        await fill(here, lease, kind)
        before = here.registry.store.revision
        await here.revoke(lease)
        told = await sizes(here, before, "", "lease:*", "liveness = LIVE", "liveness = EXPIRED")
        assert MESSAGE_BYTES_MAX * 0.8 < max(told) <= MESSAGE_BYTES_MAX


def largest(capabilities: int) -> dict[str, object]:
    """An agent of some 2.3 KB for each capability; 256 are the most there can be."""
    tags = [f"{number:02}{'t' * 62}" for number in range(32)]
    many = [Capability(id=f"{number:0127}", version="v" * 63, tags=tags) for number in range(capabilities)]
    return {"labels": labels("large", "old"), "capabilities": many}


async def test_what_is_forgotten_at_one_revision_fits() -> None:
    """Also where little room is left and the next agent is one of the largest: it waits for the next transaction."""
    async with replica() as here:
        for number, capabilities in enumerate((256, 256, 141, 256)):
            await here.revoke((await here.register(f"a{number}", agent=Agent(**largest(capabilities)))).lease)
        before = here.registry.store.revision
        here.clock.now_s += EXPIRED_KEPT_S + 1
        await Janitor(here.registry).make_round()
        assert await here.listed("lease:*") == []
        told = await sizes(here, before, "", "labels.v = old")
        assert MESSAGE_BYTES_MAX * 0.65 < max(told) <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_fits_whatever_it_takes_the_place_of(kind: str) -> None:
    """As many agents as there may be, or the largest, are registered, then taken over with another label, and back."""
    async with replica() as here:
        text = "x" * 130 if kind == "small" else "x"
        agent_bytes = Agent(display_name=text, labels=labels(kind, "old")).ByteSize() + 190
        agents = [f"a{number}" for number in range(min(10_000, ADDED_BYTES_MAX // agent_bytes))]
        fences: list[int] = []
        for value in ("old", "new", "old"):
            before = here.registry.store.revision
            fences = [
                agent.fence for agent in await put(here, agents, fences, display_name=text, labels=labels(kind, value))
            ]
            told = await sizes(here, before, "", "lease:*", f"labels.v = {value}")
            if before:
                told += await sizes(here, before, "labels.v = old", "labels.v = new")
            assert MESSAGE_BYTES_MAX * 0.65 < max(told) <= MESSAGE_BYTES_MAX


async def test_a_batch_that_takes_the_place_of_too_much_is_refused() -> None:
    """Small agents for large ones: a watch that asks for these alone has to be told of each of them."""
    async with replica() as here:
        large = {"labels": labels("large", "old")}
        fences = [(await here.register(f"a{number}", agent=large)).fence for number in range(200)]
        before = here.registry.store.revision
        with pytest.raises(HoldfastError) as refused:
            await put(here, [f"a{number}" for number in range(200)], fences)
        assert refused.value.reason is Reason.INVALID_FIELD
        assert "take the place of" in refused.value.message
        assert here.registry.store.revision == before
        await put(here, [f"a{number}" for number in range(100)], fences)
        assert max(await sizes(here, before, "", "labels.v = old")) <= MESSAGE_BYTES_MAX
