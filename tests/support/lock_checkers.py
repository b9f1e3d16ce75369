"""Checkers of locks and elections: one holder at a time, fences that grow and protect, delays, lines, observers.

All that they know of a lock are sights of it in answers, what was written to what it guards, and keepalives of leases.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from support.evidence import Call, Evidence, Violation, first
from support.history import Event, LeaderTold

ACQUIRING = ("AcquireLock", "Campaign")
GIVING_BACK = ("ReleaseLock", "ResignLeadership")
FENCED = (*GIVING_BACK, "ProclaimLeader")
SEEING = (*ACQUIRING, *FENCED, "GetLock", "GetLeader", "ListLocks", "ForceReleaseLock")

DELAY_S_DEFAULT = 1.0
"""What the API promises a lock for which no delay is asked, and every leadership."""

ARRIVAL_S_MAX = 0.05
"""A call that began so much later than another one to the same server arrived later, if both were answered."""

REVISION_MASK = (1 << 40) - 1
"""The part of a fence that is the revision at which its hold began."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A hold as an answer told of it. `is_held` at the revision; 0 where the answer does not say one."""

    name: str
    fence: int
    holder: str
    lease: str
    is_held: bool
    revision: int
    event: Event

    @property
    def start(self) -> int:
        """The revision at which it began."""
        return self.fence & REVISION_MASK


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that a caller was told of, and the first call that was."""

    name: str
    fence: int
    lease: str
    delay_s: float
    call: Call

    @property
    def told_s(self) -> float:
        """When the caller knew."""
        assert self.call.ok is not None
        return self.call.ok.at_s


class _Locks:
    """What a history says of locks and elections."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.sights = sorted(_sights(evidence), key=lambda sight: sight.event.at_s)
        self.by_name: dict[str, list[Sight]] = defaultdict(list)
        for sight in self.sights:
            self.by_name[sight.name].append(sight)
        self.holds: dict[tuple[str, int], Hold] = {}
        for call in evidence.of(*ACQUIRING):
            sight = next(_of_call(call), None)
            if sight is not None:
                delay_s = call.invoke.asked.get("delay", DELAY_S_DEFAULT)
                self.holds.setdefault(
                    (sight.name, sight.fence), Hold(sight.name, sight.fence, sight.lease, delay_s, call)
                )

    def newest_before(self, name: str, at_s: float) -> Sight | None:
        """The greatest fence of a lock that anyone knew of at a time."""
        known = (sight for sight in self.by_name[name] if sight.event.at_s < at_s)
        return max(known, key=lambda sight: sight.fence, default=None)

    def released_s(self, hold: Hold) -> float:
        """When someone first asked to give it back, which has no delay."""
        return first(call.invoke.at_s for call in self._releases.get(hold.fence, ()) if call.may_have_happened)

    def forced_s(self, hold: Hold) -> float:
        """When an operator first asked for the lock, as far as that may have met this very hold."""
        begun_s = min(hold.call.invoke.at_s, self.evidence.before_s(hold.fence & REVISION_MASK))
        asked = (call for call in self._forced.get(hold.name, ()) if call.may_have_happened)
        met = (call for call in asked if call.ok is None or call.ok.at_s >= begun_s)  # one given up may yet arrive
        return first(max(call.invoke.at_s, begun_s) for call in met)

    @cached_property
    def _releases(self) -> Mapping[int, Sequence[Call]]:
        found: dict[int, list[Call]] = defaultdict(list)
        for call in self.evidence.of(*GIVING_BACK):
            found[call.invoke.fence].append(call)
        return found

    @cached_property
    def _forced(self) -> Mapping[str, Sequence[Call]]:
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.evidence.of("ForceReleaseLock"):
            found[call.invoke.asked["lock"]].append(call)
        return found

    def lease_stood_until_s(self, lease: str) -> float:
        """A time at which a lease surely stood: the last at which a keepalive was sent that was acknowledged."""
        kept = (keep.sent.at_s for keep in self.evidence.keeps.get(lease, ()) if keep.is_kept)
        return max(kept, default=float("-inf"))

    def lease_lost_s(self, lease: str) -> float:
        """A time before which a lease surely had not ended."""
        granted = self._grants.get(lease)
        if granted is None or granted.ok is None:
            return float("-inf")
        ttl_s = next(each.ttl_s for each in granted.ok.leases if each.name == lease)
        stood_s = max(self.lease_stood_until_s(lease), granted.invoke.at_s)
        expired_s = stood_s + ttl_s * (1 - self.evidence.limits.clock_error)
        return min(expired_s, first(call.invoke.at_s for call in self.evidence.revocations.get(lease, ())))

    @cached_property
    def _grants(self) -> Mapping[str, Call]:
        return {lease.name: call for call in self.evidence.of("GrantLease") if call.ok for lease in call.ok.leases}

    def must_stand(self, hold: Hold, at_s: float) -> bool:
        """Whether it must have been held from its answer to after a time: its lease was kept, and nobody ended it."""
        revoked_s = first(call.invoke.at_s for call in self.evidence.revocations.get(hold.lease, ()))
        slack_s = self.evidence.limits.stale_keeps_s if revoked_s <= at_s else 0.0
        is_kept = self.lease_stood_until_s(hold.lease) > at_s + slack_s
        return is_kept and min(self.released_s(hold), self.forced_s(hold)) >= at_s


