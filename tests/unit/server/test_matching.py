"""Matching: who can, in the documented order, and a reason for everyone who cannot."""

import asyncio
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.matching import SLOTS, Selector, first_reason, reasons
from holdfast.core.state import AgentEntry
from holdfast.indexes import Population
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness, BreakerState, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentExclusionReason,
    MatchAgentsRequest,
    MatchAgentsResponse,
)
from holdfast.service import matching
from support.replica import CALL, PARENT, Replica, replica

CAPABILITIES = ("build", "review", "test")
AGENTS = st.fixed_dictionaries(
    {
        "capabilities": st.sets(st.sampled_from(CAPABILITIES)),
        "tier": st.integers(0, 4),
        "coordination_priority": st.sampled_from([1, 50, 100]),
        "max_concurrency": st.integers(1, 3),
        "labels": st.dictionaries(st.sampled_from(["team", "zone"]), st.sampled_from(["a", "b"])),
        "rule": st.sampled_from(["", "", "cordon", "drain", "ban"]),
        "expires": st.booleans(),
    }
)
SELECTORS = st.fixed_dictionaries(
    {},
    optional={
        "all_of": st.lists(st.sampled_from([*CAPABILITIES, "none"]), max_size=2),
        "any_of": st.lists(st.sampled_from([*CAPABILITIES, "none"]), max_size=2),
        "tier_max": st.integers(1, 4),
        "labels": st.dictionaries(st.sampled_from(["team", "zone"]), st.sampled_from(["a", "b"]), max_size=2),
        "free_slots_min": st.integers(0, 4),
        "page_size": st.integers(1, 20),
    },
)


def why_not(agent: Agent, selector: dict[str, object]) -> list[str]:
    """The rule as the proto files word it, written without looking at the product's."""
    request = MatchAgentsRequest(parent=PARENT, **selector)
    has = {capability.id for capability in agent.capabilities}
    lacks = bool(set(request.all_of) - has) or bool(request.any_of and not set(request.any_of) & has)
    return [
        reason
        for reason, applies in (
            ("EXPIRED", agent.liveness == AgentLiveness.AGENT_LIVENESS_EXPIRED),
            ("ADMIN_STATE", agent.admin_state != AdminState.ADMIN_STATE_ENABLED),
            ("CAPABILITY", lacks),
            ("TIER", request.tier_max and (agent.tier or 9) > request.tier_max),
            ("LABEL", any(agent.labels.get(key) != value for key, value in request.labels.items())),
            ("SLOTS", agent.max_concurrency < request.free_slots_min),
        )
        if applies
    ]


async def match(here: Replica, **selector: object) -> MatchAgentsResponse:
    return await here.agents.match_agents(MatchAgentsRequest(parent=PARENT, **selector), CALL)


def told(reason: AgentExclusionReason.ValueType) -> str:
    return AgentExclusionReason.Name(reason).removeprefix("AGENT_EXCLUSION_REASON_")


@settings(max_examples=150, deadline=None)
@given(agents=st.lists(AGENTS, max_size=12), selector=SELECTORS)
async def test_matches_exclusions_and_counts_are_what_the_rule_says(
    agents: list[dict[str, object]], selector: dict[str, object]
) -> None:
    """Against the rule applied to every agent one by one: the same matches in the same order, the same reasons."""
    async with replica() as here:
        everyone = await populate(here, agents)
        response = await match(here, **selector)
    size = int(str(selector.get("page_size", 100)))
    reasons = {agent.name: why_not(agent, selector) for agent in everyone}
    able = [agent for agent in everyone if not reasons[agent.name]]
    able.sort(key=lambda agent: (agent.tier or 9, -agent.coordination_priority, -agent.max_concurrency, agent.name))
    assert [each.agent.name for each in response.matches] == [agent.name for agent in able[:size]]
    assert all(each.free_slots == each.agent.max_concurrency for each in response.matches)
    assert response.matches_total == len(able)
    excluded = [(name, why) for name, why in sorted(reasons.items()) if why]
    assert [(each.agent, [told(why) for why in each.reasons]) for each in response.exclusions] == excluded[:size]
    counts = {told(each.reason): each.agents for each in response.exclusion_counts}
    assert counts == Counter(why[0] for _, why in excluded)


async def populate(here: Replica, agents: list[dict[str, object]]) -> list[Agent]:
    for number, fields in enumerate(agents):
        agent = {key: value for key, value in fields.items() if key not in ("rule", "expires", "capabilities")}
        agent["capabilities"] = [{"id": each} for each in sorted(fields["capabilities"])]
        await here.register(f"a{number:02}", ttl_s=1 if fields["expires"] else 3600, agent=agent)
        if fields["rule"]:
            await here.rule(str(fields["rule"]), f"a{number:02}")
    await here.pass_time(1.3)
    return [await here.get(f"a{number:02}") for number in range(len(agents))]


async def test_the_order_is_tier_priority_free_slots_name() -> None:
    async with replica() as here:
        ranked = list(itertools.product((1, 4, 0), (90, 10), (3, 1), "ab"))
        for tier, priority, slots, letter in reversed(ranked):
            fields = {"tier": tier, "coordination_priority": priority, "max_concurrency": slots}
            await here.register(f"{letter}-{tier}-{priority}-{slots}", agent=fields)
        response = await match(here)
        assert [each.agent.name.rsplit("/", 1)[1] for each in response.matches] == [
            f"{letter}-{tier}-{priority}-{slots}" for tier, priority, slots, letter in ranked
        ]


