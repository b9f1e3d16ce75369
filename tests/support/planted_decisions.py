"""Bugs of decisions to plant, one at a time; see `support.planted`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from typing import Any
from unittest.mock import patch

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.decision_service_pb2 import (
    DECISION_STATE_AWAITING_FALLBACK,
    DECISION_STATE_OPEN,
    CastVoteRequest,
    Decision,
    Elector,
)
from holdfast.core.decisions import counting, deciding
from holdfast.core.decisions.counting import Ballot, Count, Rules
from holdfast.core.decisions.entry import DecisionEntry, Reader
from holdfast.core.state import Plan
from holdfast.storage.v1.decisions_pb2 import DecisionRecord, DecisionStateRecord


def _decision_of(entry: DecisionEntry) -> Decision:
    decision = Decision()
    decision.CopyFrom(entry.record.decision)
    return decision


def _voting(change: Callable[[DecisionEntry, CastVoteRequest], DecisionEntry], *, is_punctual: bool = True) -> Any:
    """Votes cast on another decision than there is."""
    cast = deciding.cast

    def careless(
        reader: Reader, entry: DecisionEntry, request: CastVoteRequest, now: Timestamp, *, is_over: bool
    ) -> DecisionEntry:
        return cast(reader, change(entry, request), request, now, is_over=is_over and is_punctual)

    return patch.object(deciding, "cast", careless)


@contextlib.contextmanager
def denominator_of_votes_cast() -> Iterator[None]:
    """Shares are of what the votes cast weigh: two for and none against are unanimous, however many may vote."""
    count = counting.count

    def generous(rules: Rules, ballots: Mapping[str, Ballot]) -> Count:
        counted = count(rules, ballots)
        cast = sum((each.weight for each in counted.standings), Fraction())
        return replace(
            counted, standings=[replace(each, share=each.weight / (cast or 1)) for each in counted.standings]
        )

    with patch.object(counting, "count", generous):
        yield


@contextlib.contextmanager
def late_vote_counted() -> Iterator[None]:
    """A vote is taken whether or not voting has ended, and counts for the end there is."""

    def reopened(entry: DecisionEntry, _request: CastVoteRequest) -> DecisionEntry:
        state = DecisionStateRecord()
        state.CopyFrom(entry.state)
        state.state = DECISION_STATE_OPEN
        return replace(entry, state=state)

    with _voting(reopened, is_punctual=False):
        yield


@contextlib.contextmanager
def fallback_fired_twice() -> Iterator[None]:
    """Where the time of a fallback is over, it comes again."""
    expire = deciding.expire

    def again(reader: Reader, name: str, now: Timestamp, *, is_over: bool) -> Plan[bool]:
        entry = reader.decision(name)
        if entry is None or not is_over or entry.state.state != DECISION_STATE_AWAITING_FALLBACK:
            return expire(reader, name, now, is_over=is_over)
        return Plan(deciding._ended(entry, now).txn, lambda _: True)

    with patch.object(deciding, "expire", again):
        yield


@contextlib.contextmanager
def fallback_without_time() -> Iterator[None]:
    """Whoever is late for the end of voting ends the fallback instead, as if its time were over."""
    expire = deciding.expire

    def hasty(reader: Reader, name: str, now: Timestamp, *, is_over: bool) -> Plan[bool]:
        return expire(reader, name, now, is_over=True)

    with patch.object(deciding, "expire", hasty):
        yield


@contextlib.contextmanager
def vote_of_a_stranger() -> Iterator[None]:
    """Whoever votes is an elector."""

    def joined(entry: DecisionEntry, request: CastVoteRequest) -> DecisionEntry:
        decision = _decision_of(entry)
        if all(elector.agent != request.agent for elector in decision.electors):
            decision.electors.append(Elector(agent=request.agent, weight=1))
        return replace(entry, record=DecisionRecord(decision=decision))

    def weighing(rules: Rules, elector: str, ballot: Ballot) -> Fraction:
        return weight(rules, elector, ballot) if elector in rules.weights else Fraction(1)

    weight = counting._weight
    with _voting(joined), patch.object(counting, "_weight", weighing):
        yield


@contextlib.contextmanager
def second_vote_counted() -> Iterator[None]:
    """Everybody may vote again."""

    def free(entry: DecisionEntry, _request: CastVoteRequest) -> DecisionEntry:
        decision = _decision_of(entry)
        decision.allow_vote_change = True
        return replace(entry, record=DecisionRecord(decision=decision))

    with _voting(free):
        yield


@contextlib.contextmanager
def electorate_read_again_at_close() -> Iterator[None]:
    """Who may vote, beside those who have, is who lives when voting ends."""
    close = deciding.close

    def modern(reader: Reader, name: str, now: Timestamp) -> Plan[Decision]:
        plan, entry = close(reader, name, now), reader.decision(name)
        assert entry is not None
        decision = _decision_of(entry)
        there = [
            each
            for each in decision.electors
            if each.agent in entry.votes or ((agent := reader.agent(each.agent)) is not None and agent.is_live)
        ]
        if not there:
            return plan
        del decision.electors[:]
        decision.electors.extend(there)
        record = names.decision_key(name), DecisionRecord(decision=decision).SerializeToString()
        return Plan(replace(plan.txn, puts=(record, *plan.txn.puts)), plan.answer)

    with patch.object(deciding, "close", modern):
        yield


PLANTED: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "denominator-of-votes-cast": (denominator_of_votes_cast, "D2"),
    "late-vote-counted": (late_vote_counted, "D3"),
    "fallback-fired-twice": (fallback_fired_twice, "D6"),
    "fallback-without-time": (fallback_without_time, "D6"),
    "vote-of-a-stranger": (vote_of_a_stranger, "D4"),
    "second-vote-counted": (second_vote_counted, "D4"),
    "electorate-read-again-at-close": (electorate_read_again_at_close, "D5"),
}
"""Each bug, and the invariant whose checker must report it."""
