"""Decisions about many agents at once: all are registered, at one revision, or none."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core import leases
from holdfast.core.agents import Registration, date, incarnate, present_again
from holdfast.core.requests import remember, replay
from holdfast.core.state import AgentEntry, Plan, Reader
from holdfast.core.telling import ADDED_BYTES_MAX
from holdfast.errors import FieldViolation, HoldfastError, invalid_field, invalid_fields
from holdfast.registry.v1.agent_pb2 import ADMIN_STATE_ENABLED, BREAKER_STATE_CLOSED, Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    BatchRegisterAgentsRequest,
    BatchRegisterAgentsResponse,
    RegisterAgentRequest,
)
from holdfast.storage.v1.records_pb2 import BatchAnswer
from holdfast.store.interface import Txn

ANSWER_BYTES_MAX = ADDED_BYTES_MAX
"""Most bytes of the agents of one batch, which are one answer and one revision; where an agent takes the place of a
larger one, that counts.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What BatchRegisterAgents was asked, with what the core must not make up itself.

    `seed` is an id that never repeats: what the agents' uids and the ids of their leases are derived from.
    """

    request: BatchRegisterAgentsRequest
    now: Timestamp
    epoch: int
    seed: str
    replica: str


def register(reader: Reader, batch: Batch) -> Plan[BatchRegisterAgentsResponse]:
    """Decides BatchRegisterAgents: each agent as RegisterAgent would, all in one transaction.

    Raises:
        HoldfastError: As for RegisterAgent, with paths that begin with `requests[…]`, about the first that is wrong.
    """
    request = batch.request
    key = names.request_key(request.parent, "BatchRegisterAgents", request.request_id)
    if request.request_id and (first := replay(reader, key, request, BatchAnswer)):
        answered, at = first
        return Plan(Txn(), lambda _: _dated(_again(batch, answered), at))
    _check(request)
    agents, txn, grows = _incarnated(reader, batch)
    plan = Plan(txn, lambda revision: _dated(agents, revision), grows)
    return remember(plan, key, request, _answer(batch, agents), batch.now) if request.request_id else plan


def _check(request: BatchRegisterAgentsRequest) -> None:
    places: dict[str, int] = {}
    for index, each in enumerate(request.requests):
        where = f"requests[{index}]"
        if each.parent != request.parent:
            raise invalid_field(f"{where}.parent", f"is {each.parent!r}; leave it empty, or {request.parent!r}")
        if each.request_id:
            raise invalid_field(f"{where}.request_id", f"is {each.request_id!r}; only the batch as a whole has one")
        first = places.setdefault(each.agent_id, index)
        if first != index:
            raise invalid_field(f"{where}.agent_id", f"{each.agent_id!r} is that of requests[{first}], too; each once")


def _incarnated(reader: Reader, batch: Batch) -> tuple[list[Agent], Txn, tuple[tuple[str, int], ...]]:
    """The agents, one transaction for all of them, and what they add to leases."""
    agents: list[Agent] = []
    compares: dict[str, int] = {}
    puts: list[tuple[str, bytes]] = []
    size_bytes, more_bytes = 0, Counter[str]()
    for index, command in enumerate(_commands(batch)):
        try:
            agent, txn = incarnate(reader, command)
            if growth := leases.growth(reader, agent):
                more_bytes[agent.lease] += growth
                leases.grow(reader, {agent.lease: more_bytes[agent.lease]})
        except HoldfastError as error:
            raise _within(f"requests[{index}]", error) from error
        agents.append(agent)
        compares.update(txn.compares)
        puts += txn.puts
        size_bytes += max(agent.ByteSize(), _bytes_of(reader.agent(agent.name)))
        if size_bytes > ANSWER_BYTES_MAX:
            raise _too_large(index, len(batch.request.requests))
    return agents, Txn(compares=tuple(compares.items()), puts=tuple(puts)), leases.grow(reader, more_bytes)


def _bytes_of(entry: AgentEntry | None) -> int:
    return entry.agent.ByteSize() if entry is not None else 0


def _commands(batch: Batch) -> Iterator[Registration]:
    return (_command(batch, index, each) for index, each in enumerate(batch.request.requests))


def _command(batch: Batch, index: int, request: RegisterAgentRequest) -> Registration:
    ids = hashlib.blake2b(f"{batch.seed}/{index}".encode(), digest_size=32).hexdigest()
    return Registration(request, batch.now, batch.epoch, uid=ids[:32], lease_id=ids[32:], replica=batch.replica)


def _within(where: str, error: HoldfastError) -> HoldfastError:
    """An error about one of the requests, as one about the batch."""
    if error.field_violations:
        return invalid_fields(
            [FieldViolation(f"{where}.{each.field}", each.description) for each in error.field_violations]
        )
    return HoldfastError(
        error.reason,
        f"{where}: {error.message}",
        subject=error.subject,
        metadata={**error.metadata, "request": where},
    )


def _too_large(index: int, count: int) -> HoldfastError:
    return invalid_field(
        "requests",
        f"the first {index + 1} of {count} agents, or those they take the place of, have more than the "
        f"{ANSWER_BYTES_MAX} bytes of one answer; split the batch",
    )


def _dated(agents: list[Agent], revision: int) -> BatchRegisterAgentsResponse:
    for agent in agents:
        date(agent, revision)
    return BatchRegisterAgentsResponse(agents=agents)


def _answer(batch: Batch, agents: list[Agent]) -> BatchAnswer:
    """The answer without what the request says when it is repeated."""
    answer = BatchAnswer(seed=batch.seed, epoch=batch.epoch, time=batch.now)
    for index, agent in enumerate(agents):
        if agent.admin_state != ADMIN_STATE_ENABLED:
            answer.admin_states[index] = agent.admin_state
        if agent.breaker_state != BREAKER_STATE_CLOSED:
            answer.breaker_states[index] = agent.breaker_state
    return answer


def _again(batch: Batch, answered: BatchAnswer) -> list[Agent]:
    """The agents of the first answer, made from the same request."""
    first = Batch(batch.request, answered.time, answered.epoch, answered.seed, batch.replica)
    states, breakers = answered.admin_states, answered.breaker_states
    return [
        present_again(command, states.get(index, ADMIN_STATE_ENABLED), breakers.get(index, BREAKER_STATE_CLOSED))
        for index, command in enumerate(_commands(first))
    ]
