"""A history in the order that checkers ask for it: calls with their ends, watches with their messages."""

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from support.history import (
    AgentChange,
    AgentSeen,
    Event,
    Failed,
    FinalState,
    FollowBegun,
    FollowEnded,
    FollowMessage,
    GuardedWrite,
    Invoke,
    KeepAnswered,
    KeepSent,
    LeaderTold,
    Ok,
    ServerMark,
    WatchBegun,
    WatchEnded,
    WatchMessage,
)

READS = (
    "GetAgent",
    "ListAgents",
    "MatchAgents",
    "GetLease",
    "ListLeases",
    "GetDecision",
    "ListDecisions",
    "GetLock",
    "GetLeader",
    "ListLocks",
    "VerifyFence",
)
"""Calls that are linearizable and change nothing."""

AGENT_WRITES = ("RegisterAgent", "BatchRegisterAgents", "UpdateAgent")
"""Calls that write agents whenever they succeed, since each has a tag of its own."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and the events that say so."""

    invariant: str
    message: str
    evidence: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a registry is allowed.

    Args:
        grace_s: How long after its deadline a lease may stand, in steady state.
        clock_error: Most by which clocks of servers run faster or slower than the recorder's, as a share.
        requests_kept_s: How long repeated requests are surely answered alike.
        expired_kept_s: How long expired agents are surely kept.
        stale_keeps_s: How long after a revocation at one replica another may still acknowledge keepalives.
        retain_revisions: How many of the newest revisions watches surely resume from.
        ended_kept_s: How long what has ended (decisions) is surely kept.
        deadlines_grace_s: How long after a deadline something surely has been done about it; None where servers' clocks
            are too wrong for times of day to say anything.
        clock_skew_s: Most by which the times of day of servers differ; None where that says nothing.
    """

    grace_s: float = 1.0
    clock_error: float = 0.0
    requests_kept_s: float = 3600.0
    expired_kept_s: float = 3600.0
    stale_keeps_s: float = 0.0
    retain_revisions: int = 0
    ended_kept_s: float = 86_400.0
    deadlines_grace_s: float | None = None
    clock_skew_s: float | None = None


@dataclass(slots=True)
class Call:
    """A call and how it ended; without an end, nobody knows."""

    invoke: Invoke
    end: Ok | Failed | None = None

    @property
    def ok(self) -> Ok | None:
        """Its answer, if it succeeded."""
        return self.end if isinstance(self.end, Ok) else None

    @property
    def may_have_happened(self) -> bool:
        """Whether it succeeded, or nobody knows."""
        return not (isinstance(self.end, Failed) and self.end.is_definite)

    @property
    def events(self) -> tuple[Event, ...]:
        """Its beginning and end."""
        return (self.invoke, self.end) if self.end is not None else (self.invoke,)


@dataclass(slots=True)
class Keep:
    """A keepalive and its outcome."""

    sent: KeepSent
    answer: KeepAnswered | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it was acknowledged."""
        return self.answer is not None and not self.answer.reason


@dataclass(slots=True)
class Watch:
    """A watch and what came of it."""

    begun: WatchBegun
    messages: list[WatchMessage] = field(default_factory=list)
    ended: WatchEnded | None = None

    @property
    def is_unfiltered(self) -> bool:
        """Whether it asks for everything."""
        return not self.begun.filter

    def snapshot(self) -> list[WatchMessage]:
        """Messages of the snapshot it begins with; none if it has none, or not all of it."""
        ends = [index for index, message in enumerate(self.messages) if message.is_snapshot_end]
        return self.messages[: ends[0] + 1] if ends and self.begun.start_revision == 0 else []

    def steps(self) -> Iterator[WatchMessage]:
        """Messages after the snapshot, if there was one, without resets."""
        is_in_snapshot = self.begun.start_revision == 0
        for message in self.messages:
            if is_in_snapshot:
                is_in_snapshot = not message.is_snapshot_end
            elif message.step != "reset":
                yield message

    @property
    def first_revision(self) -> int | None:
        """The first revision whose changes it must tell; None if its snapshot did not end."""
        if self.begun.start_revision:
            return self.begun.start_revision
        return next((message.revision + 1 for message in self.messages if message.is_snapshot_end), None)

    @property
    def last_revision(self) -> int:
        """The revision up to which it told everything; 0 before its first message."""
        return max((message.revision for message in self.steps()), default=(self.first_revision or 1) - 1)


