"""Giving work to an agent: decided anew on the newest state, so that what a scheduler picked is only a proposal."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.core.activations import breaker
from holdfast.core.activations.entry import ASSIGNED, PENDING, ActivationEntry, Reader, following, state_key
from holdfast.core.matching import Selector, first_reason
from holdfast.core.state import AgentEntry, Plan, unchanged
from holdfast.registry.v1.agent_pb2 import BREAKER_STATE_CLOSED, BREAKER_STATE_HALF_OPEN
from holdfast.store.interface import Txn

TOGETHER_MAX = 100
"""Most activations given to one agent in one transaction."""


def assign(reader: Reader, agent: str, picked: Sequence[str], now: Timestamp, epoch: int) -> Plan[Sequence[str]]:
    """Decides which of some activations an agent gets: those it can still take, in their order. Answers their names.

    The agent's work record is written with them, so that of two assignments on one state the second is made anew: its
    slots are never given twice.
    """
    entry = reader.agent(agent)
    if entry is None or not entry.is_live:
        return Plan(Txn(), lambda _: ())
    free = room(entry, reader.slots_held(agent))
    taken: list[ActivationEntry] = []
    for name in picked[:TOGETHER_MAX]:
        activation = reader.activation(name)
        if len(taken) < free and activation is not None and can_take(entry, activation, free - len(taken)):
            taken.append(activation)
    if not taken:
        return Plan(Txn(), lambda _: ())
    touched = breaker.rewritten(agent, reader.work(agent), breaker.touched)
    puts = [(state_key(each), _assigned(each, entry, now, epoch)) for each in taken]
    txn = Txn(
        compares=(
            *unchanged(reader, agent),
            *touched.compares,
            *((state_key(each), each.mod_revision) for each in taken),
        ),
        puts=(*touched.puts, *puts),
    )
    return Plan(txn, lambda _: [each.name for each in taken])


def room(entry: AgentEntry, held: int) -> int:
    """How many more activations an agent takes: one on trial while its breaker is HALF_OPEN, none while it is OPEN."""
    agent = entry.agent
    if agent.breaker_state == BREAKER_STATE_CLOSED:
        return max(0, agent.max_concurrency - held)
    return 1 if agent.breaker_state == BREAKER_STATE_HALF_OPEN and not held else 0


def can_take(entry: AgentEntry, activation: ActivationEntry, free: int) -> bool:
    """Whether an agent that lives can take an activation."""
    if activation.state.state != PENDING or entry.agent.name in activation.state.declined:
        return False
    asked = activation.record.activation.selector
    if asked.agent not in ("", entry.agent.name):
        return False
    return first_reason(Selector.of_agents(asked), entry, free) is None


def _assigned(activation: ActivationEntry, entry: AgentEntry, now: Timestamp, epoch: int) -> bytes:
    state = following(activation, now)
    state.state = ASSIGNED
    state.agent, state.agent_uid = entry.agent.name, entry.agent.uid
    state.attempt += 1
    state.fence_revision, state.fence_epoch = 0, epoch
    state.ClearField("retry_time")
    state.ClearField("progress")
    return state.SerializeToString()
