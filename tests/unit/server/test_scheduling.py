"""Who gets what: by score, fair among those who ask, and found again whenever something changes."""

import random
from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations import scheduling, sharing
from holdfast.core.activations.assigning import can_take, room
from holdfast.core.activations.entry import ActivationEntry
from holdfast.core.activations.scheduling import AGE_S_PER_POINT, POINTS_PER_LEAD
from holdfast.core.state import AgentEntry
from holdfast.errors import HoldfastError
from holdfast.registry.v1.agent_pb2 import Agent, AgentTier, Capability
from support.replica import CALL, PARENT, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work, agent

T = TypeVar("T")

ASSIGNED, PENDING = pb.ACTIVATION_STATE_ASSIGNED, pb.ACTIVATION_STATE_PENDING


async def order_of(work: Work, name: str = "a") -> list[str]:
    """Payloads in the order in which an agent with one slot gets them, which is at work already."""
    order: list[str] = []
    while found := await work.fetch(name):
        order.append(found[0].payload.decode())
        await work.complete(await work.accept(found[0]))
    return order


async def queue(work: Work, payload: str, **fields: Any) -> None:
    await work.create(payload=payload.encode(), **fields)


async def test_the_more_urgent_goes_first_and_of_equals_the_first() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await queue(work, "first")
        await queue(work, "low", priority=10)
        await queue(work, "usual")
        await queue(work, "high", priority=90)
        await here.pass_time(0.5)
        await queue(work, "usual too")
        assert await order_of(work) == ["first", "high", "usual", "usual too", "low"]


async def test_waiting_makes_up_for_priority() -> None:
    """The least urgent overtakes the most urgent that comes 99 points of age later: nothing starves."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await queue(work, "first", heartbeat_timeout=Duration(seconds=86_400))
        await queue(work, "low", priority=1)
        await here.pass_time(98 * AGE_S_PER_POINT)
        await queue(work, "high, soon enough", priority=100)
        await here.pass_time(2 * AGE_S_PER_POINT)
        await queue(work, "high, too late", priority=100)
        assert await order_of(work) == ["first", "high, soon enough", "low", "high, too late"]


async def test_who_asks_for_much_does_not_hold_up_others() -> None:
    """Of equal priority, they take turns."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await queue(work, "m0", requester="much")
        for number in range(1, 8):
            await queue(work, f"m{number}", requester="much")
        for number in range(3):
            await queue(work, f"l{number}", requester="little")
        order = await order_of(work)
        assert [each[0] for each in order[:7]].count("l") == 3
        assert order.index("l0") <= 2


async def test_urgent_work_of_one_gives_way_after_some_pieces() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        await queue(work, "first", requester="x")
        for number in range(10):
            await queue(work, f"urgent{number}", requester="much", priority=90)
        await queue(work, "patient", requester="little", priority=50)
        ahead = (await order_of(work)).index("patient") - 1
        assert 2 <= ahead <= 40 / POINTS_PER_LEAD + 2


async def test_the_best_agent_gets_it() -> None:
    """Of the higher tier, then the weightier, then the one with more room, then by name."""
    async with replica() as here:
        work = Work(here)
        await here.register("d", ttl_s=60, agent=Agent(tier=AgentTier.AGENT_TIER_3_TASK, max_concurrency=2))
        await here.register("c", ttl_s=60, agent=Agent(tier=AgentTier.AGENT_TIER_2_SPECIALIST))
        await here.register(
            "b", ttl_s=60, agent=Agent(tier=AgentTier.AGENT_TIER_2_SPECIALIST, coordination_priority=60)
        )
        await here.register("a", ttl_s=60, agent=Agent(tier=AgentTier.AGENT_TIER_3_TASK))
        owners = [(await work.read(await work.create())).agent.rsplit("/", 1)[1] for _ in range(5)]
        assert owners == ["b", "c", "d", "a", "d"]


async def test_what_nobody_is_free_for_holds_up_nothing_else() -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a", can="review")
        await work.hire("b", can="test")
        await queue(work, "busy", selector=AgentSelector(all_of=["review"]))
        for number in range(20):
            await queue(work, f"r{number}", selector=AgentSelector(all_of=["review"]), priority=100)
        await queue(work, "t", selector=AgentSelector(all_of=["test"]), priority=1)
        assert [each.payload for each in await work.fetch("b")] == [b"t"]


async def test_an_agent_that_comes_to_match_gets_what_waits() -> None:
    """By an update of its capabilities, of its labels, of its room; by registering; by its name."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a", can="review", labels={"zone": "1"})
        await work.hire("b", can="review")
        first = [await work.create(selector=AgentSelector(all_of=["review"])) for _ in range(2)]
        waiting = await work.create(selector=AgentSelector(all_of=["review"], labels={"zone": "1"}))
        named = await work.create(selector=AgentSelector(agent=agent("b")))
        await here.update("b", {"labels": {"zone": "1"}, "max_concurrency": 4}, "labels", "max_concurrency")
        await here.settle()
        for each in (*first, waiting, named):
            assert (await work.read(each)).state == ASSIGNED
        more = await work.create(selector=AgentSelector(any_of=["review", "test"], labels={"zone": "1"}))
        last = await work.create(selector=AgentSelector(any_of=["test", "review"]))
        assert (await work.read(more)).state == ASSIGNED
        assert (await work.read(last)).state == PENDING
        await here.register("c", ttl_s=60, agent=Agent(capabilities=[Capability(id="test")]))
        await here.settle()
        assert (await work.read(last)).agent == agent("c")


async def test_whatever_happens_no_slot_is_given_twice_and_none_stays_free_while_work_waits() -> None:
    """X4, over random histories; the scheduler's own view of it agrees with a look at all agents and all work."""
    for seed in range(25):
        await _play(random.Random(seed))