@lru_cache(maxsize=1)
def _locks(evidence: Evidence) -> _Locks:
    return _Locks(evidence)


def _sights(evidence: Evidence) -> Iterator[Sight]:
    for call in evidence.of(*SEEING):
        yield from _of_call(call)
    for told in evidence.leaders:
        if told.leadership.get("fence"):
            yield _leadership(told.leadership, told.revision, told)


def _of_call(call: Call) -> Iterator[Sight]:
    """The holds that an answer shows."""
    if call.ok is None:
        return
    told = call.ok.told
    revision = told.get("revision", 0)
    for lock in [*told.get("locks", ()), *([told["lock"]] if "lock" in told else ())]:
        if lock.get("fence"):
            is_held = lock["state"] == "HELD"
            yield Sight(lock["name"], lock["fence"], lock["holder"], lock["lease"], is_held, revision, call.ok)
    if told.get("leadership", {}).get("fence"):
        yield _leadership(told["leadership"], revision, call.ok)


def _leadership(told: dict[str, Any], revision: int, event: Event) -> Sight:
    return Sight(told["election"], told["fence"], told["leader"], told["lease"], True, revision, event)


def one_holder(evidence: Evidence) -> Iterator[Violation]:
    """K1: a fence is one holder's, nobody else has what is still held, and what is guarded sees one after the other."""
    locks = _locks(evidence)
    yield from _one_holder_of_each_fence(locks)
    yield from _no_overlap(locks)
    yield from _guarded_in_order(evidence)
    for name in locks.by_name:
        holds = [hold for hold in locks.holds.values() if hold.name == name]
        for hold in holds:
            after = next((sight for sight in locks.by_name[name] if sight.fence > hold.fence), None)
            if after is not None and locks.must_stand(hold, after.event.at_s):
                text = f"{name}: fence {after.fence} is there while {hold.fence} has been neither lost nor given back"
                yield Violation("K1", text, (*hold.call.events, after.event))


def _one_holder_of_each_fence(locks: _Locks) -> Iterator[Violation]:
    seen: dict[tuple[str, int], Sight] = {}
    for sight in locks.sights:
        before = seen.setdefault((sight.name, sight.fence), sight)
        if (before.holder, before.lease) != (sight.holder, sight.lease):
            text = f"{sight.name}: fence {sight.fence} is {before.holder}'s and {sight.holder}'s"
            yield Violation("K1", text, (before.event, sight.event))


def _no_overlap(locks: _Locks) -> Iterator[Violation]:
    """No hold is seen held at a revision at which another had begun."""
    for name, sights in locks.by_name.items():
        starts = sorted({sight.start: sight for sight in sights}.values(), key=lambda sight: sight.start)
        for sight in sights:
            after = next((each for each in starts if sight.start < each.start <= sight.revision), None)
            if sight.is_held and after is not None:
                text = f"{name}: fence {sight.fence} is held at {sight.revision}, and {after.fence} began before"
                yield Violation("K1", text, (sight.event, after.event))


def _guarded_in_order(evidence: Evidence) -> Iterator[Violation]:
    """What is guarded accepts one holder after the other; whoever writes with the same fence is the same."""
    largest: dict[str, tuple[int, Event]] = {}
    writers: dict[tuple[str, int], tuple[str, Event]] = {}
    for write in evidence.guarded:
        fence, before = largest.get(write.resource, (0, write))
        if write.is_accepted and write.fence < fence:
            yield Violation("K1", f"{write.resource} accepted {write.fence} after {fence}", (before, write))
        writer, earlier = writers.setdefault((write.resource, write.fence), (write.process, write))
        if writer != write.process:
            yield Violation("K1", f"{writer} and {write.process} write with fence {write.fence}", (earlier, write))
        if write.fence >= fence:
            largest[write.resource] = write.fence, write


