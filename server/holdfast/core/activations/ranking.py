"""Which agent goes first: those that are free for what a selector asks, ranked, found without looking at all each time.

The first in the order of `matching.order` that is LIVE, ENABLED, matches, has a free slot, and whose breaker lets work
through; but the one whose attempt failed last only if no other is free, and one that declined not before its pause is
over.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations.assigning import room
from holdfast.core.activations.entry import ActivationEntry
from holdfast.core.matching import Selector, first_reason, order
from holdfast.core.state import AgentEntry
from holdfast.indexes import Population

Rank: TypeAlias = tuple[int, int, int, str]


class Agents(Protocol):
    """The agents at one revision."""

    def agent(self, name: str) -> AgentEntry | None:
        """The agent of this name, expired ones included."""
        ...

    def agents(self, names: Sequence[str]) -> list[AgentEntry]:
        """The agents of these names; all are there."""
        ...

    def slots_held(self, name: str) -> int:
        """How many pieces of work the agent of this name holds."""
        ...

    def population(self, parent: str) -> Population:
        """The agents of a namespace, with their indexes."""
        ...


class Ranking:
    """The agents of a namespace that are free for what is asked.

    It is whole once `look_on` has said so, and right as long as `look_at` is told of each agent that changes.
    """

    def __init__(self, fleet: Agents, parent: str, asked: AgentSelector) -> None:
        self._fleet = fleet
        self._parent = parent
        self._asked = asked
        self._selector = Selector.of_agents(asked)
        self._left: Iterator[str] | None = None
        self.is_whole = False
        self._known: dict[str, Rank] = {}
        self._ranks: list[tuple[Rank, str]] = []

    def __bool__(self) -> bool:
        """Whether any agent may be free."""
        return bool(self._known)

    @property
    def hint(self) -> str:
        """By what an agent is found to be of concern here: its name, a capability, or the namespace alone."""
        if self._asked.agent:
            return f"agent:{self._asked.agent}"
        return f"capability:{min(self._selector.all_of)}" if self._selector.all_of else ""

    def look_on(self, count_max: int) -> int:
        """Looks at agents that were not looked at yet, at most `count_max`; returns how many it was."""
        if self._left is None:
            self._left = self._candidates()
        count = 0
        for count, name in enumerate(itertools.islice(self._left, count_max), start=1):  # noqa: B007 - how many it was
            self.look_at(name)
        self.is_whole = count < count_max
        return count

    def look_at(self, name: str) -> None:
        """Takes in where an agent stands now."""
        self._place(name, self._rank(name, 0))

    def best(self, entry: ActivationEntry, reserved: Counter[str]) -> str | None:
        """The best agent for an activation, counted as given one more than those in `reserved`; None without one."""
        declined, failed_last = entry.state.declined, entry.state.failure.agent
        passed: list[str] = []
        chosen: str | None = None
        while (name := self._first(reserved)) is not None:
            if name not in declined and name != failed_last:
                chosen = name
                break
            passed.append(name)
            heapq.heappop(self._ranks)
        if chosen is None and failed_last in passed and failed_last not in declined:
            chosen = failed_last
        for name in passed:
            heapq.heappush(self._ranks, (self._known[name], name))
        if chosen is not None:
            self._place(chosen, self._rank(chosen, reserved[chosen] + 1))
        return chosen

    def _first(self, reserved: Counter[str]) -> str | None:
        """The agent that stands first now; it stays on top of the ranking."""
        while self._ranks:
            rank, name = self._ranks[0]
            if self._known.get(name) == rank:
                now = self._rank(name, reserved[name])
                if now == rank:
                    return name
                self._place(name, now)
                continue
            heapq.heappop(self._ranks)
        return None

    def _place(self, name: str, rank: Rank | None) -> None:
        if rank is None:
            self._known.pop(name, None)
        elif self._known.get(name) != rank:
            self._known[name] = rank
            heapq.heappush(self._ranks, (rank, name))
            if len(self._ranks) > 2 * len(self._known) + 64:
                self._ranks = [(each, agent) for agent, each in self._known.items()]
                heapq.heapify(self._ranks)

    def _rank(self, name: str, reserved: int) -> Rank | None:
        """Where an agent stands with so many activations more than it holds; None if it can take none."""
        entry = self._fleet.agent(name)
        if entry is None or not entry.is_live or self._asked.agent not in ("", name):
            return None
        free = room(entry, self._fleet.slots_held(name) + reserved)
        if first_reason(self._selector, entry, free) is not None:
            return None
        return order(entry.agent, free)

    def _candidates(self) -> Iterator[str]:
        """Names of those among whom are all that could."""
        if self._asked.agent:
            return iter((self._asked.agent,))
        population = self._fleet.population(self._parent)
        near = population.nearest(self._asked.all_of, self._asked.any_of)
        return (each.agent.name for each in population.live.after("")) if near is None else iter(list(near))