async def _play(rng: random.Random) -> None:
    async with replica() as here:
        work = Work(here)
        await work.hire("a0", "a1", can="x", slots=2)
        known: list[pb.Activation] = []
        for _ in range(60):
            match rng.randrange(9):
                case 0 | 1 | 2:
                    selector = rng.choice(
                        [AgentSelector(), AgentSelector(all_of=["x"]), AgentSelector(agent=agent("a1"))]
                    )
                    if any(entry.is_live for entry in here.registry.view.entries("namespaces/test")):
                        known += await _try(work.create(selector=selector, requester=rng.choice("rs")))
                case 3:
                    name = f"a{rng.randrange(5)}"
                    told = Agent(max_concurrency=rng.randint(1, 3), capabilities=[Capability(id=rng.choice("xy"))])
                    await _try(here.register(name, ttl_s=3600, agent=told))
                case 4:
                    await _try(here.deregister(f"a{rng.randrange(5)}"))
                case 5:
                    await _try(here.rule(rng.choice(["cordon", "uncordon"]), f"a{rng.randrange(5)}"))
                case 6:
                    await here.pass_time(rng.choice([0.2, 1.0]))
                case _ if known:
                    current = (await _try(work.read(rng.choice(known))))[0]
                    say = rng.choice([work.accept, work.complete, work.fail, work.decline, work.cancel])
                    await _try(say(current))
                case _:
                    pass
            await here.settle()
            _assert_slots(here)
        await assert_view_is_what_the_store_says(here.registry)


async def _try(call: Awaitable[T]) -> list[T]:
    try:
        return [await call]
    except HoldfastError:  # refusals are part of the play
        return []


def _assert_slots(here: Replica) -> None:
    """Counted by looking at everything."""
    view = here.registry.view
    entries = view.activations.after("namespaces/test")
    held = Counter(entry.state.agent for entry in entries if entry.fence)
    live = {entry.agent.name: entry for entry in view.entries("namespaces/test")}
    for name, count in held.items():
        assert count <= live[name].agent.max_concurrency or count == view.slots_held(name)
    for name in live:
        assert view.slots_held(name) == held[name]
    for entry in entries:
        if entry.current == PENDING:
            able = [name for name, each in live.items() if _could(entry, each, view.slots_held(name))]
            assert not able, f"{entry.name} waits, and {able} are free"


def _could(entry: ActivationEntry, each: AgentEntry, held: int) -> bool:
    """Whether an agent could take an activation now, by the rule that assignments are made by."""
    free = room(each, held)
    return free > 0 and can_take(each, entry, free)


async def test_what_is_known_of_agents_and_requesters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups without work, agents that come and go meanwhile, and requesters are let go."""
    async with replica() as here:
        work, scheduler = Work(here), here.registry.view.activations.scheduler
        monkeypatch.setattr(scheduling, "IDLE_GROUPS_MAX", 4)
        monkeypatch.setattr(scheduling, "CHANGED_MAX", 10)
        monkeypatch.setattr(sharing, "REQUESTERS_MAX", 5)
        await work.hire("a", slots=3)
        for number in range(20):
            fields: dict[str, Any] = {"selector": AgentSelector(any_of=[f"c{number}"]), "requester": f"r{number}"}
            await here.register("able", ttl_s=60, agent=Agent(capabilities=[Capability(id=f"c{number}")]))
            await work.complete(await work.started("able", **fields))
            await here.deregister("able")
        assert len(scheduler._groups) <= 4
        assert len(scheduler._shares._served) <= 6
        for number in range(30):
            await here.register(f"n{number}", ttl_s=60)
            await here.deregister(f"n{number}")
        assert len(scheduler._changed) <= 11
        cancelled = [await work.create(selector=AgentSelector(agent=agent("a"))) for _ in range(3)]
        for _ in range(300):
            each = await work.create(selector=AgentSelector(agent=agent("a")))
            await work.cancel(each)
        (group,) = [each for each in scheduler._groups.values() if each.ranking.hint.startswith("agent:")]
        assert group.entries <= 70
        assert len(cancelled) == 3


async def test_a_large_fleet_is_looked_at_in_rounds_and_the_best_of_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets anything before all were looked at; who comes, goes or fills up between two rounds is known, too."""
    monkeypatch.setattr("holdfast.service.dispatcher.RANKED_AT_ONCE", 10)
    async with replica() as here:
        work, weight = Work(here), 1
        await here.batch({f"n{number:02}": {} for number in range(95)})
        for name in ("best", "gone", "second"):
            await here.register(name, agent=Agent(coordination_priority=100 - weight))
            weight += 1
        created = [
            (
                await here.activations.create_activation(
                    pb.CreateActivationRequest(parent=PARENT, activation=pb.Activation()), CALL
                )
            ).activation
            for _ in range(2)
        ]
        rounds = 0
        while here.registry.view.activations.changed.is_set():
            rounds += 1
            await here.dispatcher.make_round()
            if rounds == 5:
                assert {(await work.read(each)).state for each in created} == {PENDING}
                await here.deregister("gone")
                await here.register("late", agent=Agent(coordination_priority=99, tier=AgentTier.AGENT_TIER_1_CORE))
        assert rounds >= 10
        assert [(await work.read(each)).agent for each in created] == [agent("late"), agent("best")]
        await assert_view_is_what_the_store_says(here.registry)
