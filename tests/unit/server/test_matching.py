"""Matching: who can, in the documented order, and a reason for everyone who cannot."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentExclusionReason,
    MatchAgentsRequest,
    MatchAgentsResponse,
)
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


async def test_a_namespace_without_agents_has_no_matches() -> None:
    async with replica() as here:
        assert await match(here, all_of=["review"]) == MatchAgentsResponse()


async def test_an_answer_is_of_one_revision_while_others_change_it() -> None:
    """Made in slices, with registrations in between: the numbers add up to the agents of the revision it names."""
    async with replica() as here:
        for number in range(20):
            await here.register(f"a{number:02}")
        response = await match(here, page_size=3)
        assert response.matches_total == 20 == response.revision
