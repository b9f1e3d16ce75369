"""Decisions as this replica sees them, put together from what the store holds of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.decision_service_pb2 import DECISION_STATE_OPEN, Vote
from holdfast.core.decisions.entry import DecisionEntry
from holdfast.indexes import Names
from holdfast.parts import Kind, Part
from holdfast.storage.v1.decisions_pb2 import DecisionRecord, DecisionStateRecord, VoteRecord
from holdfast.store.interface import KeyValue
from holdfast.topics import Changed

ENTRY_BYTES = 1 << 10
"""What a decision that was takes in memory, besides its votes and what it shares with the one that is; measured."""

VOTE_BYTES = 100
"""What each of its votes takes, shared or not: a place in a table; measured."""


class DeadlineListener(Protocol):
    """Learns of deadlines as the view does."""

    def set(self, name: str, deadline: Timestamp) -> None:
        """A decision has a deadline from now on, in the place of the one before."""
        ...

    def clear(self, name: str) -> None:
        """It has none any more."""
        ...


class Decisions(Part):
    """All decisions at the view's revision.

    Attributes:
        ended_bytes: What the records of those that have ended take.
        on_ended: Called with each that comes to its end.
    """

    def __init__(self, listener: DeadlineListener) -> None:
        self.ended_bytes = 0
        self.on_ended: Callable[[DecisionEntry], None] = lambda _entry: None
        self._listener = listener
        self._records: dict[str, DecisionRecord] = {}
        self._states: dict[str, tuple[DecisionStateRecord, int]] = {}
        self._votes: dict[str, Mapping[str, Vote]] = {}
        self._entries: dict[str, DecisionEntry] = {}
        self._touched: dict[str, DecisionEntry | None] = {}
        self._ended: dict[str, int] = {}
        self._names = Names()

    @property
    def ended_count(self) -> int:
        """How many have ended, and are remembered."""
        return len(self._ended)

    @property
    def unsettled_count(self) -> int:
        """How many have not ended."""
        return len(self._states) - len(self._ended)

    def get(self, name: str) -> DecisionEntry | None:
        """The decision of this name; it stays as it is when others change."""
        return self._entries.get(name)

    def after(self, parent: str, name: str = "", limit: int | None = None) -> list[DecisionEntry]:
        """Decisions of a namespace in the order of their names, at most `limit`, from the first greater than `name`."""
        return [self._entries[each] for each in self._names.after(parent, name)[:limit]]

    def ended(self) -> Iterator[DecisionEntry]:
        """Those that have ended, the first ended first."""
        return (entry for name in list(self._ended) if (entry := self.get(name)) is not None)

    def take_changes(self) -> Sequence[Changed]:
        """The decisions that changed, each under its namespace's topic; each is put together once for a revision."""
        if not self._touched:
            return ()
        touched, self._touched = self._touched, {}
        for name in touched:
            self._put_together(name)
        return [_changed(name, before, self._entries.get(name)) for name, before in touched.items()]

    def kinds(self) -> Mapping[str, Kind]:
        """The records that decisions consist of; every change writes the state."""
        return {
            names.DECISION_PREFIX: Kind(self._put_record, self._delete_record),
            names.DECISION_STATE_PREFIX: Kind(self._put_state, self._delete_state, self._state_revision),
            names.VOTE_PREFIX: Kind(self._put_vote, _delete_vote),
        }

    def _put_record(self, name: str, put: KeyValue) -> None:
        self._records[name] = DecisionRecord.FromString(put.value)
        self._touch(name)

    def _put_state(self, name: str, put: KeyValue) -> None:
        self._states[name] = DecisionStateRecord.FromString(put.value), put.mod_revision
        self._touch(name)

    def _put_vote(self, name: str, put: KeyValue) -> None:
        decision, _, _ = name.rpartition("/")
        vote = VoteRecord.FromString(put.value).vote
        vote.revision = put.mod_revision
        others = {agent: each for agent, each in self._votes.get(decision, {}).items() if agent != vote.agent}
        self._votes[decision] = {**others, vote.agent: vote}
        self._touch(decision)

    def _state_revision(self, name: str) -> int:
        _, mod_revision = self._states.get(name, (None, 0))
        return mod_revision

    def _delete_record(self, name: str, _revision: int) -> None:
        self._records.pop(name, None)
        self._drop(name)

    def _delete_state(self, name: str, _revision: int) -> None:
        self._states.pop(name, None)
        self._votes.pop(name, None)
        self._drop(name)

    def _drop(self, name: str) -> None:
        """Its records go at one revision."""
        before = self._entries.pop(name, None)
        if before is None:
            return
        self._touched.setdefault(name, before)
        self._names.remove(name)
        self.ended_bytes -= self._ended.pop(name, 0)
        self._listener.clear(name)

    def _touch(self, name: str) -> None:
        self._touched.setdefault(name, self._entries.get(name))

    def _put_together(self, name: str) -> None:
        """Makes the decision of its records, and says when something must happen to it if nobody does anything."""
        record, state = self._records.get(name), self._states.get(name)
        if record is None or state is None:  # it is gone
            return
        entry = DecisionEntry(record, *state, self._votes.get(name, {}))
        before = self._entries.get(name)
        if before is None:
            self._names.add(name)
        self._entries[name] = entry
        if entry.has_ended:
            self._listener.clear(name)
            is_new = name not in self._ended
            self.ended_bytes += entry.size_bytes - self._ended.get(name, 0)
            self._ended[name] = entry.size_bytes
            if is_new:
                self.on_ended(entry)
        elif entry.state.state == DECISION_STATE_OPEN:
            self._listener.set(name, entry.record.decision.deadline)
        else:
            self._listener.set(name, entry.state.fallback_deadline)


def _changed(name: str, before: DecisionEntry | None, now: DecisionEntry | None) -> Changed:
    """A change, with what it takes in memory once the view has let go of what was before."""
    held_bytes = 0
    if before is not None:
        held_bytes = ENTRY_BYTES + VOTE_BYTES * len(before.votes)
        if now is None:
            held_bytes += 2 * before.size_bytes
        elif before.record.decision.allow_vote_change:
            held_bytes += sum(
                2 * vote.ByteSize() for agent, vote in before.votes.items() if now.votes.get(agent) is not vote
            )
    return Changed(names.topic_of(name), name, before, now, held_bytes)


def _delete_vote(_name: str, _revision: int) -> None:
    """Votes go with the state, which is deleted at the same revision."""