def fences_grow(evidence: Evidence) -> Iterator[Violation]:
    """K2: whatever became of a lock in between, nobody is told a smaller fence than what was known before it asked."""
    locks = _locks(evidence)
    for call in evidence.of(*SEEING):
        for sight in _of_call(call):
            known = locks.newest_before(sight.name, call.invoke.at_s)
            if known is not None and known.fence > sight.fence:
                text = f"{sight.name}: fence {sight.fence} follows {known.fence}"
                yield Violation("K2", text, (known.event, *call.events))
            if not 0 < sight.fence < 1 << 53:
                yield Violation("K2", f"{sight.name}: fence {sight.fence} is out of range", call.events)


def stale_is_refused(evidence: Evidence) -> Iterator[Violation]:
    """K3: a fence counts for nothing once it is given back, its lease has ended, or another is known, nor elsewhere."""
    locks = _locks(evidence)
    for call in evidence.of(*FENCED, "VerifyFence"):
        if call.ok is None or (call.invoke.op == "VerifyFence" and not call.ok.told.get("valid")):
            continue
        name = next(call.invoke.asked[each] for each in ("lock", "election", "resource") if each in call.invoke.asked)
        fence, at_s = call.invoke.fence, call.invoke.at_s
        known = locks.newest_before(name, at_s)
        if known is not None and known.fence > fence:
            yield Violation("K3", f"{name}: {fence} is good after {known.fence}", (known.event, *call.events))
        if elsewhere := _elsewhere(locks, name, fence):
            text = f"{name}: {fence} is good, and is that of {elsewhere.name}"
            yield Violation("K3", text, (elsewhere.event, *call.events))
        for ended in _ends_before(locks, name, fence, at_s):
            yield Violation("K3", f"{name}: {fence} is good after its hold ended", (*ended.events, *call.events))


def _elsewhere(locks: _Locks, name: str, fence: int) -> Sight | None:
    """Another lock that a fence is of: one revision begins one hold."""
    return next((sight for sight in locks.sights if sight.fence == fence and sight.name != name), None)


def _ends_before(locks: _Locks, name: str, fence: int, at_s: float) -> Iterator[Call]:
    """Calls that had ended the hold of a fence before a time: it was given back, or its lease revoked."""
    for call in locks.evidence.of(*GIVING_BACK):
        asked = call.invoke.asked.get("lock") or call.invoke.asked.get("election")
        if call.ok is not None and (asked, call.invoke.fence) == (name, fence) and call.ok.at_s < at_s:
            yield call
    lease = next((sight.lease for sight in locks.by_name[name] if sight.fence == fence), "")
    for call in locks.evidence.revocations.get(lease, ()):
        if call.ok is not None and call.ok.at_s < at_s:
            yield call


def delay_after_loss(evidence: Evidence) -> Iterator[Violation]:
    """K4: a hold that was lost, rather than given back, has nobody after it before its delay is over.

    It was not lost before its lease could end, or an operator asked for it; whoever has it next had it when told so.
    """
    locks = _locks(evidence)
    for hold in locks.holds.values():
        after = next((sight for sight in locks.by_name[hold.name] if sight.fence > hold.fence), None)
        if after is None or locks.released_s(hold) < after.event.at_s:
            continue
        lost_s = min(locks.lease_lost_s(hold.lease), locks.forced_s(hold))
        if after.event.at_s < lost_s + hold.delay_s * (1 - evidence.limits.clock_error):
            text = (
                f"{hold.name}: {after.fence} is there at {after.event.at_s:.3f} s, and {hold.fence} was not lost before"
            )
            text += f" {lost_s:.3f} s, with a delay of {hold.delay_s:g} s"
            yield Violation("K4", text, (*hold.call.events, after.event))


def in_order(evidence: Evidence) -> Iterator[Violation]:
    """K5: of two who wait at one server, who came first has it first, unless the other one had it already.

    A caller whose holder has other calls for the same under way may have been given the hold of one of those.
    """
    locks = _locks(evidence)
    lines: dict[tuple[str, str], list[tuple[Call, Sight]]] = defaultdict(list)
    for call in evidence.of(*ACQUIRING):
        _, at, server = call.invoke.process.partition("@")
        sight = next(_of_call(call), None)
        if at and sight is not None and not _has_rivals(evidence, call):
            lines[server, sight.name].append((call, sight))
    for answered in lines.values():
        yield from _overtaken(locks, answered)


def _has_rivals(evidence: Evidence, call: Call) -> bool:
    """Whether other calls of the same holder may have been given what this one was told of."""
    asked = call.invoke.asked
    keys = ("lock", "election", "holder", "candidate", "lease")
    return any(
        other is not call
        and all(other.invoke.asked.get(key) == asked.get(key) for key in keys)
        and other.invoke.at_s < (call.end.at_s if call.end is not None else 0)
        and other.may_have_happened
        and (other.ok is None or other.ok.at_s > call.invoke.at_s)
        for other in evidence.of(call.invoke.op)
    )


