"""Counting votes: what each option has, whether that settles the matter, and what it comes to.

Everything is exact: shares are fractions, and a number such as 0.8 is read as the decimal it is written as, so that
four of five reach it on every machine.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from holdfast.coordination.v1.decision_service_pb2 import (
    DECISION_FALLBACK_KIND_DESIGNATED_AGENT,
    DECISION_FALLBACK_KIND_ESCALATE,
    DECISION_FALLBACK_KIND_PLURALITY,
    DECISION_FALLBACK_KIND_STATUS_QUO,
    DECISION_METHOD_CONSENSUS,
    DECISION_METHOD_EMERGENT,
    DECISION_METHOD_QUORUM,
    DECISION_METHOD_WEIGHTED,
    DECISION_STATE_AWAITING_FALLBACK,
    DECISION_STATE_DECIDED,
    DECISION_STATE_FAILED,
    DecisionFallback,
    DecisionMethod,
    DecisionState,
)


@lru_cache(maxsize=1024)
def exact(number: float) -> Fraction:
    """The decimal number that a double is written as: 4/5 of 0.8, not the binary fraction next to it.

    Some are asked for again and again, by every vote, and each takes a microsecond to read.
    """
    return Fraction(repr(number))


@dataclass(frozen=True, slots=True)
class Rules:
    """How a decision is made: its options in order, and what each elector's vote weighs: 1 but for WEIGHTED."""

    method: DecisionMethod.ValueType
    options: Sequence[str]
    weights: Mapping[str, Fraction]
    threshold: Fraction
    quorum: Fraction
    may_change: bool

    @property
    def total(self) -> Fraction:
        """What the whole electorate could give one option."""
        return _sum(self.weights.values())


@dataclass(frozen=True, slots=True)
class Ballot:
    """One elector's vote; `confidence` from 0 to 1."""

    option: str
    confidence: Fraction


@dataclass(frozen=True, slots=True)
class Standing:
    """What one option has: votes, what they weigh, and that as a share of what the whole electorate could give."""

    option: str
    votes: int
    weight: Fraction
    share: Fraction


@dataclass(frozen=True, slots=True)
class Count:
    """The votes counted. `standings` are in the order of the options."""

    standings: Sequence[Standing]
    voted: int
    electors: int
    outstanding: Fraction
    """What the votes of those who have not voted weigh at most."""

    @property
    def participation(self) -> Fraction:
        """Share of the electors that voted."""
        return Fraction(self.voted, self.electors)

    @property
    def leader(self) -> Standing | None:
        """The first in rank; None if nobody voted."""
        return max(self.standings, key=self._rank) if self.voted else None

    @property
    def is_leader_safe(self) -> bool:
        """Whether the leader stays the leader whatever votes may still come, provided that none is changed."""
        leader = self.leader
        return leader is not None and all(
            self._rank(leader) > self._rank_at_best(other) for other in self.standings if other is not leader
        )

    def margin(self, option: str) -> Fraction:
        """The share of an option less the greatest among the others; below 0 if it does not lead."""
        share = next(each.share for each in self.standings if each.option == option)
        return share - max((each.share for each in self.standings if each.option != option), default=Fraction())

    def _rank(self, standing: Standing) -> tuple[Fraction, int, int]:
        """More weight, then more votes, then offered earlier."""
        return standing.weight, standing.votes, -self.standings.index(standing)

    def _rank_at_best(self, standing: Standing) -> tuple[Fraction, int, int]:
        """The rank if all who have not voted were for it."""
        weight, votes, place = self._rank(standing)
        return weight + self.outstanding, votes + self.electors - self.voted, place


@dataclass(frozen=True, slots=True)
class Result:
    """What the end of voting comes to. `option` is empty unless DECIDED; `why` says what failed."""

    state: DecisionState.ValueType
    option: str = ""
    by_fallback: bool = False
    why: str = ""


