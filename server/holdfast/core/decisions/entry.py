"""A decision as stored, and as clients see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1.decision_service_pb2 import (
    DECISION_METHOD_WEIGHTED,
    DECISION_STATE_AWAITING_FALLBACK,
    DECISION_STATE_CANCELLED,
    DECISION_STATE_DECIDED,
    DECISION_STATE_FAILED,
    DECISION_STATE_OPEN,
    Decision,
    Vote,
)
from holdfast.core.decisions import counting
from holdfast.core.decisions.counting import Ballot, Rules
from holdfast.core.state import Reader as AgentReader
from holdfast.core.state import etag_of
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.storage.v1.decisions_pb2 import DecisionRecord, DecisionStateRecord


@dataclass(frozen=True, slots=True)
class DecisionEntry:
    """A decision as stored: what it is about, where it stands, and its votes by elector in the order they were cast."""

    record: DecisionRecord
    state: DecisionStateRecord
    mod_revision: int
    votes: Mapping[str, Vote]

    @property
    def name(self) -> str:
        """Its resource name."""
        return self.record.decision.name

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end."""
        return self.state.state not in (DECISION_STATE_OPEN, DECISION_STATE_AWAITING_FALLBACK)

    @property
    def end_time(self) -> Timestamp:
        """When it ended."""
        return self.state.close_time

    @property
    def size_bytes(self) -> int:
        """What its records take, near enough."""
        return self.record.ByteSize() + sum(vote.ByteSize() for vote in self.votes.values())

    @property
    def rules(self) -> Rules:
        """How it is decided."""
        return rules_of(self.record.decision)


class Reader(AgentReader, Protocol):
    """The state at one revision."""

    def decision(self, name: str) -> DecisionEntry | None:
        """The decision of this name."""
        ...

    @property
    def unsettled_count(self) -> int:
        """How many decisions have not ended."""
        ...


def find(reader: Reader, name: str) -> DecisionEntry:
    """The decision of this name.

    Raises:
        HoldfastError: DECISION_NOT_FOUND.
    """
    entry = reader.decision(name)
    if entry is None:
        raise HoldfastError(Reason.DECISION_NOT_FOUND, f"there is no decision {name!r}.", subject=name)
    return entry


def shown(entry: DecisionEntry) -> Decision:
    """The decision as clients see it: tally and outcome follow from the votes, so they can be checked against them."""
    decision, state = Decision(), entry.state
    decision.CopyFrom(entry.record.decision)
    decision.state = state.state
    decision.votes.extend(entry.votes.values())
    counted = counting.count(entry.rules, ballots_of(entry.votes))
    for each in counted.standings:
        decision.tally.add(option=each.option, votes=each.votes, weight=float(each.weight), share=float(each.share))
    if state.state == DECISION_STATE_DECIDED:
        decision.outcome.option = state.option
        decision.outcome.margin = float(counted.margin(state.option))
        decision.outcome.participation = float(counted.participation)
        decision.outcome.by_fallback = state.by_fallback
    elif state.state in (DECISION_STATE_FAILED, DECISION_STATE_CANCELLED):
        decision.failure = state.why
    if state.HasField("close_time"):
        decision.close_time.CopyFrom(state.close_time)
    return dated(decision, entry.mod_revision)


def dated(decision: Decision, revision: int) -> Decision:
    """A decision with what follows from the revision that wrote it last."""
    decision.revision = revision
    decision.etag = etag_of(revision)
    return decision


def rules_of(decision: Decision) -> Rules:
    """How a decision that is open is decided."""
    weighs = decision.method == DECISION_METHOD_WEIGHTED
    return Rules(
        method=decision.method,
        options=[option.id for option in decision.options],
        weights={elector.agent: counting.exact(elector.weight if weighs else 1.0) for elector in decision.electors},
        threshold=counting.exact(decision.threshold),
        quorum=counting.exact(decision.quorum),
        may_change=decision.allow_vote_change,
    )


def ballots_of(votes: Mapping[str, Vote]) -> Mapping[str, Ballot]:
    """Votes as they are counted."""
    return {agent: Ballot(cast.option, counting.exact(cast.confidence)) for agent, cast in votes.items()}


def check_option(decision: Decision, field: str, option: str) -> None:
    """Refuses an option that is not offered.

    Raises:
        HoldfastError: INVALID_FIELD about `field`.
    """
    offered = [each.id for each in decision.options]
    if option not in offered:
        raise invalid_field(field, f"{option!r} is not offered; one of {listed(offered)} is")


def listed(offered: Sequence[str]) -> str:
    """The first options, for a message."""
    return ", ".join(map(repr, offered[:10])) + (", …" if len(offered) > 10 else "")
