"""Checkers of decisions: one end, an honest count, no late vote, one vote each, a frozen electorate, one fallback.

Votes are counted here anew, in the simplest way, from what a decision shows of itself.
"""

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from support.evidence import Call, Evidence, Violation
from support.history import Event

FROZEN = (
    "question",
    "options",
    "method",
    "threshold",
    "quorum",
    "electors",
    "allow_vote_change",
    "deadline",
    "fallback",
)
"""What never changes once a decision is open."""

ENDED = ("DECIDED", "CANCELLED", "FAILED")
ASKS = ("DESIGNATED_AGENT", "ESCALATE")
"""Fallbacks that wait for somebody."""

DISTURBANCES = ("serving", "stopped", "killed", "paused", "resumed")
"""Marks until which a server may have been kept from acting."""

Decision = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sight:
    """A decision as someone saw it; whoever reads it begins to at `from_s` and knows it at `at_s`."""

    decision: Decision
    from_s: float
    at_s: float
    event: Event

    @property
    def revision(self) -> int:
        """At which it last changed."""
        return int(self.decision["revision"])

    @property
    def state(self) -> str:
        """Where it stands."""
        return str(self.decision["state"])

    @property
    def votes(self) -> dict[str, Mapping[str, Any]]:
        """Votes by agent."""
        return {vote["agent"]: vote for vote in self.decision.get("votes", ())}

    @property
    def is_by_fallback(self) -> bool:
        """Whether a fallback decided it."""
        return bool(self.decision.get("outcome", {}).get("by_fallback"))


@functools.lru_cache(maxsize=1)  # each checker asks for the same
def sights(evidence: Evidence) -> dict[str, list[Sight]]:
    """Every sight of each decision, by revision."""
    found: dict[str, list[Sight]] = defaultdict(list)
    for call in evidence.calls.values():
        for decision in decisions_in(call):
            assert call.ok is not None
            found[decision["name"]].append(Sight(decision, call.invoke.at_s, call.ok.at_s, call.ok))
    for follow in evidence.follows.values():
        if follow.begun.op == "WatchDecisions":
            for message in follow.messages:
                for decision in message.resources:
                    if "options" in decision:
                        found[decision["name"]].append(Sight(decision, float("-inf"), message.at_s, message))
    return {name: sorted(each, key=lambda sight: sight.revision) for name, each in found.items()}


def decisions_in(call: Call) -> list[Decision]:
    """Those that a call was answered with."""
    told = call.ok.told if call.ok is not None else {}
    return [told["decision"]] if "decision" in told else list(told.get("decisions", ()))


Checker = Callable[[Evidence, list[Sight]], Iterator[Violation]]


def _each(check: Checker) -> Callable[[Evidence], Iterator[Violation]]:
    """A checker of every decision by itself."""

    def checked(evidence: Evidence) -> Iterator[Violation]:
        for seen in sights(evidence).values():
            yield from check(evidence, seen)

    checked.__doc__ = check.__doc__
    return checked


# D1, D6.