def count(rules: Rules, ballots: Mapping[str, Ballot]) -> Count:
    """Counts the votes of electors, one each."""
    total = rules.total
    standings = []
    for option in rules.options:
        chosen = {elector: ballot for elector, ballot in ballots.items() if ballot.option == option}
        weight = _sum(_weight(rules, elector, ballot) for elector, ballot in chosen.items())
        standings.append(Standing(option, len(chosen), weight, weight / total))
    outstanding = _sum(rules.weights[elector] for elector in rules.weights.keys() - ballots.keys())
    return Count(standings, len(ballots), len(rules.weights), outstanding)


def _sum(parts: Iterable[Fraction]) -> Fraction:
    """The sum: integers as long as denominators are the same, since to reduce a fraction takes ten times as long."""
    numerators = Counter[int]()
    for part in parts:
        numerators[part.denominator] += part.numerator
    return sum((Fraction(numerator, denominator) for denominator, numerator in numerators.items()), Fraction())


def _weight(rules: Rules, elector: str, ballot: Ballot) -> Fraction:
    weight = rules.weights[elector]
    return weight * ballot.confidence if rules.method == DECISION_METHOD_EMERGENT else weight


def is_settled(rules: Rules, counted: Count) -> bool:
    """Whether voting ends here: the outcome is certain, or everybody has voted and nobody may vote again."""
    if counted.voted == counted.electors and not rules.may_change:
        return True
    if winner(rules, counted) is None:
        return False
    if rules.method in (DECISION_METHOD_CONSENSUS, DECISION_METHOD_WEIGHTED):
        return True
    return counted.is_leader_safe and not rules.may_change


def winner(rules: Rules, counted: Count) -> Standing | None:
    """The option that is decided if voting ends here; None if there is none."""
    leader = counted.leader
    if leader is None:
        return None
    if rules.method == DECISION_METHOD_QUORUM:
        return leader if counted.participation >= rules.quorum else None
    return leader if leader.share >= rules.threshold else None


def end(rules: Rules, counted: Count, fallback: DecisionFallback) -> Result:
    """What voting comes to when it ends: the winner, or else what the fallback says."""
    won = winner(rules, counted)
    if won is not None:
        return Result(DECISION_STATE_DECIDED, won.option)
    leader = counted.leader
    match fallback.kind:
        case kind if kind == DECISION_FALLBACK_KIND_STATUS_QUO:
            return Result(DECISION_STATE_DECIDED, fallback.option, by_fallback=True)
        case kind if kind == DECISION_FALLBACK_KIND_PLURALITY and leader is not None:
            return Result(DECISION_STATE_DECIDED, leader.option, by_fallback=True)
        case kind if kind in (DECISION_FALLBACK_KIND_DESIGNATED_AGENT, DECISION_FALLBACK_KIND_ESCALATE):
            return Result(DECISION_STATE_AWAITING_FALLBACK)
        case _:
            return Result(DECISION_STATE_FAILED, why=_unmet(rules, counted))


def _unmet(rules: Rules, counted: Count) -> str:
    """Why there is no winner, in numbers."""
    leader = counted.leader
    if leader is None:
        return f"none of {counted.electors} electors voted"
    if rules.method == DECISION_METHOD_QUORUM:
        needed = f"the quorum of {float(rules.quorum):g}"
        return f"{counted.voted} of {counted.electors} electors voted, which is less than {needed}"
    return f"{leader.option!r} leads with a share of {float(leader.share):.4g}, below {float(rules.threshold):g}"


THRESHOLDS: Mapping[DecisionMethod.ValueType, Fraction] = {
    DECISION_METHOD_CONSENSUS: Fraction(3, 4),
    DECISION_METHOD_WEIGHTED: Fraction(4, 5),
    DECISION_METHOD_EMERGENT: Fraction(4, 5),
}
"""Least share of an option that is decided, unless told: those of the original framework (DESIGN 2.2)."""

QUORUM = Fraction(3, 5)
"""Least participation for DECISION_METHOD_QUORUM, unless told; from there, too."""

VOTING_S: Mapping[DecisionMethod.ValueType, int] = {
    DECISION_METHOD_CONSENSUS: 180,
    DECISION_METHOD_WEIGHTED: 120,
    DECISION_METHOD_QUORUM: 240,
    DECISION_METHOD_EMERGENT: 300,
}
"""How long voting lasts, in seconds, unless told; from there, too."""
