"""Activations as this replica sees them, with who holds what: derived from their records and from agents that live."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from holdfast import names
from holdfast.core.activations.creating import ms
from holdfast.core.activations.ending import Timer
from holdfast.core.activations.entry import (
    ASSIGNED,
    BACKOFF,
    DEAD_LETTERED,
    OWNED,
    PENDING,
    ActivationEntry,
    State,
)
from holdfast.core.activations.scheduling import Fleet, Scheduler
from holdfast.core.state import AgentEntry
from holdfast.indexes import Names
from holdfast.parts import Kind, Part
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_BANNED
from holdfast.storage.v1.activations_pb2 import ActivationRecord, ActivationStateRecord
from holdfast.store.interface import KeyValue
from holdfast.timers import TimeKeeper, keep, timer_key
from holdfast.topics import Changed

SILENCE_FACTOR = 4 / 3
"""What an owner that works is given of its `heartbeat_timeout`, counted from what is written of its heartbeats: one
is written at least every third of it, so that nobody is given up early; see `service.heartbeats`.
"""


ENTRY_BYTES = 1 << 10
"""What an activation that was takes in memory, besides its state and what it shares with the one that is."""


class Remembered:
    """Activations that have ended, in the order of their ends, and their bytes."""

    def __init__(self, get: Callable[[str], ActivationEntry | None]) -> None:
        self._get = get
        self._sizes: dict[str, int] = {}
        self.ended_bytes = 0

    @property
    def ended_count(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def add(self, entry: ActivationEntry) -> None:
        """Takes one in that has just ended."""
        self.discard(entry.name)
        self._sizes[entry.name] = entry.size_bytes
        self.ended_bytes += entry.size_bytes

    def discard(self, name: str) -> None:
        """Lets one go, if it is here."""
        self.ended_bytes -= self._sizes.pop(name, 0)

    def ended(self) -> Iterator[ActivationEntry]:
        """Those, the first ended first."""
        return (entry for name in list(self._sizes) if (entry := self._get(name)) is not None)


class Activations(Part):
    """All activations at the view's revision.

    Attributes:
        scheduler: Proposes who gets what waits.
        changed: Set when there may be work to give away, or owners are lost; whoever acts on it clears it.
        lost: Activations whose owner's incarnation ended and of which that is not written yet, by agent.
        banned: Agents that hold activations and that an operator banned.
        remembered: Those that have ended, but for dead letters.
        dead: Dead letters.
        counts: How many there are, by state.
        on_handoff_left: Called with a handoff that an activation does not wait for any more, however that came.
        on_changed: Called with each as it was and as it is, when its state changes.
    """

    def __init__(self, fleet: Fleet, times: TimeKeeper) -> None:
        self.scheduler = Scheduler(fleet)
        self.changed = asyncio.Event()
        self.lost: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.banned: dict[str, None] = {}
        self.remembered = Remembered(self.get)
        self.dead = Remembered(self.get)
        self.counts: Counter[State] = Counter()
        self.on_changed: Callable[[ActivationEntry | None, ActivationEntry], None] = lambda _before, _now: None
        self.on_handoff_left: Callable[[str], None] = lambda _handoff: None
        self._fleet = fleet
        self._times = times
        self._records: dict[str, ActivationRecord] = {}
        self._states: dict[str, tuple[ActivationStateRecord, int]] = {}
        self._names = Names()
        self._held: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._unfinished: dict[str, int] = {}
        self._unfinished_of: Counter[str] = Counter()
        self._unfinished_bytes: Counter[str] = Counter()
        self._all_bytes = 0
        self._touched: dict[str, ActivationEntry | None] = {}
        self._bells: dict[str, dict[asyncio.Event, None]] = {}

    # Reading.

    def get(self, name: str) -> ActivationEntry | None:
        """The activation of this name; it stays as it is when others change."""
        record, known = self._records.get(name), self._states.get(name)
        if record is None or known is None:
            return None
        state, mod_revision = known
        return ActivationEntry(record, state, mod_revision, self._fleet.agent(state.agent) if state.agent else None)

    def after(self, parent: str, name: str = "", limit: int | None = None) -> list[ActivationEntry]:
        """Activations of a namespace in the order of their names, at most `limit`, from the first after `name`."""
        return [entry for each in self._names.after(parent, name)[:limit] if (entry := self.get(each)) is not None]

    def held_by(self, agent: str) -> Collection[str]:
        """Names of the activations that an agent that lives owns, the first given first."""
        return [name for name in self._held.get(agent, ()) if name not in self.lost.get(agent, ())]

    def slots_held(self, agent: str) -> int:
        """How many those are."""
        return len(self._held.get(agent, ())) - len(self.lost.get(agent, ()))

    def unfinished(self, parent: str) -> tuple[int, int]:
        """How many activations of a namespace have not ended, and the bytes of their records."""
        return self._unfinished_of[parent], self._unfinished_bytes[parent]

    @property
    def all_unfinished(self) -> tuple[int, int]:
        """As many of all namespaces, and their bytes."""
        return len(self._unfinished), self._all_bytes

    def subscribe(self, agent: str) -> asyncio.Event:
        """A bell that rings when what an agent holds changes."""
        bell = asyncio.Event()
        self._bells.setdefault(agent, {})[bell] = None
        return bell

    def unsubscribe(self, agent: str, bell: asyncio.Event) -> None:
        """Takes the bell away."""
        bells = self._bells[agent]
        del bells[bell]
        if not bells:
            del self._bells[agent]

    # Following the store.

    def take_changes(self) -> Sequence[Changed]:
        """The activations that changed, each under its namespace's topic: written, or lost with their owner."""
        if not self._touched:
            return ()
        touched, self._touched = self._touched, {}
        return [_changed(name, before, self.get(name)) for name, before in touched.items()]

    def kinds(self) -> Mapping[str, Kind]:
        """The records that activations consist of; every change writes the state."""
        return {
            names.ACTIVATION_PREFIX: Kind(self._put_record, self._delete_record),
            names.ACTIVATION_STATE_PREFIX: Kind(self._put_state, self._delete_state, self._state_revision),
        }

    def agent_changed(self, name: str, entry: AgentEntry | None, before: AgentEntry | None) -> None:  # noqa: ARG002 - as parts have it
        """With the incarnation of an agent all that it held is lost; from this revision on it is not owned."""
        self.scheduler.agent_changed(name)
        held = self._held.get(name)
        if held:
            self.banned.pop(name, None)
            for each in held:
                self._note_loss(name, each, before)
        self.ring(name)
        if self.scheduler.has_work:
            self.changed.set()

    def _note_loss(self, agent: str, name: str, before: AgentEntry | None) -> None:
        entry = self.get(name)
        if entry is None or name in self.lost.get(agent, ()):
            return
        if not entry.is_lost:
            if entry.owner is not None and entry.owner.agent.admin_state == ADMIN_STATE_BANNED:
                self.banned[agent] = None
                self.changed.set()
            return
        self._touched.setdefault(name, replace(entry, owner=before))
        self.lost[agent][name] = None
        if entry.state.handoff:
            self.on_handoff_left(entry.state.handoff)
        self.counts[entry.state.state] -= 1
        self.counts[BACKOFF] += 1
        self._times.clear(timer_key(Timer.SILENCE, name))
        self.changed.set()

    def _put_record(self, name: str, put: KeyValue) -> None:
        if name not in self._records:
            self._names.add(name)
        self._records[name] = ActivationRecord.FromString(put.value)
        self._met(name, None)

    def _put_state(self, name: str, put: KeyValue) -> None:
        before = self.get(name)
        self._touched.setdefault(name, before)
        self._leave(before)
        self._states[name] = ActivationStateRecord.FromString(put.value), put.mod_revision
        self._met(name, before)

    def _met(self, name: str, before: ActivationEntry | None) -> None:
        """Takes an activation into every index, once both of its records are there."""
        entry = self.get(name)
        if entry is None:
            return
        self.counts[entry.state.state] += 1
        if before is not None and before.state.handoff not in ("", entry.state.handoff):
            self.on_handoff_left(before.state.handoff)
        if entry.state.state in OWNED:
            agent = entry.state.agent
            self._held[agent][name] = None
            self._note_loss(agent, name, entry.owner)
            self._moved(agent)
        if entry.has_ended:
            (self.dead if entry.state.state == DEAD_LETTERED else self.remembered).add(entry)
        else:
            parent = names.parent_of(name)
            self._unfinished[name] = entry.size_bytes
            self._unfinished_of[parent] += 1
            self._unfinished_bytes[parent] += entry.size_bytes
            self._all_bytes += entry.size_bytes
        self.scheduler.put(entry)
        self._keep_times(entry)
        if self.scheduler.has_work:
            self.changed.set()
        self.on_changed(before, entry)

    def _leave(self, entry: ActivationEntry | None) -> None:
        """Takes an activation out of every index, as it was taken in."""
        if entry is None:
            return
        name, agent = entry.name, entry.state.agent
        if entry.state.state in OWNED:
            is_lost = name in self.lost.get(agent, ())
            self.counts[BACKOFF if is_lost else entry.state.state] -= 1
            _take_out(self._held, agent, name)
            if agent not in self._held:
                self.banned.pop(agent, None)
            if is_lost:
                _take_out(self.lost, agent, name)
            self._moved(agent)
        else:
            self.counts[entry.state.state] -= 1
        self.remembered.discard(name)
        self.dead.discard(name)
        size_bytes = self._unfinished.pop(name, None)
        if size_bytes is not None:
            parent = names.parent_of(name)
            self._unfinished_of[parent] -= 1
            self._unfinished_bytes[parent] -= size_bytes
            self._all_bytes -= size_bytes
            if not self._unfinished_of[parent]:
                del self._unfinished_of[parent], self._unfinished_bytes[parent]

    def _moved(self, agent: str) -> None:
        self.scheduler.agent_changed(agent)
        self.ring(agent)

    def ring(self, agent: str) -> None:
        """Wakes who listens for an agent."""
        for bell in self._bells.get(agent, ()):
            bell.set()

    def _keep_times(self, entry: ActivationEntry) -> None:
        """Says when something must happen to an activation if nobody does anything."""
        name, state = entry.name, entry.state
        end, start, retry, silence = (
            timer_key(each, name) for each in (Timer.END, Timer.START, Timer.RETRY, Timer.SILENCE)
        )
        keep(self._times, end, None if entry.has_ended else state.deadline)
        is_to_start = not entry.has_ended and not state.HasField("start_time")
        keep(self._times, start, state.start_deadline if is_to_start else None)
        waits = state.state in (BACKOFF, PENDING) and state.HasField("retry_time")
        keep(self._times, retry, state.retry_time if waits else None)
        if state.state in OWNED and not entry.is_lost:
            silence_s = ms(entry.record.activation.heartbeat_timeout) / 1000
            factor = 1.0 if state.state == ASSIGNED else SILENCE_FACTOR
            self._times.listen(silence, entry.mod_revision, silence_s * factor)
        else:
            self._times.clear(silence)

    def _state_revision(self, name: str) -> int:
        _, mod_revision = self._states.get(name, (None, 0))
        return mod_revision

    def _delete_record(self, name: str, _revision: int) -> None:
        self._touched.setdefault(name, self.get(name))
        self._leave(self.get(name))
        self.scheduler.drop(name)
        if self._records.pop(name, None) is not None:
            self._names.remove(name)

    def _delete_state(self, name: str, _revision: int) -> None:
        self._touched.setdefault(name, self.get(name))
        self._leave(self.get(name))
        self.scheduler.drop(name)
        self._states.pop(name, None)
        for timer in (Timer.END, Timer.START, Timer.RETRY, Timer.SILENCE):
            self._times.clear(timer_key(timer, name))


def _changed(name: str, before: ActivationEntry | None, now: ActivationEntry | None) -> Changed:
    """What the history keeps of a change: the state before, and with an activation that is gone all of it."""
    held_bytes = ENTRY_BYTES
    if before is not None:
        held_bytes += before.size_bytes if now is None else before.state.ByteSize()
    return Changed(names.topic(names.parent_of(name), "activations"), name, before, now, held_bytes)


def _take_out(index: defaultdict[str, dict[str, None]], agent: str, name: str) -> None:
    held = index[agent]
    held.pop(name, None)
    if not held:
        del index[agent]