@dataclass(slots=True)
class Follow:
    """A watch of other resources than agents, and what came of it."""

    begun: FollowBegun
    messages: list[FollowMessage] = field(default_factory=list)
    ended: FollowEnded | None = None

    def snapshot(self) -> list[FollowMessage]:
        """Messages of the snapshot it begins with; none if it has none, or not all of it."""
        ends = [index for index, message in enumerate(self.messages) if message.is_snapshot_end]
        return self.messages[: ends[0] + 1] if ends and self.begun.start_revision == 0 else []

    def steps(self) -> Iterator[FollowMessage]:
        """Messages after the snapshot, if there was one, without resets."""
        is_in_snapshot = self.begun.start_revision == 0
        for message in self.messages:
            if is_in_snapshot:
                is_in_snapshot = not message.is_snapshot_end
            elif message.step != "reset":
                yield message

    @property
    def first_revision(self) -> int | None:
        """The first revision whose changes it must tell; None if its snapshot did not end."""
        if self.begun.start_revision:
            return self.begun.start_revision
        return next((message.revision + 1 for message in self.messages if message.is_snapshot_end), None)

    @property
    def last_revision(self) -> int:
        """The revision up to which it told everything; 0 before its first message."""
        return max((message.revision for message in self.steps()), default=(self.first_revision or 1) - 1)