def _one_end(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D1: whoever sees its end sees the same one, at one revision, and nothing changes it afterwards."""
    ended = [sight for sight in seen if sight.state in ENDED]
    if not ended:
        yield from _ends_in_time(evidence, seen)
        return
    first = ended[0]
    for later in seen[seen.index(first) :]:
        is_again = later.is_by_fallback and first.is_by_fallback and later.votes == first.votes  # that is D6
        if later.decision != first.decision and not is_again:
            text = f"{first.decision['name']} ended {first.state} at {first.revision}, and is {later.state} "
            yield Violation("D1", text + f"at {later.revision}", (first.event, later.event))


def _ends_in_time(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D1: once its time is over, and nothing is in the way, it does not stay as it is."""
    grace_s, last = evidence.limits.deadlines_grace_s, max(seen, key=lambda sight: sight.from_s)
    if grace_s is None or last.state != "OPEN":
        return
    marks = (mark.at_s for mark in evidence.marks if mark.what in DISTURBANCES and mark.at_s < last.from_s)
    undisturbed_s = max(marks, default=0.0)
    over_s = max(_over_s(seen, lambda sight: sight.at_s), undisturbed_s)
    if last.from_s > over_s + grace_s:
        text = f"{last.decision['name']} is open {last.from_s - over_s:.3f} s after its deadline"
        yield Violation("D1", text, (last.event,))


def _over_s(seen: list[Sight], when: Callable[[Sight], float]) -> float:
    """When its time is over by the recorder's clock, counted from when its opening was answered."""
    opened = min(seen, key=lambda sight: (sight.revision, sight.at_s))
    return when(opened) + float(opened.decision["deadline"]) - float(opened.decision["create_time"])


def _fallback_once(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D6: the fallback comes only where the votes decide nothing, does what it says, comes once, and has its time."""
    yield from _fallback_has_its_time(evidence, seen)
    for sight in seen:
        if sight.state == "AWAITING_FALLBACK" or sight.is_by_fallback or sight.state == "FAILED":
            yield from _fallback_fits(sight)
    for state in ("AWAITING_FALLBACK", "DECIDED"):
        fired = [sight for sight in seen if sight.state == state and (state != "DECIDED" or sight.is_by_fallback)]
        for before, after in itertools.pairwise(fired):
            if before.revision != after.revision:
                text = f"the fallback of {before.decision['name']} came at {before.revision} and at {after.revision}"
                yield Violation("D6", text, (before.event, after.event))


def _fallback_has_its_time(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """Who is waited for is waited for until the timeout, counted from when voting had surely not ended."""
    skew_s = evidence.limits.clock_skew_s
    awaiting = next((sight for sight in seen if sight.state == "AWAITING_FALLBACK"), None)
    failed = min((sight.at_s for sight in seen if sight.state == "FAILED"), default=None)
    if skew_s is None or awaiting is None or failed is None:
        return
    timeout_s = float(awaiting.decision["fallback"]["timeout"]) * (1 - evidence.limits.clock_error) - skew_s
    waited_s = failed - evidence.before_s(awaiting.revision)
    if waited_s < timeout_s:
        text = (
            f"{awaiting.decision['name']} waited {waited_s:.3f} s at most for its fallback, and not {timeout_s:.3f} s"
        )
        yield Violation("D6", text, (awaiting.event,))


def _fallback_fits(sight: Sight) -> Iterator[Violation]:
    counted, fallback = Recount(sight.decision), sight.decision.get("fallback", {})
    kind, option = fallback.get("kind", "NONE"), sight.decision.get("outcome", {}).get("option")
    fits = {
        "NONE": sight.state == "FAILED",
        "STATUS_QUO": sight.state == "DECIDED" and option == fallback.get("option"),
        "PLURALITY": option == counted.leader if counted.leader is not None else sight.state == "FAILED",
    }.get(kind, kind in ASKS)
    name = sight.decision["name"]
    if counted.winner is not None:
        text = f"{name} was decided for {counted.winner!r} by its votes, and is {sight.state} by its fallback"
        yield Violation("D6", text, (sight.event,))
    elif not fits:
        yield Violation("D6", f"{name} is {sight.state} with {option!r}, which {kind} does not make", (sight.event,))


# D2.


class Recount:
    """The votes of a decision counted anew.

    Attributes:
        tally: Votes, weight and share of the electorate by option.
        participation: Share of the electors that voted.
        leader: The option with the most weight, then the most votes, then offered first; None without votes.
        winner: The leader, if it is decided when voting ends now.
    """

    def __init__(self, decision: Decision) -> None:
        method, options = decision["method"], [option["id"] for option in decision["options"]]
        electors = {each["agent"]: each for each in decision["electors"]}
        votes = {vote["agent"]: vote for vote in decision.get("votes", ()) if vote["agent"] in electors}
        weigh = {agent: _exact(each["weight"]) if method == "WEIGHTED" else 1 for agent, each in electors.items()}
        sure = {
            agent: _exact(vote.get("confidence", 0)) if method == "EMERGENT" else 1 for agent, vote in votes.items()
        }
        self.tally: dict[str, tuple[int, Fraction, Fraction]] = {}
        for option in options:
            chosen = [agent for agent, vote in votes.items() if vote["option"] == option]
            weight = Fraction(sum(weigh[agent] * sure[agent] for agent in chosen))
            self.tally[option] = len(chosen), weight, weight / sum(weigh.values())
        self.is_complete = len(votes) == len(electors)
        self.participation = Fraction(len(votes), len(electors))
        best = max(options, key=lambda option: (self.tally[option][1], self.tally[option][0], -options.index(option)))
        self.leader = best if votes else None
        enough = (
            self.participation >= _exact(decision["quorum"])
            if method == "QUORUM"
            else self.tally[best][2] >= _exact(decision["threshold"])
        )
        self.winner = self.leader if enough else None

    def margin(self, option: str) -> Fraction:
        """Its share less the greatest of the others."""
        others = [share for other, (_, _, share) in self.tally.items() if other != option]
        return self.tally[option][2] - max(others, default=Fraction())


def _exact(number: float) -> Fraction:
    return Fraction(str(number))


def _honest_count(_evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D2: the tally, and what comes of it, are what its own votes and electorate give; all see the same at once."""
    for sight in seen:
        if text := _miscounted(sight):
            yield Violation("D2", f"{sight.decision['name']} at {sight.revision}: {text}", (sight.event,))
    for before, after in itertools.pairwise(seen):
        if before.revision == after.revision and before.decision != after.decision:
            text = f"{before.decision['name']} at {before.revision} is not the same to all"
            yield Violation("D2", text, (before.event, after.event))


def _miscounted(sight: Sight) -> str:
    """What is wrong with the numbers of a decision, or with the end its votes gave it."""
    decision, counted, outcome = sight.decision, Recount(sight.decision), sight.decision.get("outcome", {})
    told = {
        each["option"]: (each.get("votes", 0), each.get("weight", 0), each.get("share", 0))
        for each in decision["tally"]
    }
    if told.keys() != counted.tally.keys() or any(not _near(told[option], counted.tally[option]) for option in told):
        return f"its tally is {told}, and its votes make {counted.tally}"
    settles = counted.winner is not None and decision["method"] in ("CONSENSUS", "WEIGHTED")
    if sight.state == "OPEN" and (settles or (counted.is_complete and not decision.get("allow_vote_change"))):
        return "it is open, and its votes settle it"
    if sight.state != "DECIDED":
        return ""
    option = outcome.get("option")
    if option not in counted.tally:
        return f"it was decided for {option!r}, which nobody offered"
    if not sight.is_by_fallback and option != counted.winner:
        return f"it was decided for {option!r}, and its votes decide for {counted.winner!r}"
    numbers = outcome.get("margin", 0), outcome.get("participation", 0)
    if not _near(numbers, (counted.margin(option), counted.participation)):
        return f"it was decided with margin and participation {numbers}"
    return ""


def _near(told: tuple[float, ...], counted: tuple[Any, ...]) -> bool:
    return all(abs(a - float(b)) < 1e-9 for a, b in zip(told, counted, strict=True))


# D3, D4, D5.


def _no_late_vote(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D3: from the revision at which voting ends, no vote is added or changed, nor any accepted once time is over."""
    closed = next((sight for sight in seen if sight.state != "OPEN"), None)
    for later in seen[seen.index(closed) :] if closed is not None else ():
        if closed is not None and later.votes != closed.votes:
            text = f"voting on {later.decision['name']} ended by {closed.revision}, and votes changed since"
            yield Violation("D3", text, (closed.event, later.event))
    grace_s = evidence.limits.deadlines_grace_s
    for call in _votes_on(evidence, seen[0].decision["name"]):
        if call.ok is None:
            continue
        if closed is not None and call.ok.revision > closed.revision:
            text = f"a vote was taken at {call.ok.revision}, after voting ended by {closed.revision}"
            yield Violation("D3", text, (closed.event, *call.events))
        elif grace_s is not None and call.invoke.at_s > _over_s(seen, lambda sight: sight.at_s) + grace_s:
            yield Violation("D3", "a vote was taken after the deadline", call.events)


def _votes_on(evidence: Evidence, name: str) -> Iterator[Call]:
    return (call for call in evidence.of("CastVote") if call.invoke.asked["decision"] == name)


def _one_vote_each(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D4: votes are of electors, one each, and of one who may not change it always the same."""
    kept: dict[str, tuple[Any, Event]] = {}
    for sight in seen:
        name, electors = sight.decision["name"], {each["agent"] for each in sight.decision["electors"]}
        voters = [vote["agent"] for vote in sight.decision.get("votes", ())]
        if len(voters) != len(set(voters)) or not electors.issuperset(voters):
            text = f"of the {len(electors)} electors of {name} these voted: {voters}"
            yield Violation("D4", text, (sight.event,))
        for agent, vote in sight.votes.items():
            first, where = kept.setdefault(agent, (vote, sight.event))
            if vote != first and not sight.decision.get("allow_vote_change"):
                yield Violation("D4", f"{agent} voted on {name}, and then otherwise", (where, sight.event))


def _acknowledged_votes_stay(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """S2: a vote that was acknowledged is there from its revision on, unless its elector changed it later."""
    for call in _votes_on(evidence, seen[0].decision["name"]):
        if call.ok is None:
            continue
        for sight in seen:
            vote = sight.votes.get(call.invoke.asked["agent"], {})
            if sight.revision >= call.ok.revision > vote.get("revision", 0):
                yield Violation("S2", "a vote that was acknowledged is not there", (*call.events, sight.event))


def _refused_votes_are_none(evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """S3: a vote that was surely refused is never seen."""
    calls = {call.invoke.asked.get("rationale"): call for call in _votes_on(evidence, seen[0].decision["name"])}
    for sight in seen:
        for vote in sight.votes.values():
            call = calls.get(vote.get("rationale", ""))
            if call is not None and not call.may_have_happened:
                yield Violation("S3", "a vote that was refused is counted", (*call.events, sight.event))


def _frozen(_evidence: Evidence, seen: list[Sight]) -> Iterator[Violation]:
    """D5: who may vote with what weight, on what and under which rules, is as it was when the decision opened."""
    first = seen[0]
    for later in seen[1:]:
        changed = [field for field in FROZEN if later.decision.get(field) != first.decision.get(field)]
        if changed:
            text = f"{', '.join(changed)} of {first.decision['name']} changed after it was opened"
            yield Violation("D5", text, (first.event, later.event))


one_end = _each(_one_end)
honest_count = _each(_honest_count)
no_late_vote = _each(_no_late_vote)
one_vote_each = _each(_one_vote_each)
frozen_electorate = _each(_frozen)
fallback_once = _each(_fallback_once)
acknowledged_votes_stay = _each(_acknowledged_votes_stay)
refused_votes_are_none = _each(_refused_votes_are_none)