def test_the_first_reason_is_the_first_of_all() -> None:
    """Each agent of which one thing after another is wrong is out for the earliest, and all are named."""
    selector = Selector.of(MatchAgentsRequest(all_of=["review"], tier_max=2, labels={"team": "a"}, free_slots_min=2))
    agent = Agent(
        name=f"{PARENT}/agents/a",
        liveness=AgentLiveness.AGENT_LIVENESS_LIVE,
        tier=4,
        max_concurrency=1,
        admin_state=AdminState.ADMIN_STATE_BANNED,
        breaker_state=BreakerState.BREAKER_STATE_OPEN,
    )
    mended: list[tuple[str, dict[str, object]]] = [
        ("ADMIN_STATE", {"admin_state": AdminState.ADMIN_STATE_ENABLED}),
        ("CAPABILITY", {"capabilities": [Capability(id="review")]}),
        ("TIER", {"tier": 2}),
        ("LABEL", {"labels": {"team": "a"}}),
        ("SLOTS", {"max_concurrency": 2}),
        ("BREAKER", {"breaker_state": BreakerState.BREAKER_STATE_HALF_OPEN}),
    ]
    names = [name for name, _ in mended]
    for index, (name, mend) in enumerate(mended):
        entry = AgentEntry(agent, 1)
        why = first_reason(selector, entry, agent.max_concurrency)
        assert why is not None
        assert told(why) == name
        assert [told(each) for each in reasons(selector, entry, lambda _: 0)] == names[index:]
        agent.MergeFrom(Agent(**mend))
    entry = AgentEntry(agent, 1)
    assert first_reason(selector, entry, agent.max_concurrency) is None
    assert reasons(selector, entry, lambda _: 0) == []
    assert reasons(selector, entry, lambda _: 1) == [SLOTS]


@given(
    agents=st.lists(st.sets(st.sampled_from("abcd")), max_size=20),
    all_of=st.sets(st.sampled_from("abcde"), max_size=3),
    any_of=st.sets(st.sampled_from("abcde"), max_size=3),
)
def test_the_nearest_by_index_leave_out_none_that_is_able(
    agents: list[set[str]], all_of: set[str], any_of: set[str]
) -> None:
    """And they are at most half of all, or else it does not pay to look them up."""
    population = Population()
    able: set[str] = set()
    for number, capabilities in enumerate(agents):
        agent = Agent(name=f"a{number}", liveness=AgentLiveness.AGENT_LIVENESS_LIVE)
        agent.capabilities.extend(Capability(id=each) for each in capabilities)
        population.add(agent.name, AgentEntry(agent, 1))
        if all_of <= capabilities and (not any_of or any_of & capabilities):
            able.add(agent.name)
    near = population.nearest(all_of, any_of)
    if near is not None:
        assert able <= set(near)
        assert len(near) <= len(agents) // 2


async def test_a_rare_capability_is_found_without_looking_at_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at: the few that have it, and as many of the others as are named."""
    looked_at: list[int] = []

    def counted(name: str) -> None:
        original = getattr(matching, name)

        def counting(*args: object) -> object:
            looked_at.append(1)
            return original(*args)

        monkeypatch.setattr(matching, name, counting)

    async with replica() as here:
        await here.batch({f"a{number:04}": {} for number in range(2000)})
        for number in (3, 1500):
            await here.update(f"a{number:04}", {"capabilities": [{"id": "rare"}]}, "capabilities")
        counted("first_reason")
        counted("reasons")
        response = await match(here, all_of=["rare"], page_size=10)
        assert [each.agent.name[-4:] for each in response.matches] == ["0003", "1500"]
        assert len(response.exclusions) == 10
        assert len(looked_at) == 2 + 11
        assert [each.agents for each in response.exclusion_counts] == [1998]


async def test_a_namespace_without_agents_has_no_matches() -> None:
    async with replica() as here:
        assert await match(here, all_of=["review"]) == MatchAgentsResponse()


async def test_an_answer_is_of_one_revision_while_others_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made in slices, with removals in between: the numbers add up to the agents of the revision it names."""
    monkeypatch.setattr("holdfast.service.slices.SLICE", 10)
    async with replica() as here:
        for hundreds in range(30):
            agents = {f"a{hundreds:02}{number:02}": {"labels": {"odd": str(number % 2)}} for number in range(100)}
            await here.batch(agents)
        request = MatchAgentsRequest(parent=PARENT, labels={"odd": "1"}, page_size=1000)
        asked = asyncio.create_task(here.agents.match_agents(request, CALL))
        while not asked.done():
            await here.deregister(f"a{here.registry.store.revision - 30:04}")
        response = await asked
        assert here.registry.store.revision > response.revision + 5
        gone = response.revision - 30
        assert response.matches_total == 1500 - gone // 2
        assert [each.agents for each in response.exclusion_counts] == [1500 - (gone + 1) // 2]
        assert len(response.exclusions) == len(response.matches) == 1000
