"""Who could do an activation, and why the others cannot: looked up before it is created, and shown while it waits."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations.assigning import room
from holdfast.core.activations.entry import ActivationEntry
from holdfast.core.matching import DECLINED, SLOTS, Selector, Why, never_reason, reasons
from holdfast.core.state import AgentEntry
from holdfast.registry.v1.agent_registry_service_pb2 import AgentExclusion
from holdfast.service.slices import sliced
from holdfast.view import View

EXCLUSIONS_MAX = 100
"""Most agents of which an activation that waits says why they do not have it."""

LOOKED_AT_MAX = 1_000
"""Most agents looked at for that."""


async def nobody_could(view: View, parent: str, asked: AgentSelector) -> Mapping[Why, int] | None:
    """How many registered agents could never do it, by the first reason; None if one could, busy or held back or not.

    In slices: where capabilities do not leave few agents, all of a namespace may have to be looked at.
    """
    selector = Selector.of_agents(asked)
    async for part in sliced(_candidates(view, parent, asked), view.turns):
        if any(never_reason(selector, entry) is None for entry in part):
            return None
    counts: Counter[Why] = Counter()
    async for part in sliced(_everyone(view, parent, asked), view.turns):
        counts.update(why for entry in part if (why := never_reason(selector, entry)) is not None)
    return counts


def _candidates(view: View, parent: str, asked: AgentSelector) -> Iterable[AgentEntry]:
    """Those among whom are all that could."""
    if asked.agent:
        return _everyone(view, parent, asked)
    population = view.population(parent)
    near = population.nearest(asked.all_of, asked.any_of)
    return population.live.after("") if near is None else view.agents(near)


def _everyone(view: View, parent: str, asked: AgentSelector) -> Sequence[AgentEntry]:
    """All agents it may be meant for, expired ones included."""
    if asked.agent:
        entry = view.agent(asked.agent)
        return [entry] if entry is not None else []
    return view.entries(parent, with_expired=True)


def exclusions(view: View, entry: ActivationEntry) -> list[AgentExclusion]:
    """Why an activation that waits is with no agent: the first by name of those that cannot take it now."""
    asked = entry.record.activation.selector
    parent = entry.name.rsplit("/", 2)[0]
    selector = Selector.of_agents(asked)
    there = [view.agent(asked.agent)] if asked.agent else view.population(parent).everyone("", LOOKED_AT_MAX)
    found: list[AgentExclusion] = []
    for each in itertools.islice(filter(None, there), LOOKED_AT_MAX):
        why = reasons(selector, each, view.slots_held)
        if not room(each, view.slots_held(each.agent.name)) and not why:
            why = [SLOTS]  # on trial, and busy with that
        if each.agent.name in entry.state.declined:
            why.append(DECLINED)
        if why:
            found.append(AgentExclusion(agent=each.agent.name, reasons=why))
            if len(found) == EXCLUSIONS_MAX:
                break
    return found
