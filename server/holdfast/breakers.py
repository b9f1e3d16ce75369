"""What agents are trusted with, as this replica sees it: the breaker in front of each that was ever given work."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from holdfast import names
from holdfast.core.activations.breaker import WorkEntry
from holdfast.core.activations.ending import Timer
from holdfast.core.state import AgentEntry
from holdfast.indexes import Names
from holdfast.parts import Kind, Part
from holdfast.registry.v1.agent_pb2 import BREAKER_STATE_OPEN, BreakerState
from holdfast.storage.v1.activations_pb2 import WorkRecord
from holdfast.store.interface import KeyValue
from holdfast.timers import TimeKeeper, keep, timer_key


class Breakers(Part):
    """All breakers at the view's revision.

    Args:
        is_there: Whether there is an agent of a name, EXPIRED ones included.
        times: Learns of when an OPEN one has been so for long enough.
        agent_breaks: Told of each that changed its state, those met at start included.

    Attributes:
        counts: How many there are, by state.
    """

    def __init__(
        self, is_there: Callable[[str], bool], times: TimeKeeper, agent_breaks: Callable[[str, WorkEntry], None]
    ) -> None:
        self.counts: Counter[BreakerState.ValueType] = Counter()
        self._is_there = is_there
        self._times = times
        self._agent_breaks = agent_breaks
        self._records: dict[str, WorkEntry] = {}
        self._names = Names()
        self._idle: dict[str, None] = {}

    def get(self, agent: str) -> WorkEntry | None:
        """What the agent of this name is trusted with; None before its first assignment."""
        return self._records.get(agent)

    def after(self, parent: str, agent: str = "", limit: int | None = None) -> list[WorkEntry]:
        """Those of a namespace in the order of their agents' names, at most `limit`, from the first after `agent`."""
        return [self._records[each] for each in self._names.after(parent, agent)[:limit]]

    def idle(self) -> Iterator[WorkEntry]:
        """Those of agents that are gone, if they are not OPEN: no way around a breaker leads through its end."""
        there = (self._records[agent] for agent in list(self._idle))
        return (entry for entry in there if entry.record.breaker_state != BREAKER_STATE_OPEN)

    def kinds(self) -> Mapping[str, Kind]:
        """Their records."""
        return {names.WORK_PREFIX: Kind(self._put, self._delete, self._revision)}

    def agent_changed(self, name: str, entry: AgentEntry | None, before: AgentEntry | None) -> None:  # noqa: ARG002 - as parts have it
        """The record of an agent that is gone has had its use."""
        if name not in self._records:
            return
        if entry is None:
            self._idle[name] = None
        else:
            self._idle.pop(name, None)

    def _put(self, agent: str, put: KeyValue) -> None:
        entry = WorkEntry(agent, WorkRecord.FromString(put.value), put.mod_revision)
        before = self._records.get(agent)
        self._records[agent] = entry
        if before is None:
            self._names.add(agent)
        else:
            self.counts[before.record.breaker_state] -= 1
        self.counts[entry.record.breaker_state] += 1
        if not self._is_there(agent):
            self._idle[agent] = None
        is_open = entry.record.breaker_state == BREAKER_STATE_OPEN
        keep(self._times, timer_key(Timer.BREAKER, agent), entry.record.retry_time if is_open else None)
        if entry.has_turned and (before is None or before.breaker_revision != entry.breaker_revision):
            self._agent_breaks(agent, entry)

    def _delete(self, agent: str, _revision: int) -> None:
        before = self._records.pop(agent, None)
        if before is not None:
            self._names.remove(agent)
            self.counts[before.record.breaker_state] -= 1
        self._idle.pop(agent, None)
        self._times.clear(timer_key(Timer.BREAKER, agent))

    def _revision(self, agent: str) -> int:
        entry = self._records.get(agent)
        return entry.mod_revision if entry is not None else 0
