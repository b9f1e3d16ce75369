"""Opening a decision: everything that is left to the service is filled in here, once and for all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.coordination.v1.decision_service_pb2 import (
    DECISION_FALLBACK_KIND_DESIGNATED_AGENT,
    DECISION_FALLBACK_KIND_STATUS_QUO,
    DECISION_METHOD_QUORUM,
    DECISION_METHOD_WEIGHTED,
    DECISION_STATE_OPEN,
    CreateDecisionRequest,
    CreateDecisionResponse,
    Decision,
    DecisionMethod,
    Elector,
)
from holdfast.core.decisions import counting
from holdfast.core.decisions.entry import DecisionEntry, Reader, dated, listed, shown
from holdfast.core.decisions.forgetting import UNSETTLED_MAX
from holdfast.core.requests import remember, replay
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason, invalid_field
from holdfast.storage.v1.decisions_pb2 import DecisionRecord, DecisionStateRecord
from holdfast.store.interface import Txn

VOTING_S_MAX = 30 * 86_400
"""Longest voting: who asks for more has most likely mixed up seconds and milliseconds."""

FALLBACK_S = 60
"""How long a fallback waits for somebody, unless told: that of the original framework (DESIGN 2.2)."""

ELECTORS_MAX = 1_000
"""Most electors of one decision."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What CreateDecision was asked, with what the core must not make up itself.

    `correlation_id` is the call's: no part of the request, for one that is repeated may come with another. `matching`
    are the names of the agents that match the elector_selector now, if there is one, and `exclusions` says how many
    others do not, by the first reason of each.
    """

    request: CreateDecisionRequest
    now: Timestamp
    decision_id: str
    correlation_id: str = ""
    matching: Sequence[str] = ()
    exclusions: Mapping[str, int] = field(default_factory=dict[str, int])


def create(reader: Reader, command: Opening) -> Plan[CreateDecisionResponse]:
    """Decides CreateDecision.

    Raises:
        HoldfastError: INVALID_FIELD, REQUEST_ID_REUSED, AGENT_NOT_FOUND for an elector whose weight is unknown,
            NO_ELIGIBLE_AGENT for a selector that nobody matches, QUOTA_EXCEEDED.
    """
    request = command.request
    key = names.request_key(request.parent, "CreateDecision", request.request_id)
    if request.request_id and (first := replay(reader, key, request, Decision)):
        opened, revision = first
        return Plan(Txn(), lambda _: CreateDecisionResponse(decision=dated(opened, revision)))
    _check_room(reader)
    decision = _opened(reader, command)
    record = DecisionRecord(decision=decision)
    state = DecisionStateRecord(state=DECISION_STATE_OPEN, update_time=command.now)
    entry = DecisionEntry(record, state, 0, {})
    txn = Txn(
        compares=((names.decision_key(decision.name), 0),),
        puts=(
            (names.decision_key(decision.name), record.SerializeToString()),
            (names.decision_state_key(decision.name), state.SerializeToString()),
        ),
    )
    answer = shown(entry)
    plan = Plan(txn, lambda revision: CreateDecisionResponse(decision=dated(answer, revision)))
    return remember(plan, key, request, answer, command.now) if request.request_id else plan


def _check_room(reader: Reader) -> None:
    if reader.unsettled_count >= UNSETTLED_MAX:
        raise HoldfastError(
            Reason.QUOTA_EXCEEDED,
            f"{reader.unsettled_count} decisions have not ended, and this service holds at most {UNSETTLED_MAX}; close "
            "or cancel some.",
            subject="decisions",
        )


def _opened(reader: Reader, command: Opening) -> Decision:
    """The decision with everything filled in that was left to us."""
    decision = Decision()
    decision.CopyFrom(command.request.decision)
    decision.name = names.decision_name(command.request.parent, command.decision_id)
    decision.correlation_id = decision.correlation_id or command.correlation_id
    decision.create_time.CopyFrom(command.now)
    _check_options(decision)
    _fill_in_numbers(decision)
    _fill_in_electors(reader, decision, command)
    _fill_in_deadline(decision, command.now)
    _fill_in_fallback(decision)
    return decision


def _check_options(decision: Decision) -> None:
    seen: set[str] = set()
    for index, option in enumerate(decision.options):
        if option.id in seen:
            raise invalid_field(f"decision.options[{index}].id", f"{option.id!r} is there twice; each id once")
        seen.add(option.id)


def _fill_in_numbers(decision: Decision) -> None:
    if decision.method == DECISION_METHOD_QUORUM:
        if decision.HasField("threshold"):
            raise invalid_field("decision.threshold", "QUORUM takes none; it is the quorum that must be met")
        decision.quorum = _part(decision.quorum if decision.HasField("quorum") else float(counting.QUORUM), "quorum")
        return
    if decision.HasField("quorum"):
        method = DecisionMethod.Name(decision.method).removeprefix("DECISION_METHOD_")
        raise invalid_field("decision.quorum", f"is for QUORUM; {method} takes a threshold")
    usual = float(counting.THRESHOLDS[decision.method])
    decision.threshold = _part(decision.threshold if decision.HasField("threshold") else usual, "threshold")


def _part(value: float, name: str) -> float:
    if not 0 < value <= 1:  # false of NaN, too
        raise invalid_field(f"decision.{name}", f"is {value:g}; it must be above 0 and at most 1")
    return value


def _fill_in_electors(reader: Reader, decision: Decision, command: Opening) -> None:
    if decision.HasField("elector_selector"):
        if decision.electors:
            raise invalid_field("decision.elector_selector", "stands beside electors; set one of the two")
        decision.electors.extend(Elector(agent=name) for name in command.matching)
        if not decision.electors:
            raise _nobody(decision.elector_selector.agent, command)
    if not decision.electors:
        raise invalid_field("decision.electors", "is empty; name the agents that may vote, or set elector_selector")
    if len(decision.electors) > ELECTORS_MAX:
        raise invalid_field(
            "decision.elector_selector",
            f"matches {len(decision.electors)} agents, more than the {ELECTORS_MAX} electors allowed; narrow it",
        )
    seen: set[str] = set()
    for index, elector in enumerate(decision.electors):
        where = f"decision.electors[{index}]"
        if elector.agent in seen:
            raise invalid_field(f"{where}.agent", f"{elector.agent!r} is there twice; each agent once")
        if names.parent_of(elector.agent) != command.request.parent:
            raise invalid_field(f"{where}.agent", f"{elector.agent!r} is of another namespace")
        seen.add(elector.agent)
        _fill_in_weight(reader, decision, elector, where)


def _nobody(agent: str, command: Opening) -> HoldfastError:
    why = ", ".join(f"{reason} {count}" for reason, count in command.exclusions.items())
    why = why or ("it is not registered" if agent else "nobody is registered")
    return HoldfastError(
        Reason.NO_ELIGIBLE_AGENT,
        f"{agent or 'no agent of ' + command.request.parent} {'does not match' if agent else 'matches'} "
        f"decision.elector_selector: {why}. Widen it, or name electors.",
        subject=command.request.parent,
        metadata={reason: str(count) for reason, count in command.exclusions.items()},
    )


def _fill_in_weight(reader: Reader, decision: Decision, elector: Elector, where: str) -> None:
    if elector.HasField("weight") and not (elector.weight > 0 and math.isfinite(elector.weight)):
        raise invalid_field(f"{where}.weight", f"is {elector.weight:g}; it must be above 0 and finite")
    if decision.method != DECISION_METHOD_WEIGHTED or elector.HasField("weight"):
        return
    entry = reader.agent(elector.agent)
    if entry is None:
        raise HoldfastError(
            Reason.AGENT_NOT_FOUND,
            f"{where}: there is no agent {elector.agent!r} whose coordination_priority could be its weight; "
            "set weight.",
            subject=elector.agent,
        )
    elector.weight = entry.agent.coordination_priority


def _fill_in_deadline(decision: Decision, now: Timestamp) -> None:
    if not decision.HasField("deadline"):
        decision.deadline.FromMilliseconds(now.ToMilliseconds() + counting.VOTING_S[decision.method] * 1000)
        return
    ahead_s = (decision.deadline.ToMilliseconds() - now.ToMilliseconds()) / 1000
    if ahead_s <= 0:
        raise invalid_field(
            "decision.deadline", f"{decision.deadline.ToJsonString()} is past: it is {now.ToJsonString()} here"
        )
    if ahead_s > VOTING_S_MAX:
        raise invalid_field("decision.deadline", f"is {ahead_s:.0f} s ahead, more than the {VOTING_S_MAX} s allowed")


def _fill_in_fallback(decision: Decision) -> None:
    fallback = decision.fallback
    offered = [option.id for option in decision.options]
    if fallback.kind == DECISION_FALLBACK_KIND_STATUS_QUO and fallback.option not in offered:
        raise invalid_field(
            "decision.fallback.option",
            f"{fallback.option!r} is not offered; STATUS_QUO takes one of {listed(offered)}",
        )
    if fallback.kind == DECISION_FALLBACK_KIND_DESIGNATED_AGENT and not fallback.agent:
        raise invalid_field("decision.fallback.agent", "is required: DESIGNATED_AGENT must say who")
    if not fallback.HasField("timeout"):
        fallback.timeout.FromSeconds(FALLBACK_S)
