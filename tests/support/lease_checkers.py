"""Checkers of leases: nothing ends early or late, in parts, after it was kept, or with a fence used before."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from support.evidence import Call, Evidence, Keep, Violation, first, take_in
from support.history import AgentSeen, Event, Failed, WatchMessage

REGISTRATIONS = ("RegisterAgent", "BatchRegisterAgents")
"""Calls that begin incarnations."""

REPLACERS = ("DeregisterAgent", *REGISTRATIONS)
"""Calls that can end a lease before its time, as RevokeLease does: the last ones if another incarnation takes over."""


def never_early(evidence: Evidence) -> Iterator[Violation]:
    """L1: no lease expires before its last acknowledged keepalive, or its grant, and its TTL have passed."""
    proofs = _proofs(evidence)
    for lease, (at_s, event) in _expired(evidence).items():
        if _asked_to_end_s(evidence, lease) <= at_s:
            continue
        broken = (proof for proof in proofs.get(lease, ()) if at_s < proof.until_s)
        for proof in itertools.islice(broken, 1):
            text = f"{lease} expired {proof.until_s - at_s:.3f} s before its TTL had passed"
            yield Violation("L1", text, (*proof.events, event))


def _expired(evidence: Evidence) -> dict[str, tuple[float, WatchMessage]]:
    """When each lease was first seen to have expired."""
    found: dict[str, tuple[float, WatchMessage]] = {}
    for watch in evidence.watches.values():
        for message in watch.messages:
            for change in message.changes:
                lease = change.agent.lease
                if change.agent.liveness == "EXPIRED" and (lease not in found or message.at_s < found[lease][0]):
                    found[lease] = message.at_s, message
    return found


def _grants(evidence: Evidence) -> Iterator[tuple[str, Call, float]]:
    """Leases, the calls that granted them, and their TTL."""
    for call in evidence.of("GrantLease"):
        if call.ok is not None:
            yield from ((lease.name, call, lease.ttl_s) for lease in call.ok.leases)
    for call in evidence.of(*REGISTRATIONS):
        leases = {agent.name: agent.lease for agent in call.ok.agents} if call.ok is not None else {}
        for name, ttl_s in zip(call.invoke.about, call.invoke.ttls_s, strict=False):  # a story may tell of none
            if ttl_s and name in leases:
                yield leases[name], call, ttl_s


def _asked_to_end_s(evidence: Evidence, lease: str) -> float:
    """When someone first asked for the end of a lease, or for something that ends it."""
    revoking = evidence.revocations.get(lease, [])
    replacing = (
        call
        for name, uid in evidence.agents_of.get(lease, ())
        for call in evidence.about.get(name, ())
        if call.invoke.op in REPLACERS and not _made(call, uid)
    )
    return first(call.invoke.at_s for call in (*revoking, *replacing) if call.may_have_happened)


def _made(call: Call, uid: str) -> bool:
    """Whether a call is what put an agent there, and so takes it from no lease."""
    return call.ok is not None and any(agent.uid == uid for agent in call.ok.agents)


def gone_in_time(evidence: Evidence) -> Iterator[Violation]:
    """L2: once nobody keeps a lease, it and its agents are gone by its TTL and the grace that is stated."""
    granted = _granted(evidence)
    disturbances = _disturbances(evidence)
    ends_s: dict[str, float] = {}
    for lease, at_s, event in _stood(evidence):
        if lease not in ends_s:
            ends_s[lease] = _latest_end_s(evidence, lease, granted.get(lease), disturbances)
        if at_s > ends_s[lease]:
            yield Violation("L2", f"{lease} stands {at_s - ends_s[lease]:.3f} s after it had to end", (event,))


def _stood(evidence: Evidence) -> Iterator[tuple[str, float, Event]]:
    """Leases, times at which they had surely not ended, and who says so."""
    for call in evidence.dated():
        assert call.ok is not None
        yield from ((agent.lease, call.invoke.at_s, call.ok) for agent in call.ok.agents if agent.liveness == "LIVE")
        yield from ((lease.name, call.invoke.at_s, call.ok) for lease in call.ok.leases)
    for final in evidence.finals:
        yield from ((agent.lease, final.at_s, final) for agent in final.agents if agent.liveness == "LIVE")
    for lease, message in _first_told(evidence).items():
        yield lease, evidence.before_s(message.revision), message


def _first_told(evidence: Evidence) -> dict[str, WatchMessage]:
    """For each lease a message that tells its end, and so at which revision it was."""
    found: dict[str, WatchMessage] = {}
    for watch in evidence.watches.values():
        for message in watch.steps():
            for change in message.changes:
                if change.type == "EXPIRED":
                    found.setdefault(change.agent.lease, message)
    return found


def _granted(evidence: Evidence) -> dict[str, tuple[float, float]]:
    """When each lease had been granted, and its TTL; by the first answer, for a repeated request grants nothing."""
    found: dict[str, tuple[float, float]] = {}
    for lease, call, ttl_s in _grants(evidence):
        if call.end is not None:
            found[lease] = min((call.end.at_s, ttl_s), found.get(lease, (call.end.at_s, ttl_s)))
    return found


def _latest_end_s(
    evidence: Evidence, lease: str, granted: tuple[float, float] | None, disturbances: list[tuple[float, float]]
) -> float:
    """When a lease ends at the latest, restarts and other disturbances included; infinity if its TTL is not known."""
    answers = [keep.answer for keep in evidence.keeps.get(lease, ())]
    if None in answers:
        return float("inf")  # it may still arrive
    kept = [(each.at_s, each.ttl_s) for each in answers if each is not None and each.reason in ("", "NO_ANSWER")]
    starts = [*kept, granted] if granted is not None else kept
    ttl_s = next((ttl_s for _, ttl_s in starts if ttl_s), 0.0) * (1 + evidence.limits.clock_error)
    if not ttl_s:
        return float("inf")
    end_s = max(at_s for at_s, _ in starts) + ttl_s
    for begun_s, over_s in disturbances:
        if begun_s <= end_s + evidence.limits.grace_s:
            end_s = max(end_s, over_s + ttl_s)
    return end_s + evidence.limits.grace_s


_OVER = {"killed": ("serving",), "stopped": ("serving",), "paused": ("resumed", "killed"), "takeover": ("takeover",)}
"""Marks after which a server cannot end leases, and those after which it can, or another begins in its place."""


def _disturbances(evidence: Evidence) -> list[tuple[float, float]]:
    """When servers could not end leases, from and to: each gives leases their full TTL again.

    A server that begins without an earlier one's end took over nothing, so its `serving` alone gives nothing.
    """
    found: list[tuple[float, float]] = []
    for index, mark in enumerate(evidence.marks):
        if mark.what in _OVER:
            later = (each for each in evidence.marks[index:] if each.process == mark.process)
            over_s = first(each.at_s for each in later if each.what in _OVER[mark.what])
            found.append((mark.at_s, over_s))
    return sorted(found)


def all_at_once(evidence: Evidence) -> Iterator[Violation]:
    """L3: when a lease ends, all its agents expire at that revision, and no read from then on shows any of it."""
    yield from _shown_after_its_end(evidence)
    for watch in evidence.watches.values():
        if not watch.is_unfiltered:
            continue
        states = evidence.known_at_start(watch)
        for message in watch.steps():
            take_in(states, message)
            ended = {change.agent.lease for change in message.changes if change.type == "EXPIRED"}
            live = (agent for agent in states.values() if agent.liveness == "LIVE") if ended else ()
            left = sorted(agent.name for agent in live if agent.lease in ended)
            if left:
                yield Violation("L3", f"{left} live on after {sorted(ended)} ended", (message,))


def _shown_after_its_end(evidence: Evidence) -> Iterator[Violation]:
    ends: dict[str, tuple[int, Event]] = {
        lease: (message.revision, message) for lease, message in _first_told(evidence).items()
    }
    for call in evidence.of("RevokeLease"):
        if call.ok is not None:
            ends.setdefault(call.invoke.lease, (call.ok.revision, call.ok))
    for call in evidence.dated():
        assert call.ok is not None
        live = {agent.lease for agent in call.ok.agents if agent.liveness == "LIVE"}
        for lease in sorted({*live, *(lease.name for lease in call.ok.leases)} & ends.keys()):
            if ends[lease][0] <= call.ok.revision:
                text = f"{lease} ended at {ends[lease][0]}, and stands at {call.ok.revision}"
                yield Violation("L3", text, (ends[lease][1], *call.events))


def kept_means_standing(evidence: Evidence) -> Iterator[Violation]:
    """L4: what was granted or kept stands until its TTL has passed or someone ends it, and is not kept after that."""
    expired, proofs = _expired(evidence), _proofs(evidence)
    for lease, denials in _denials(evidence).items():
        asked_s = _asked_to_end_s(evidence, lease)
        for denial in denials:
            sound = (proof for proof in proofs.get(lease, ()) if proof.covers(denial) and denial.answered_s < asked_s)
            for proof in itertools.islice(sound, 1):
                yield Violation("L4", f"{lease} was acknowledged, then denied", (*proof.events, *denial.events))
    for lease, keeps in evidence.keeps.items():
        yield from _kept_after_expired(evidence, lease, keeps, expired.get(lease))
        yield from _kept_after_revoked(evidence, lease, keeps)


@dataclass(frozen=True, slots=True)
class _Denial:
    """Someone was told that there is no such lease."""

    asked_s: float
    answered_s: float
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class _Proof:
    """Someone was told that a lease stands: whoever asks from `known_s` on must hear the same until `until_s`."""

    known_s: float
    until_s: float
    events: tuple[Event, ...]

    def covers(self, denial: _Denial) -> bool:
        """Whether a denial contradicts this."""
        return self.known_s <= denial.asked_s and denial.answered_s < self.until_s


def _proofs(evidence: Evidence) -> dict[str, list[_Proof]]:
    found: dict[str, list[_Proof]] = defaultdict(list)
    true = 1 - evidence.limits.clock_error
    for lease, keeps in evidence.keeps.items():
        for keep in keeps:
            if keep.is_kept and keep.answer is not None:
                until_s = keep.sent.at_s + keep.answer.ttl_s * true
                found[lease].append(_Proof(keep.answer.at_s, until_s, _events(keep)))
    for lease, call, ttl_s in _grants(evidence):
        found[lease].append(_Proof(call.events[-1].at_s, evidence.begun_s(call) + ttl_s * true, call.events))
    return found


def _denials(evidence: Evidence) -> dict[str, list[_Denial]]:
    found: dict[str, list[_Denial]] = defaultdict(list)
    for lease, keeps in evidence.keeps.items():
        for keep in keeps:
            if keep.answer is not None and keep.answer.reason == "LEASE_NOT_FOUND":
                found[lease].append(_Denial(keep.sent.at_s, keep.answer.at_s, _events(keep)))
    for call in evidence.of("GetLease"):
        if isinstance(call.end, Failed) and call.end.reason == "LEASE_NOT_FOUND":
            found[call.invoke.lease].append(_Denial(call.invoke.at_s, call.end.at_s, call.events))
    return found


def _kept_after_expired(
    evidence: Evidence, lease: str, keeps: list[Keep], end: tuple[float, WatchMessage] | None
) -> Iterator[Violation]:
    if end is None:
        return
    is_revoked = _asked_to_end_s(evidence, lease) <= end[0]
    stale_s = evidence.limits.stale_keeps_s if is_revoked else 0.0
    for keep in keeps:
        if keep.is_kept and keep.sent.at_s > end[0] + stale_s:
            yield Violation("L4", f"{lease} was kept after it had expired", (end[1], *_events(keep)))


def _kept_after_revoked(evidence: Evidence, lease: str, keeps: list[Keep]) -> Iterator[Violation]:
    revoked = [call for call in evidence.revocations.get(lease, ()) if call.ok is not None]
    for call in revoked[:1]:
        assert call.ok is not None
        for keep in keeps:
            if keep.is_kept and keep.sent.at_s > call.ok.at_s + evidence.limits.stale_keeps_s:
                yield Violation("L4", f"{lease} was kept after it was revoked", (*call.events, *_events(keep)))


def _events(keep: Keep) -> tuple[Event, ...]:
    return (keep.sent, keep.answer) if keep.answer is not None else (keep.sent,)


def fences_grow(evidence: Evidence) -> Iterator[Violation]:
    """L5: each incarnation of an agent has one fence, greater than any before; no two leases granted share theirs."""
    yield from _agents_fences(evidence)
    yield from _leases_fences(evidence)


def _agents_fences(evidence: Evidence) -> Iterator[Violation]:
    """By the order in which incarnations were known to begin: registrations acknowledged, and events of a watch."""
    fences: dict[str, tuple[AgentSeen, Event]] = {}
    for agent, event in evidence.agents():
        known, where = fences.setdefault(agent.uid, (agent, event))
        if known.fence != agent.fence:
            text = f"{agent.name} has the fences {known.fence} and {agent.fence} in one incarnation"
            yield Violation("L5", text, (where, event))
    for name, calls in evidence.about.items():
        yield from _registered_in_order(evidence, name, calls)
    for watch in evidence.watches.values():
        yield from _added_in_order(watch.messages)


def _registered_in_order(evidence: Evidence, name: str, calls: list[Call]) -> Iterator[Violation]:
    greatest: tuple[int, Call] | None = None
    made = [
        call for call in calls if call.invoke.op in ("RegisterAgent", "BatchRegisterAgents") and call.ok is not None
    ]
    seen: set[str] = set()
    for call in made:
        assert call.ok is not None
        agent = next((agent for agent in call.ok.agents if agent.name == name), None)
        if agent is None or agent.uid in seen:
            continue
        seen.add(agent.uid)
        begun_s = evidence.begun_s(call)
        is_before = greatest is not None and greatest[1].ok is not None and greatest[1].ok.at_s < begun_s
        if greatest is not None and is_before and agent.fence <= greatest[0]:
            text = f"{name} came back with fence {agent.fence} after {greatest[0]}"
            yield Violation("L5", text, (*greatest[1].events, *call.events))
        if greatest is None or agent.fence > greatest[0]:
            greatest = agent.fence, call


def _added_in_order(messages: list[WatchMessage]) -> Iterator[Violation]:
    last: dict[str, tuple[AgentSeen, WatchMessage]] = {}
    for message in messages:
        for change in message.changes:
            agent = change.agent
            before, where = last.get(agent.name, (agent, message))
            if before.uid != agent.uid and agent.fence <= before.fence:
                text = f"{agent.name} came back with fence {agent.fence} after {before.fence}"
                yield Violation("L5", text, (where, message))
            last[agent.name] = agent, message


def _leases_fences(evidence: Evidence) -> Iterator[Violation]:
    """The agents of a batch come at one revision, and so do their own leases: these alone may share a fence."""
    granted = {lease for lease, call, _ in _grants(evidence) if call.invoke.op == "GrantLease"}
    owners: dict[int, tuple[str, Event]] = {}
    fences: dict[str, tuple[int, Event]] = {}
    for lease, fence, event in _lease_sightings(evidence):
        name, where = owners.setdefault(fence, (lease, event))
        known, known_where = fences.setdefault(lease, (fence, event))
        if name != lease and {name, lease} & granted:
            yield Violation("L5", f"{name} and {lease} share fence {fence}", (where, event))
        if known != fence:
            yield Violation("L5", f"{lease} has the fences {known} and {fence}", (known_where, event))


def _lease_sightings(evidence: Evidence) -> Iterator[tuple[str, int, Event]]:
    for call in evidence.of("GrantLease", "GetLease", "ListLeases"):
        if call.ok is not None:
            yield from ((lease.name, lease.fence, call.ok) for lease in call.ok.leases)
    for lease, keeps in evidence.keeps.items():
        yield from ((lease, keep.answer.fence, keep.answer) for keep in keeps if keep.answer and keep.is_kept)
