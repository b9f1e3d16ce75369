"""The counting of votes: every case of docs/decisions.md, and what must be true of any votes."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.core.decisions import counting
from holdfast.core.decisions.counting import Ballot, Rules

PAGE = Path(__file__).parents[3] / "docs" / "decisions.md"
LINE = re.compile(r"^\| (?P<case>[^|]+) \| (?P<how>[A-Z]+ [^|]+) \|(?P<rest>.*)\|$")
METHODS = {name.removeprefix("DECISION_METHOD_"): number for name, number in pb.DecisionMethod.items() if number}
KINDS = {name.removeprefix("DECISION_FALLBACK_KIND_"): number for name, number in pb.DecisionFallbackKind.items()}


def cases() -> Iterator[Any]:
    for line in PAGE.read_text().splitlines():
        found = LINE.match(line)
        if found:
            yield pytest.param(found["how"], *(cell.strip() for cell in found["rest"].split("|")), id=found["case"])


def rules_of(how: str, options: str, electors: str) -> tuple[Rules, pb.DecisionFallback]:
    """`METHOD NUMBER[, FALLBACK [WHAT]][, may change]`."""
    (method, number), *others = (part.split() for part in how.split(", "))
    fallback = pb.DecisionFallback()
    for name, *what in others:
        if name in KINDS:
            fallback.kind = KINDS[name]
            fallback.option = what[0] if name == "STATUS_QUO" else ""
    weights = {name: Fraction(weight or "1") for name, _, weight in (each.partition("*") for each in electors.split())}
    if method != "WEIGHTED":
        weights = dict.fromkeys(weights, Fraction(1))
    part = counting.exact(float(number))
    may_change = ["may", "change"] in others
    return Rules(METHODS[method], options.split(), weights, part, part, may_change), fallback


def ballots_of(votes: str) -> dict[str, Ballot]:
    found = {}
    for each in votes.split():
        elector, _, choice = each.partition(":")
        option, _, confidence = choice.partition("@")
        found[elector] = Ballot(option, counting.exact(float(confidence or "1")))
    return found


@pytest.mark.parametrize(("how", "options", "electors", "votes", "ended", "result"), list(cases()))
def test_case(how: str, options: str, electors: str, votes: str, ended: str, result: str) -> None:
    rules, fallback = rules_of(how, options, electors)
    counted = counting.count(rules, ballots_of(votes))
    if not ended and not counting.is_settled(rules, counted):
        assert result == "open"
        return
    found = counting.end(rules, counted, fallback)
    told = found.option or pb.DecisionState.Name(found.state).removeprefix("DECISION_STATE_")
    assert told + (" by fallback" if found.by_fallback else "") == result
    assert bool(found.why) == (result == "FAILED")


def test_the_page_has_every_method_fallback_and_kind_of_end() -> None:
    """A table that nobody reads any more would pass every test."""
    told = [(case.values[0], case.values[-1]) for case in cases()]
    assert len(told) >= 45
    for name in [*METHODS, *KINDS.keys() - {"UNSPECIFIED"}]:
        assert any(name in how for how, _ in told), name
    assert {"open", "FAILED", "AWAITING_FALLBACK"} <= {result for _, result in told}


@st.composite
def elections(draw: st.DrawFn) -> tuple[Rules, dict[str, Ballot]]:
    electors = [f"e{number}" for number in range(draw(st.integers(1, 6)))]
    options = ["x", "y", "z"][: draw(st.integers(1, 3))]
    method = draw(st.sampled_from(sorted(METHODS.values())))
    tenths = st.integers(1, 10).map(lambda number: Fraction(number, 10))
    weighs = method == pb.DECISION_METHOD_WEIGHTED
    weights = {each: draw(tenths) if weighs else Fraction(1) for each in electors}
    rules = Rules(method, options, weights, draw(tenths), draw(tenths), draw(st.booleans()))
    ballot = st.builds(Ballot, st.sampled_from(options), st.integers(0, 10).map(lambda number: Fraction(number, 10)))
    return rules, {each: draw(ballot) for each in electors if draw(st.booleans())}


@given(elections())
def test_shares_add_up_to_what_was_cast_and_participation_to_who_voted(
    election: tuple[Rules, dict[str, Ballot]],
) -> None:
    rules, ballots = election
    counted = counting.count(rules, ballots)
    assert sum(each.votes for each in counted.standings) == len(ballots) == counted.voted
    assert sum(each.share for each in counted.standings) <= 1
    assert counted.participation == Fraction(len(ballots), len(rules.weights))


@given(elections(), st.data())
def test_no_vote_that_may_still_come_changes_what_is_settled(
    election: tuple[Rules, dict[str, Ballot]], data: st.DataObject
) -> None:
    """QUORUM and EMERGENT close early only when it is certain; the others close at the first to get there."""
    rules, ballots = election
    counted = counting.count(rules, ballots)
    won = counting.winner(rules, counted)
    if won is None or not counting.is_settled(rules, counted) or rules.may_change:
        return
    if rules.method in (pb.DECISION_METHOD_CONSENSUS, pb.DECISION_METHOD_WEIGHTED):
        return
    late = {
        elector: Ballot(data.draw(st.sampled_from(list(rules.options))), Fraction(data.draw(st.integers(0, 10)), 10))
        for elector in rules.weights.keys() - ballots.keys()
    }
    after = counting.winner(rules, counting.count(rules, ballots | late))
    assert after is not None
    assert after.option == won.option


@given(elections(), st.randoms())
def test_the_order_of_votes_makes_no_difference(election: tuple[Rules, dict[str, Ballot]], rng: Any) -> None:
    rules, ballots = election
    shuffled = list(ballots.items())
    rng.shuffle(shuffled)
    assert counting.count(rules, ballots) == counting.count(rules, dict(shuffled))
