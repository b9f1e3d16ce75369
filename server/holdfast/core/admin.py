"""Decisions of operators about agents: one table says what each call makes of each state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core import quotas
from holdfast.core.finding import agent_not_found
from holdfast.core.state import AdminEntry, AgentEntry, Plan, Reader, admin_state_of, etag_of, unchanged
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import AdminState, Agent
from holdfast.storage.v1.records_pb2 import AdminRecord
from holdfast.store.interface import Txn

State: TypeAlias = AdminState.ValueType

ENABLED, CORDONED, DRAINING, DRAINED, BANNED = (
    AdminState.ADMIN_STATE_ENABLED,
    AdminState.ADMIN_STATE_CORDONED,
    AdminState.ADMIN_STATE_DRAINING,
    AdminState.ADMIN_STATE_DRAINED,
    AdminState.ADMIN_STATE_BANNED,
)


@unique
class Act(StrEnum):
    """What can be decided about an agent; all but the last are calls."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    BAN = "ban"
    UNBAN = "unban"
    FINISH = "finish"
    """Draining has come to its end: the agent holds no work."""


TRANSITIONS: Mapping[Act, Mapping[State, State]] = {
    Act.CORDON: {ENABLED: CORDONED, CORDONED: CORDONED},
    Act.UNCORDON: {ENABLED: ENABLED, CORDONED: ENABLED, DRAINING: ENABLED, DRAINED: ENABLED},
    Act.DRAIN: {ENABLED: DRAINING, CORDONED: DRAINING, DRAINING: DRAINING, DRAINED: DRAINED},
    Act.BAN: {ENABLED: BANNED, CORDONED: BANNED, DRAINING: BANNED, DRAINED: BANNED, BANNED: BANNED},
    Act.UNBAN: {BANNED: CORDONED, CORDONED: CORDONED},
    Act.FINISH: {DRAINING: DRAINED},
}
"""The state each act leads to from each state it is allowed in; the same state: nothing is written."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided about an agent, why, and when."""

    act: Act
    name: str
    reason: str
    now: Timestamp


def rule(reader: Reader, ruling: Ruling) -> Plan[Agent]:
    """Decides a call of an operator's. Answers the agent as it then is.

    Of an agent that is gone, but not what was decided about it, the answer has name and admin state alone; once such
    an agent is ENABLED nothing is left of it.

    Raises:
        HoldfastError: AGENT_NOT_FOUND, ADMIN_STATE_CONFLICT, AGENT_BANNED, QUOTA_EXCEEDED.
    """
    entry, admin = reader.agent(ruling.name), reader.admin(ruling.name)
    if entry is None and admin is None:
        raise agent_not_found(ruling.name)
    state = _next(ruling, admin_state_of(admin))
    if state == admin_state_of(admin):
        agent = _as_it_is(ruling.name, state, entry)
        return Plan(Txn(), lambda _: agent)
    key = names.admin_key(ruling.name)
    compares = unchanged(reader, ruling.name)
    if entry is None and state == ENABLED:
        return Plan(Txn(compares=compares, deletes=(key,)), lambda _: Agent(name=ruling.name, admin_state=state))
    if admin is None:
        quotas.check_ruling(reader)
    record = AdminRecord(state=state, reason=ruling.reason, time=ruling.now)
    txn = Txn(compares=compares, puts=((key, record.SerializeToString()),))
    return Plan(txn, _answer(ruling.name, entry, record))


def _next(ruling: Ruling, state: State) -> State:
    following = TRANSITIONS[ruling.act].get(state)
    if following is not None:
        return following
    if state == BANNED:
        raise HoldfastError(
            Reason.AGENT_BANNED,
            f"an operator banned {ruling.name}; UnbanAgent first, which leaves it CORDONED.",
            subject=ruling.name,
        )
    allowed = ", ".join(AdminState.Name(each).removeprefix("ADMIN_STATE_") for each in TRANSITIONS[ruling.act])
    told = AdminState.Name(state).removeprefix("ADMIN_STATE_")
    raise HoldfastError(
        Reason.ADMIN_STATE_CONFLICT,
        f"{ruling.name} is {told}; {ruling.act} is for agents that are {allowed}.",
        subject=ruling.name,
        metadata={"admin_state": AdminState.Name(state)},
    )


def _as_it_is(name: str, state: State, entry: AgentEntry | None) -> Agent:
    return Agent(name=name, admin_state=state) if entry is None else entry.agent


def _answer(name: str, entry: AgentEntry | None, record: AdminRecord) -> Callable[[int], Agent]:
    def answer(revision: int) -> Agent:
        if entry is None:
            return Agent(name=name, admin_state=record.state, revision=revision, etag=etag_of(revision))
        return entry.ruled_by(AdminEntry(record, revision)).agent

    return answer


def forgotten(reader: Reader, name: str) -> Txn:
    """What goes with the record of an agent: a decision that says no more than none would."""
    admin = reader.admin(name)
    if admin is None or admin.record.state != ENABLED:
        return Txn()
    key = names.admin_key(name)
    return Txn(compares=((key, admin.mod_revision),), deletes=(key,))