def _overtaken(locks: _Locks, answered: Sequence[tuple[Call, Sight]]) -> Iterator[Violation]:
    for earlier, its in answered:
        for later, other in answered:
            is_later = later.invoke.at_s > earlier.invoke.at_s + ARRIVAL_S_MAX
            assert earlier.ok is not None
            was_waiting = earlier.ok.at_s > later.invoke.at_s
            began_after = locks.evidence.before_s(other.start) >= later.invoke.at_s
            if is_later and was_waiting and began_after and other.fence < its.fence:
                text = f"{its.name}: {later.invoke.process} got it with {other.fence} before {earlier.invoke.process}"
                yield Violation("K5", text, (*earlier.events, *later.events))


def acknowledged_holds_stay(evidence: Evidence) -> Iterator[Violation]:
    """S2: a hold that was acknowledged is seen by all who ask later, as long as nothing ended it."""
    locks = _locks(evidence)
    for call in evidence.of("GetLock", "GetLeader"):
        if call.ok is None:
            continue
        name = call.invoke.asked.get("name") or call.invoke.asked["election"]
        seen = next(_of_call(call), None)
        for hold in locks.holds.values():
            if (
                hold.name != name
                or hold.told_s >= call.invoke.at_s
                or (seen and seen.is_held and seen.fence >= hold.fence)
            ):
                continue
            if locks.must_stand(hold, call.ok.at_s):
                yield Violation(
                    "S2", f"{name}: {hold.fence} is gone, and nothing ended it", (*hold.call.events, *call.events)
                )


def repeats_get_the_same_hold(evidence: Evidence) -> Iterator[Violation]:
    """request_id: a repeated request that is answered is told of the hold it got first."""
    seen: dict[tuple[str, str], tuple[Call, int]] = {}
    for call in evidence.of(*ACQUIRING):
        sight = next(_of_call(call), None)
        if sight is None or not call.invoke.request_id:
            continue
        key = (call.invoke.op, call.invoke.request_id)
        before, fence = seen.setdefault(key, (call, sight.fence))
        is_kept = call.invoke.at_s - before.invoke.at_s < evidence.limits.requests_kept_s
        if is_kept and (sight.fence, call.invoke.content) != (fence, before.invoke.content):
            text = f"{sight.name}: {fence} for the first, {sight.fence} for the same, or another, request"
            yield Violation("request_id", text, (*before.events, *call.events))


def leaders_in_order(evidence: Evidence) -> Iterator[Violation]:
    """E1: observers see one leadership at a time, each once, with fences in order, and all see the same."""
    streams: dict[int, list[LeaderTold]] = defaultdict(list)
    for told in evidence.leaders:
        streams[told.watch].append(told)
    for stream in streams.values():
        yield from _one_after_the_other(stream)
        yield from _none_left_out(_locks(evidence), stream)
    yield from _all_alike(streams.values())


def _one_after_the_other(stream: Sequence[LeaderTold]) -> Iterator[Violation]:
    largest, ended = 0, 0
    for before, told in zip([None, *stream], stream, strict=False):
        fence = told.leadership.get("fence", 0)
        if before is not None and told.revision <= before.revision:
            yield Violation("E1", f"revision {told.revision} follows {before.revision}", (before, told))
        if before is not None and before.leadership == told.leadership:
            yield Violation("E1", f"revision {told.revision} tells what {before.revision} did", (before, told))
        if fence and (fence < largest or fence == ended):
            yield Violation("E1", f"fence {fence} follows {max(largest, ended)}", (told,))
        ended = largest if fence != largest else ended
        largest = max(largest, fence)


def _none_left_out(locks: _Locks, stream: Sequence[LeaderTold]) -> Iterator[Violation]:
    begin, end = stream[0].revision, stream[-1].revision
    seen = {told.leadership.get("fence", 0) for told in stream}
    for sight in locks.by_name[stream[0].election]:
        if begin < sight.start <= end and sight.fence not in seen:
            text = f"{sight.name}: fence {sight.fence} is not told between {begin} and {end}"
            yield Violation("E1", text, (stream[0], sight.event, stream[-1]))


def _all_alike(streams: "Iterator[Sequence[LeaderTold]] | Any") -> Iterator[Violation]:
    """Changes at one revision are the same to all; the first message of a stream is of no change."""
    at: dict[tuple[str, int], LeaderTold] = {}
    for stream in streams:
        for told in stream:
            if told.is_first:
                continue
            before = at.setdefault((told.election, told.revision), told)
            if before.leadership != told.leadership:
                yield Violation("E1", f"two observers see different leaders at {told.revision}", (before, told))
