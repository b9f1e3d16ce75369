"""MatchAgents over the view: exact over every agent, and quick where capabilities leave few of them."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.matching import (
    ADMIN_STATE,
    BREAKER,
    CAPABILITY,
    EXPIRED,
    LABEL,
    SLOTS,
    TIER,
    Selector,
    SlotsHeld,
    Why,
    first_reason,
    free_slots,
    order,
    reasons,
)
from holdfast.core.state import AgentEntry
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentExclusion,
    AgentExclusionCount,
    AgentMatch,
    MatchAgentsRequest,
    MatchAgentsResponse,
)
from holdfast.service.paging import PAGE_BYTES_MAX, PAGE_SIZE_DEFAULT
from holdfast.service.slices import sliced
from holdfast.turns import Turns
from holdfast.view import View

_OF_LIVE = (ADMIN_STATE, TIER, LABEL, SLOTS, BREAKER)
"""Reasons that keep a live agent out, but for CAPABILITY."""

Ranked = tuple[tuple[int, int, int, str], int, Agent]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The agents as they were when the call began; entries are never changed in place."""

    turns: Turns
    revision: int
    live: Sequence[AgentEntry]
    expired: Sequence[AgentEntry]
    held_back: int
    candidates: Sequence[AgentEntry]
    counts: Counter[Why]

    def search(self, out: Sequence[AgentEntry]) -> Iterable[AgentEntry]:
        """Where to look for those that do not match, by name; `out` has the first of the candidates that do not."""
        live = out if self.candidates is self.live else self.live
        return heapq.merge(live, self.expired, key=_name) if self.expired else live


def _name(entry: AgentEntry) -> str:
    return entry.agent.name


async def match(view: View, request: MatchAgentsRequest) -> MatchAgentsResponse:
    """Answers MatchAgents from one revision, in slices."""
    selector, size = Selector.of(request), request.page_size or PAGE_SIZE_DEFAULT
    snapshot = _snapshot(view, request.parent, selector)
    best, matches_total, out = await _best(snapshot, selector, view.slots_held, size)
    excluded = min(size, len(snapshot.live) + len(snapshot.expired) - matches_total)
    response = MatchAgentsResponse(revision=snapshot.revision, matches_total=matches_total)
    response.exclusions.extend(await _exclusions(snapshot, out, selector, view.slots_held, excluded))
    size_bytes = response.ByteSize()
    for _, free, agent in best:
        if response.matches and size_bytes >= PAGE_BYTES_MAX:
            break
        size_bytes += agent.ByteSize()
        response.matches.append(AgentMatch(agent=agent, free_slots=free))
    for reason, agents in sorted(snapshot.counts.items()):
        if agents:
            response.exclusion_counts.append(AgentExclusionCount(reason=reason, agents=agents))
    return response


async def electorate(
    view: View, parent: str, asked: AgentSelector, limit: int
) -> tuple[Sequence[str], Mapping[Why, int]]:
    """Names, in order, of the agents that match from one revision, at most `limit`; how many others do not, and why.

    With an agent named, only it is looked at.
    """
    selector = Selector.of(
        MatchAgentsRequest(all_of=asked.all_of, any_of=asked.any_of, tier_max=asked.tier_max, labels=asked.labels)
    )
    if asked.agent:
        entry = view.agent(asked.agent)
        why = reasons(selector, entry, view.slots_held)[:1] if entry is not None else []
        return [asked.agent] if entry is not None and not why else [], Counter(why)
    snapshot = _snapshot(view, parent, selector)
    best, _, _ = await _best(snapshot, selector, view.slots_held, limit)
    return sorted(agent.name for _, _, agent in best), snapshot.counts


def _snapshot(view: View, parent: str, selector: Selector) -> _Snapshot:
    """What the indexes say at once: everyone, those worth a look, and how many are out before anybody looks."""
    population = view.population(parent)
    near = population.nearest(selector.all_of, selector.any_of)
    live, expired = population.live.after(""), population.expired.after("")
    candidates = live if near is None else view.agents(near)
    counts: Counter[Why] = Counter({EXPIRED: len(expired)})
    return _Snapshot(view.turns, view.revision, live, expired, population.held_back, candidates, counts)


async def _best(
    snapshot: _Snapshot, selector: Selector, slots_held: SlotsHeld, count: int
) -> tuple[list[Ranked], int, list[AgentEntry]]:
    """The best candidates, how many match, and the first that do not; counts these by their first reason."""
    best: list[Ranked] = []
    out: list[AgentEntry] = []
    total = 0
    counts = snapshot.counts
    async for part in sliced(snapshot.candidates, snapshot.turns):
        found: list[Ranked] = []
        for entry in part:
            agent = entry.agent
            free = free_slots(agent, slots_held)
            why = first_reason(selector, entry, free)
            if why is None:
                found.append((order(agent, free), free, agent))
            else:
                counts[why] += 1
                if len(out) < count:
                    out.append(entry)
        total += len(found)
        best = heapq.nsmallest(count, [*best, *found], key=lambda ranked: ranked[0])
    # Whom the indexes left out is held back, or lacks a capability.
    counts[ADMIN_STATE] = snapshot.held_back
    counts[CAPABILITY] = len(snapshot.live) - total - sum(counts[why] for why in _OF_LIVE)
    return best, total, out


async def _exclusions(
    snapshot: _Snapshot, out: Sequence[AgentEntry], selector: Selector, slots_held: SlotsHeld, count: int
) -> list[AgentExclusion]:
    """The first by name of those that do not match; `count` says how many there are to find."""
    found: list[AgentExclusion] = []
    if not count:
        return found
    async for part in sliced(snapshot.search(out), snapshot.turns):
        for entry in part:
            why = reasons(selector, entry, slots_held)
            if why:
                found.append(AgentExclusion(agent=entry.agent.name, reasons=why))
                if len(found) == count:
                    return found
    return found
