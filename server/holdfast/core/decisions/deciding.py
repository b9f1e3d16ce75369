"""Votes, and the one end that a decision comes to."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.decision_service_pb2 import (
    DECISION_FALLBACK_KIND_DESIGNATED_AGENT,
    DECISION_STATE_AWAITING_FALLBACK,
    DECISION_STATE_CANCELLED,
    DECISION_STATE_DECIDED,
    DECISION_STATE_FAILED,
    DECISION_STATE_OPEN,
    CastVoteRequest,
    Decision,
    DecisionState,
    ResolveDecisionRequest,
    Vote,
)
from holdfast.core.decisions import counting
from holdfast.core.decisions.counting import Result
from holdfast.core.decisions.entry import DecisionEntry, Reader, ballots_of, check_option, find, shown
from holdfast.core.finding import check_fence
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_BANNED
from holdfast.storage.v1.decisions_pb2 import DecisionStateRecord, VoteRecord
from holdfast.store.interface import Txn


def vote(
    reader: Reader, requests: Sequence[CastVoteRequest], now: Timestamp, *, is_over: bool
) -> Plan[Sequence[Decision | HoldfastError]]:
    """Decides CastVote for votes on one decision that came together: each in its turn, and all at one revision.

    The vote that settles the matter closes the decision, and those after it are refused.

    Args:
        reader: The state, as new as the last of the calls.
        requests: The votes in the order they came, at least one.
        now: The wall clock, for people.
        is_over: Whether the deadline has passed, by a clock that does not jump.

    Returns:
        For each the decision once all are counted, or else, as from `cast`, why it was not.

    Raises:
        HoldfastError: DECISION_NOT_FOUND.
    """
    entry = find(reader, requests[0].decision)
    counted, refused = entry, dict[int, HoldfastError]()
    for index, request in enumerate(requests):
        try:
            counted = cast(reader, counted, request, now, is_over=is_over)
        except HoldfastError as error:
            refused[index] = error
    # In the order of their keys, as a store that is read again has those of one revision.
    new = sorted((vote for vote in counted.votes.values() if entry.votes.get(vote.agent) is not vote), key=_agent)
    votes = {agent: vote for agent, vote in counted.votes.items() if entry.votes.get(agent) is vote}
    votes |= {vote.agent: vote for vote in new}
    puts = [(names.vote_key(entry.name, vote.agent), VoteRecord(vote=vote).SerializeToString()) for vote in new]

    def answer(revision: int) -> Sequence[Decision | HoldfastError]:
        for vote in new:
            vote.revision = revision
        decision = shown(DecisionEntry(entry.record, counted.state, revision, votes))
        return [refused.get(index, decision) for index in range(len(requests))]

    return Plan(_rewritten(entry, counted.state, *puts) if new else Txn(), answer)


def _agent(vote: Vote) -> str:
    return vote.agent


def cast(
    reader: Reader, entry: DecisionEntry, request: CastVoteRequest, now: Timestamp, *, is_over: bool
) -> DecisionEntry:
    """The decision with one vote more, which may end it.

    Raises:
        HoldfastError: DECISION_CLOSED, NOT_ELECTOR, INVALID_FIELD, ALREADY_VOTED, FENCE_STALE, AGENT_BANNED.
    """
    decision = entry.record.decision
    if entry.state.state != DECISION_STATE_OPEN or is_over:
        raise _closed(entry)
    if all(elector.agent != request.agent for elector in decision.electors):
        raise HoldfastError(
            Reason.NOT_ELECTOR,
            f"{request.agent} is none of the {len(decision.electors)} electors of {entry.name}, which were fixed when "
            "it opened.",
            subject=request.agent,
        )
    check_option(decision, "option", request.option)
    confidence = request.confidence if request.HasField("confidence") else 1.0
    if not 0 <= confidence <= 1:
        raise invalid_field("confidence", f"is {confidence:g}; it must be from 0 to 1")
    _check_agent(reader, request.agent, request.fence)
    if request.agent in entry.votes and not decision.allow_vote_change:
        before = entry.votes[request.agent]
        when = f"at revision {before.revision}" if before.revision else "a moment ago"
        raise HoldfastError(
            Reason.ALREADY_VOTED,
            f"{request.agent} voted for {before.option!r} {when}, and {entry.name} does not allow a change.",
            subject=entry.name,
        )
    vote = Vote(
        agent=request.agent, option=request.option, confidence=confidence, rationale=request.rationale, time=now
    )
    return _with(entry, vote, now)


def _with(entry: DecisionEntry, vote: Vote, now: Timestamp) -> DecisionEntry:
    votes = {agent: each for agent, each in entry.votes.items() if agent != vote.agent} | {vote.agent: vote}
    state = DecisionStateRecord()
    state.CopyFrom(entry.state)
    state.votes_cast += 1
    state.update_time.CopyFrom(now)
    rules = entry.rules
    counted = counting.count(rules, ballots_of(votes))
    if counting.is_settled(rules, counted):
        _close(state, counting.end(rules, counted, entry.record.decision.fallback), entry.record.decision, now)
    return DecisionEntry(entry.record, state, entry.mod_revision, votes)


def close(reader: Reader, name: str, now: Timestamp) -> Plan[Decision]:
    """Decides CloseDecision: what the votes come to, or else the fallback.

    Raises:
        HoldfastError: DECISION_NOT_FOUND, DECISION_CLOSED.
    """
    entry = find(reader, name)
    if entry.state.state != DECISION_STATE_OPEN:
        raise _closed(entry)
    return _ended(entry, now)


def expire(reader: Reader, name: str, now: Timestamp, *, is_over: bool) -> Plan[bool]:
    """Decides what the passing of a decision's time does to it. Answers whether anything; others may be faster.

    `is_over` says whether the time of the state it is in has passed: where others ended the voting meanwhile, the
    fallback has its own.
    """
    entry = reader.decision(name) if is_over else None
    if entry is not None and entry.state.state == DECISION_STATE_OPEN:
        return Plan(_ended(entry, now).txn, lambda _: True)
    if entry is not None and entry.state.state == DECISION_STATE_AWAITING_FALLBACK:
        return Plan(_finished(entry, DECISION_STATE_FAILED, "nobody settled it in time", now).txn, lambda _: True)
    return Plan(Txn(), lambda _: False)


def cancel(reader: Reader, name: str, reason: str, now: Timestamp) -> Plan[Decision]:
    """Decides CancelDecision.

    Raises:
        HoldfastError: DECISION_NOT_FOUND, DECISION_CLOSED.
    """
    entry = find(reader, name)
    if entry.state.state not in (DECISION_STATE_OPEN, DECISION_STATE_AWAITING_FALLBACK):
        raise _closed(entry)
    return _finished(entry, DECISION_STATE_CANCELLED, reason, now)


def resolve(reader: Reader, request: ResolveDecisionRequest, now: Timestamp, *, is_over: bool) -> Plan[Decision]:
    """Decides ResolveDecision: by the agent that the fallback names, or by an operator.

    Raises:
        HoldfastError: DECISION_NOT_FOUND, DECISION_CLOSED, NOT_OWNER, INVALID_FIELD, FENCE_STALE, AGENT_BANNED.
    """
    entry = find(reader, request.name)
    decision = entry.record.decision
    if entry.state.state != DECISION_STATE_AWAITING_FALLBACK or is_over:
        raise _closed(entry)
    designated = decision.fallback.agent
    if designated != request.agent and decision.fallback.kind == DECISION_FALLBACK_KIND_DESIGNATED_AGENT:
        raise HoldfastError(
            Reason.NOT_OWNER,
            f"{entry.name} waits for {designated}, not for {request.agent or 'an operator'}.",
            subject=entry.name,
        )
    check_option(decision, "option", request.option)
    if request.agent:
        _check_agent(reader, request.agent, request.fence)
    state = _following(entry, now)
    state.state, state.option, state.by_fallback = DECISION_STATE_DECIDED, request.option, True
    state.why = request.rationale
    return _written(entry, state)


def _ended(entry: DecisionEntry, now: Timestamp) -> Plan[Decision]:
    rules, decision = entry.rules, entry.record.decision
    state = _following(entry, now)
    result = counting.end(rules, counting.count(rules, ballots_of(entry.votes)), decision.fallback)
    _close(state, result, decision, now)
    return _written(entry, state)


def _finished(entry: DecisionEntry, into: DecisionState.ValueType, why: str, now: Timestamp) -> Plan[Decision]:
    state = _following(entry, now)
    state.state, state.why = into, why
    if not state.HasField("close_time"):
        state.close_time.CopyFrom(now)
    state.ClearField("fallback_deadline")
    return _written(entry, state)


def _following(entry: DecisionEntry, now: Timestamp) -> DecisionStateRecord:
    state = DecisionStateRecord()
    state.CopyFrom(entry.state)
    state.update_time.CopyFrom(now)
    return state


def _close(state: DecisionStateRecord, result: Result, decision: Decision, now: Timestamp) -> None:
    """Ends voting; from here on the state says what came of it."""
    state.state, state.option, state.by_fallback = result.state, result.option, result.by_fallback
    state.why = result.why
    state.close_time.CopyFrom(now)
    if result.state == DECISION_STATE_AWAITING_FALLBACK:
        until_ms = now.ToMilliseconds() + decision.fallback.timeout.ToMilliseconds()
        state.fallback_deadline.FromMilliseconds(until_ms)


def _written(entry: DecisionEntry, state: DecisionStateRecord) -> Plan[Decision]:
    return Plan(
        _rewritten(entry, state), lambda revision: shown(DecisionEntry(entry.record, state, revision, entry.votes))
    )


def _rewritten(entry: DecisionEntry, state: DecisionStateRecord, *more: tuple[str, bytes]) -> Txn:
    """What moves a decision on, unless it has moved: every vote does, so none is counted beside another."""
    key = names.decision_state_key(entry.name)
    return Txn(compares=((key, entry.mod_revision),), puts=(*more, (key, state.SerializeToString())))


def _closed(entry: DecisionEntry) -> HoldfastError:
    state = DecisionState.Name(entry.state.state).removeprefix("DECISION_STATE_")
    how = "its deadline has passed" if state == "OPEN" else f"it is {state} since revision {entry.mod_revision}"
    return HoldfastError(
        Reason.DECISION_CLOSED, f"{entry.name} takes no more of this: {how}. Read its outcome.", subject=entry.name
    )


def _check_agent(reader: Reader, name: str, fence: int) -> None:
    """Refuses a banned agent, and a fence that is not of its current incarnation."""
    entry, admin = reader.agent(name), reader.admin(name)
    if admin is not None and admin.record.state == ADMIN_STATE_BANNED:
        raise HoldfastError(Reason.AGENT_BANNED, f"an operator banned {name}.", subject=name)
    if fence and entry is None:
        raise HoldfastError(
            Reason.FENCE_STALE, f"fence {fence} is of no incarnation: there is no {name} any more.", subject=name
        )
    if entry is not None:
        check_fence(entry.agent, fence)
