"""What all callers together can make the service hold has a bound, and a refusal names it."""

from collections.abc import Awaitable

import pytest

from holdfast.core import quotas, retention
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness
from holdfast.service.janitor import Janitor
from support.replica import PARENT, Replica, replica
from support.same_view import assert_view_is_what_the_store_says


async def assert_full(call: Awaitable[object], limit: int, subject: str) -> None:
    with pytest.raises(HoldfastError) as error:
        await call
    assert error.value.reason is Reason.QUOTA_EXCEEDED
    assert (error.value.subject, error.value.metadata["limit"]) == (subject, str(limit))
    assert str(limit) in error.value.message


async def test_leases_that_stand_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Granted or private; one that ends makes room, and an agent that follows itself needs none."""
    monkeypatch.setattr(quotas, "LEASES_MAX", 2)
    async with replica() as here:
        shared, own = await here.grant(request_id="r"), await here.register("own")
        await assert_full(here.grant(), 2, "leases")
        await assert_full(here.register("more"), 2, "leases")
        assert await here.grant(request_id="r") == shared, "a repeated request asks for nothing more"
        assert (await here.register("own", fence=own.fence)).uid != own.uid
        await here.register("joins", agent=Agent(lease=shared.name))
        await here.revoke(shared.name)
        await here.register("more")
        assert here.registry.view.leases.standing_count == 2
        await assert_view_is_what_the_store_says(here.registry)


async def test_live_agents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that expired make room at once."""
    monkeypatch.setattr(quotas, "AGENTS_MAX", 2)
    async with replica() as here:
        first, second = await here.register("a"), await here.register("b")
        await assert_full(here.register("c"), 2, "agents")
        await assert_full(here.batch({"c": {}}), 2, "agents")
        await here.register("a", fence=first.fence)
        await here.revoke(second.lease)
        await here.register("c")
        await assert_full(here.register("b"), 2, "agents")
        await assert_view_is_what_the_store_says(here.registry)


async def test_bytes_of_live_agents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few they are: registered anew, in the place of themselves, or changed."""
    large = Agent(labels={f"l{number}": "x" * 256 for number in range(16)})
    async with replica() as here:
        small = await here.register("small")
        await here.register("large", agent=large)
        limit = here.registry.view.live_bytes + 1000
        monkeypatch.setattr(quotas, "AGENTS_BYTES_MAX", limit)
        await assert_full(here.register("other", agent=large), limit, "agents")
        await assert_full(here.register("small", agent=large, fence=small.fence), limit, "agents")
        await assert_full(here.update("small", {"labels": large.labels}, "labels"), limit, "agents")
        await here.update("large", {"domain": "d", "labels": {}}, "domain", "labels")
        await here.register("other", agent=large)
        await assert_view_is_what_the_store_says(here.registry)


async def test_what_operators_decided_is_bounded_and_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register, ban, deregister under fresh names comes to its end; who is banned stays so."""
    monkeypatch.setattr(quotas, "RULINGS_MAX", 3)
    async with replica() as here:
        for number in range(3):
            await banned_and_gone(here, f"a{number}")
        await here.register("b")
        await assert_full(here.rule("ban", "b"), 3, "rulings")
        assert (await here.rule("unban", "a0")).admin_state == AdminState.ADMIN_STATE_CORDONED
        await assert_full(here.rule("cordon", "b"), 3, "rulings")
        await here.rule("uncordon", "a0")
        assert (await here.rule("ban", "b")).admin_state == AdminState.ADMIN_STATE_BANNED
        with pytest.raises(HoldfastError) as error:
            await here.register("a1")
        assert error.value.reason is Reason.AGENT_BANNED


async def banned_and_gone(here: Replica, agent_id: str) -> None:
    await here.register(agent_id)
    await here.rule("ban", agent_id)
    await here.deregister(agent_id)


@pytest.mark.parametrize(("limit", "most"), [("ENDED_MAX", 3), ("EXPIRED_MAX", 6), ("EXPIRED_BYTES_MAX", 1800)])
async def test_the_first_ended_are_forgotten_when_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """Leases, agents, or bytes of agents; what ended last is still told as EXPIRED, and no more goes than must."""
    async with replica() as here:
        for number in range(6):
            lease = (await here.grant()).name
            for each in "ab":
                await here.register(f"{each}{number}", agent=Agent(lease=lease, display_name="x" * 100))
            await here.revoke(lease)
        monkeypatch.setattr(retention, limit, most)
        await Janitor(here.registry).make_round()
        view = here.registry.view
        assert (view.leases.ended_count, view.expired_count) == (3, 6)
        assert (await here.get("b5")).liveness == AgentLiveness.AGENT_LIVENESS_EXPIRED
        assert view.agent(f"{PARENT}/agents/a2") is None
