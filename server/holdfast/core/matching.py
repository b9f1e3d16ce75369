"""Who could do a piece of work, in which order, and why the others could not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.state import AgentEntry
from holdfast.registry.v1.agent_pb2 import (
    ADMIN_STATE_BANNED,
    ADMIN_STATE_ENABLED,
    BREAKER_STATE_OPEN,
    Agent,
    AgentTier,
)
from holdfast.registry.v1.agent_registry_service_pb2 import AgentExclusionReason, MatchAgentsRequest

Why: TypeAlias = AgentExclusionReason.ValueType

EXPIRED = AgentExclusionReason.AGENT_EXCLUSION_REASON_EXPIRED
ADMIN_STATE = AgentExclusionReason.AGENT_EXCLUSION_REASON_ADMIN_STATE
CAPABILITY = AgentExclusionReason.AGENT_EXCLUSION_REASON_CAPABILITY
TIER = AgentExclusionReason.AGENT_EXCLUSION_REASON_TIER
LABEL = AgentExclusionReason.AGENT_EXCLUSION_REASON_LABEL
SLOTS = AgentExclusionReason.AGENT_EXCLUSION_REASON_SLOTS
DECLINED = AgentExclusionReason.AGENT_EXCLUSION_REASON_DECLINED
BREAKER = AgentExclusionReason.AGENT_EXCLUSION_REASON_BREAKER

_BELOW_ALL = max(AgentTier.values()) + 1


@dataclass(frozen=True, slots=True)
class Selector:
    """What a piece of work asks of an agent; an empty part asks nothing."""

    all_of: frozenset[str]
    any_of: frozenset[str]
    tier_max: int
    labels: Sequence[tuple[str, str]]
    free_slots_min: int
    asks_capabilities: bool

    @classmethod
    def of(cls, request: MatchAgentsRequest) -> "Selector":
        """What a call asks for."""
        return cls(
            frozenset(request.all_of),
            frozenset(request.any_of),
            request.tier_max,
            tuple(request.labels.items()),
            request.free_slots_min,
            bool(request.all_of or request.any_of),
        )

    @classmethod
    def of_agents(cls, selector: AgentSelector) -> "Selector":
        """What work asks for, and one free slot; `agent` is looked at by whoever asks."""
        return cls(
            frozenset(selector.all_of),
            frozenset(selector.any_of),
            selector.tier_max,
            tuple(selector.labels.items()),
            1,
            bool(selector.all_of or selector.any_of),
        )

    def is_met_by(self, agent: Agent) -> bool:
        """Whether an agent has the capabilities."""
        has = {capability.id for capability in agent.capabilities}
        return self.all_of <= has and (not self.any_of or not self.any_of.isdisjoint(has))


SlotsHeld: TypeAlias = Callable[[str], int]
"""How many pieces of work the agent of a name holds."""


def free_slots(agent: Agent, slots_held: SlotsHeld) -> int:
    """How many more pieces of work an agent takes."""
    return max(0, agent.max_concurrency - slots_held(agent.name))


def first_reason(selector: Selector, entry: AgentEntry, free: int) -> Why | None:
    """The first of a live agent's `reasons`; None: it can do the work. Made for every candidate, so it is quick."""
    agent = entry.agent
    if agent.admin_state != ADMIN_STATE_ENABLED:
        return ADMIN_STATE
    if selector.asks_capabilities and not selector.is_met_by(agent):
        return CAPABILITY
    if selector.tier_max and _rank(agent) > selector.tier_max:
        return TIER
    if selector.labels and not _carries(agent, selector.labels):
        return LABEL
    if free < selector.free_slots_min:
        return SLOTS
    if agent.breaker_state == BREAKER_STATE_OPEN:
        return BREAKER
    return None


def never_reason(selector: Selector, entry: AgentEntry) -> Why | None:
    """Why a registered agent could never do the work; None: it could, though it may be busy or held back for now."""
    agent = entry.agent
    if not entry.is_live:
        return EXPIRED
    if agent.admin_state == ADMIN_STATE_BANNED:
        return ADMIN_STATE
    if not selector.is_met_by(agent):
        return CAPABILITY
    if selector.tier_max and _rank(agent) > selector.tier_max:
        return TIER
    return None if _carries(agent, selector.labels) else LABEL


def reasons(selector: Selector, entry: AgentEntry, slots_held: SlotsHeld) -> list[Why]:
    """Every reason why an agent cannot do the work, in the order checked; none: it can."""
    agent = entry.agent
    checks = (
        (EXPIRED, not entry.is_live),
        (ADMIN_STATE, agent.admin_state != ADMIN_STATE_ENABLED),
        (CAPABILITY, not selector.is_met_by(agent)),
        (TIER, bool(selector.tier_max) and _rank(agent) > selector.tier_max),
        (LABEL, not _carries(agent, selector.labels)),
        (SLOTS, free_slots(agent, slots_held) < selector.free_slots_min),
        (BREAKER, agent.breaker_state == BREAKER_STATE_OPEN),
    )
    return [reason for reason, applies in checks if applies]


def order(agent: Agent, free: int) -> tuple[int, int, int, str]:
    """Where an agent stands among those that match; the smallest is the best.

    Those nearest to the top decide most; of one tier, the weightier; of these, the one with most room, which spreads
    the load; and last the name, so that the same state always has the same order.
    """
    return _rank(agent), -agent.coordination_priority, -free, agent.name


def _rank(agent: Agent) -> int:
    """The tier as a number; an agent that tells none stands below all."""
    return agent.tier or _BELOW_ALL


def _carries(agent: Agent, labels: Iterable[tuple[str, str]]) -> bool:
    own = agent.labels
    return all(key in own and own[key] == value for key, value in labels)


def told(exclusions: Mapping[Why, int]) -> dict[str, int]:
    """How many agents are out, by the reason's name without prefix; reasons that keep nobody out are left out."""
    return {
        AgentExclusionReason.Name(reason).removeprefix("AGENT_EXCLUSION_REASON_"): count
        for reason, count in sorted(exclusions.items())
        if count
    }