class Evidence:
    """What a history says."""

    def __init__(self, events: Sequence[Event], limits: Limits) -> None:
        self.limits = limits
        self.calls: dict[int, Call] = {}
        self.keeps: dict[str, list[Keep]] = defaultdict(list)
        self.watches: dict[int, Watch] = {}
        self.follows: dict[int, Follow] = {}
        self.leaders: list[LeaderTold] = []
        self.guarded: list[GuardedWrite] = []
        self.marks: list[ServerMark] = []
        self.finals: list[FinalState] = []
        pending: dict[int, Keep] = {}
        for event in events:
            self._take(event, pending)

    def _take(self, event: Event, pending: dict[int, Keep]) -> None:
        match event:
            case Invoke():
                self.calls[event.call] = Call(event)
            case Ok() | Failed():
                self.calls[event.call].end = event
            case KeepSent():
                keep = pending[event.call] = Keep(event)
                self.keeps[event.lease].append(keep)
            case KeepAnswered():
                pending[event.call].answer = event
            case WatchBegun():
                self.watches[event.watch] = Watch(event)
            case WatchMessage():
                self.watches[event.watch].messages.append(event)
            case WatchEnded():
                self.watches[event.watch].ended = event
            case ServerMark():
                self.marks.append(event)
            case FinalState():
                self.finals.append(event)
            case LeaderTold():
                self.leaders.append(event)
            case GuardedWrite():
                self.guarded.append(event)
            case _:
                self._follow(event)

    def _follow(self, event: FollowBegun | FollowMessage | FollowEnded) -> None:
        match event:
            case FollowBegun():
                self.follows[event.watch] = Follow(event)
            case FollowMessage():
                self.follows[event.watch].messages.append(event)
            case FollowEnded():
                self.follows[event.watch].ended = event

    def of(self, *ops: str) -> Iterator[Call]:
        """Calls of some rpcs, in the order they began."""
        return (call for call in self.calls.values() if call.invoke.op in ops)

    def known_after(self, at_s: float) -> int | None:
        """A revision that the store had surely not passed at a time: the least answered to what began later, if any."""
        times, least = self._answered
        index = bisect.bisect_right(times, at_s)
        return least[index] if index < len(least) else None

    def before_s(self, revision: int) -> float:
        """A time at which the store had not come to a revision: the last begin of what was answered before it."""
        revisions, latest = self._unreached
        index = bisect.bisect_left(revisions, revision)
        return latest[index - 1] if index else float("-inf")

    @cached_property
    def _unreached(self) -> tuple[list[int], list[float]]:
        """Revisions that calls were answered at, and the last begin of those answered at each or at an earlier one."""
        answered = sorted((call.ok.revision, call.invoke.at_s) for call in self.dated() if call.ok is not None)
        return [revision for revision, _ in answered], list(itertools.accumulate((at_s for _, at_s in answered), max))

    @cached_property
    def _answered(self) -> tuple[list[float], list[int]]:
        """When calls began that were answered at a revision of their time, and the least of each and all later ones."""
        answered = sorted((call.invoke.at_s, call.ok.revision) for call in self.dated() if call.ok is not None)
        least = list(itertools.accumulate((revision for _, revision in reversed(answered)), min))[::-1]
        return [at_s for at_s, _ in answered], least

    def dated(self) -> Iterator[Call]:
        """Successful calls whose revision is not of before they began: reads, and writes that repeat nothing."""
        return (call for call in self.of(*READS, *AGENT_WRITES) if call.ok is not None and not call.invoke.request_id)

    def begun_s(self, call: Call) -> float:
        """When what a call asks for can first have happened: a repeated request may be answered for an earlier one."""
        invoke = call.invoke
        return self._begun_s[invoke.op, invoke.request_id] if invoke.request_id else invoke.at_s

    @cached_property
    def _begun_s(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for call in self.calls.values():
            key = (call.invoke.op, call.invoke.request_id)
            found[key] = min(call.invoke.at_s, found.get(key, call.invoke.at_s))
        return found

    @cached_property
    def about(self) -> dict[str, list[Call]]:
        """Calls by the agents they are about, in the order they began."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls.values():
            for name in call.invoke.about:
                found[name].append(call)
        return found

    @cached_property
    def revocations(self) -> dict[str, list[Call]]:
        """Calls that ask for the end of a lease, by its name."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.of("RevokeLease"):
            found[call.invoke.lease].append(call)
        return found

    @cached_property
    def log(self) -> dict[str, dict[int, dict[str, tuple[AgentChange, WatchMessage]]]]:
        """What watches told after their snapshots: namespace → revision → agent → change and message.

        Those without a filter first; with one, an agent that ceases to match is DELETED, which says nothing here.
        """
        found: dict[str, dict[int, dict[str, tuple[AgentChange, WatchMessage]]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for watch in sorted(self.watches.values(), key=lambda watch: not watch.is_unfiltered):
            revisions = found[watch.begun.parent]
            for message in watch.steps():
                for change in message.changes:
                    if change.type == "DELETED" and not watch.is_unfiltered:
                        continue
                    revisions[message.revision].setdefault(change.agent.name, (change, message))
        return found

    def changes(self, name: str) -> dict[int, AgentChange]:
        """What watches told of one agent, by revision."""
        return self._changes.get(name, {})

    @cached_property
    def _changes(self) -> dict[str, dict[int, AgentChange]]:
        found: dict[str, dict[int, AgentChange]] = defaultdict(dict)
        for revisions in self.log.values():
            for revision in sorted(revisions):
                for name, (change, _) in revisions[revision].items():
                    found[name][revision] = change
        return found

    def known_at_start(self, watch: Watch) -> dict[str, AgentSeen]:
        """The agents as the watches before told them, or as the snapshot of this one shows them."""
        return dict(self._known_at_start[watch.begun.watch])

    @cached_property
    def _known_at_start(self) -> dict[int, dict[str, AgentSeen]]:
        starts: dict[int, dict[str, AgentSeen]] = {}
        ends: dict[int, dict[str, AgentSeen]] = {}
        for number, watch in self.watches.items():  # each goes on from one that began earlier
            states = dict(ends.get(watch.begun.resumes, {}))
            for message in watch.snapshot():
                take_in(states, message)
            starts[number] = dict(states)
            for message in watch.steps():
                take_in(states, message)
            ends[number] = states
        return starts

    def is_whole(self, watch: Watch) -> bool:
        """Whether a watch knows of everyone: it begins with a snapshot, or goes on from one that does."""
        return watch.begun.watch in self._whole

    @cached_property
    def _whole(self) -> set[int]:
        found: set[int] = set()
        for number, watch in self.watches.items():
            if watch.snapshot() or (watch.begun.start_revision and watch.begun.resumes in found):
                found.add(number)
        return found

    def agents(self) -> Iterator[tuple[AgentSeen, Event]]:
        """Every sight of an agent, and where."""
        for call in self.calls.values():
            if call.ok is not None:
                yield from ((agent, call.ok) for agent in call.ok.agents if agent.uid)
        for watch in self.watches.values():
            for message in watch.messages:
                yield from ((change.agent, message) for change in message.changes)
        for final in self.finals:
            yield from ((agent, final) for agent in final.agents)

    @cached_property
    def agents_of(self) -> dict[str, set[tuple[str, str]]]:
        """Names and uids of the agents seen under each lease."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for agent, _ in self.agents():
            if agent.lease:
                found[agent.lease].add((agent.name, agent.uid))
        return found


def take_in(states: dict[str, AgentSeen], message: WatchMessage) -> None:
    """Brings what a watcher knows, by name, to where a message leads."""
    for change in message.changes:
        states.pop(change.agent.name, None)
        if change.type != "DELETED":
            states[change.agent.name] = change.agent


def parent_of(name: str) -> str:
    """Namespace of an agent."""
    return name.rsplit("/", 2)[0]


def first(values: Iterable[float]) -> float:
    """The smallest, or infinity of none."""
    return min(values, default=float("inf"))
