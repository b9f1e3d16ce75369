"""What is repeated, how often, and with which request_id."""

import asyncio
from collections.abc import Callable, Iterable

import pytest
from google.protobuf.message_factory import GetMessageClass

from holdfast import errors as table
from holdfast.admin.v1 import quota_service_pb2
from holdfast.client import RetryPolicy, Timeouts
from holdfast.client.calling import Caller, Repeat, may_repeat, repeat_of
from holdfast.client.connection import Connection, checked_target
from holdfast.client.errors import (
    AgentNotFoundError,
    DisconnectedError,
    HoldfastError,
    NotReadyError,
    UnreachableError,
    from_status,
)
from holdfast.coordination.v1 import (
    activation_service_pb2,
    decision_service_pb2,
    election_service_pb2,
    handoff_service_pb2,
    lock_service_pb2,
)
from holdfast.errors import Reason
from holdfast.registry.v1 import agent_registry_service_pb2, lease_service_pb2
from holdfast.registry.v1.agent_registry_service_pb2 import GetAgentRequest, RegisterAgentRequest

FILES = (
    agent_registry_service_pb2,
    lease_service_pb2,
    activation_service_pb2,
    decision_service_pb2,
    election_service_pb2,
    handoff_service_pb2,
    lock_service_pb2,
    quota_service_pb2,
)

KEYED = {
    "RegisterAgent", "BatchRegisterAgents", "GrantLease", "CreateActivation", "CreateDecision", "OfferHandoff",
    "AcquireLock", "Campaign",
}  # fmt: skip
READS = {
    "GetAgent", "ListAgents", "MatchAgents", "GetLease", "ListLeases", "GetActivation", "ListActivations",
    "FetchAssignments", "GetDecision", "ListDecisions", "GetHandoff", "ListHandoffs", "GetLock", "ListLocks",
    "VerifyFence", "GetLeader", "ListBreakers",
}  # fmt: skip


def unary_calls() -> Iterable[tuple[str, Repeat]]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if not method.server_streaming:
                    yield method.name, repeat_of(GetMessageClass(method.input_type))


def test_which_calls_are_repeated_after_a_lost_answer_is_pinned() -> None:
    """Every call is in one of two lists or is not repeated; a new call that changes something must not slip in."""
    found = dict(unary_calls())
    assert {name for name, repeat in found.items() if repeat is Repeat.ALWAYS} == READS
    assert {name for name, repeat in found.items() if repeat is Repeat.KEYED} == KEYED


def error_of(reason: Reason) -> HoldfastError:
    error = from_status(table.HoldfastError(reason, "m").to_status())
    assert error is not None
    return error


def test_calls_without_an_id_are_repeated_only_after_a_definite_refusal() -> None:
    for reason in Reason:
        error = error_of(reason)
        assert not may_repeat(error, Repeat.REFUSED) or reason.value.definite, reason
    assert not may_repeat(DisconnectedError("m"), Repeat.REFUSED)
    assert may_repeat(DisconnectedError("m"), Repeat.KEYED)
    assert may_repeat(UnreachableError("m"), Repeat.REFUSED)


def test_refusals_that_will_be_the_same_again_are_not_repeated() -> None:
    repeated = {reason.name for reason in Reason if may_repeat(error_of(reason), Repeat.ALWAYS)}
    assert repeated == {
        "TXN_CONFLICT", "RATE_LIMITED", "BREAKER_OPEN", "OVERLOADED", "NOT_READY", "STREAM_DRAINED",
        "STORE_UNAVAILABLE",
    }  # fmt: skip


class Answers:
    """A method of a stub that gives one answer after the other, and keeps what it was asked."""

    def __init__(self, *answers: Exception | object) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def caller() -> Caller:
    policy = RetryPolicy(backoff_initial_s=1e-4, backoff_max_s=1e-3)
    return Caller(None, Timeouts(), policy)  # type: ignore[arg-type] # no connection is needed


async def test_attempts_end_at_their_bound() -> None:
    answers = Answers(*[DisconnectedError(str(n)) for n in range(9)])
    with pytest.raises(DisconnectedError, match="DISCONNECTED: 2"):
        await caller().repeating(answers, Repeat.ALWAYS, 10.0, 3)
    assert len(answers.answers) == 6


async def test_what_is_not_safe_is_attempted_once() -> None:
    answers = Answers(DisconnectedError("first"), "never")
    with pytest.raises(DisconnectedError, match="first"):
        await caller().repeating(answers, Repeat.REFUSED, 10.0, 6)
    assert answers.answers == ["never"]


async def test_a_refusal_after_a_lost_answer_is_not_definite() -> None:
    """That the last attempt did not happen says nothing of the one before."""
    last = NotReadyError("m", reason="NOT_READY", definite=True)
    with pytest.raises(NotReadyError) as raised:
        await caller().repeating(Answers(DisconnectedError("m"), last), Repeat.KEYED, 10.0, 2)
    assert raised.value.definite is False
    again = NotReadyError("m", reason="NOT_READY", definite=True)
    with pytest.raises(NotReadyError) as alone:
        await caller().repeating(Answers(again), Repeat.KEYED, 10.0, 1)
    assert alone.value.definite is True
    answered = AgentNotFoundError("m", reason="AGENT_NOT_FOUND", definite=True)
    with pytest.raises(AgentNotFoundError) as found:
        await caller().repeating(Answers(DisconnectedError("m"), answered), Repeat.ALWAYS, 10.0, 6)
    assert found.value.definite is True


async def test_no_attempt_begins_after_the_time_for_all() -> None:
    late = NotReadyError("m", reason="NOT_READY", definite=True, retry_after_s=60.0)
    async with asyncio.timeout(20):
        with pytest.raises(NotReadyError):
            await caller().repeating(Answers(late, "never"), Repeat.ALWAYS, 1.0, 6)


class Recording:
    """A connection, and a method on it that is lost twice and then answers; it keeps the requests."""

    target = "x:1"

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def ready(self, timeout_s: float) -> None:
        """It stands."""

    async def __call__(self, request: RegisterAgentRequest, **_options: float) -> str:
        self.ids.append(request.request_id)
        if len(self.ids) < 3:
            raise DisconnectedError("m")
        return "answer"


async def test_all_attempts_of_one_call_carry_one_request_id_and_the_next_call_another() -> None:
    recording = Recording()
    calls = Caller(recording, Timeouts(), RetryPolicy(backoff_initial_s=1e-4, backoff_max_s=1e-3))  # type: ignore[arg-type]
    assert await calls.call(recording, RegisterAgentRequest(agent_id="a")) == "answer"  # type: ignore[arg-type]
    assert len(recording.ids) == 3
    assert len(set(recording.ids)) == 1
    await calls.call(recording, RegisterAgentRequest(agent_id="a"))  # type: ignore[arg-type]
    assert recording.ids[3] not in {"", recording.ids[0]}
    mine = RegisterAgentRequest(agent_id="a", request_id="mine")
    await calls.call(recording, mine)  # type: ignore[arg-type]
    assert recording.ids[4] == "mine"


@pytest.mark.parametrize("attempts", [1, 2, 10, 10_000])
def test_pauses_are_random_and_bounded(attempts: int) -> None:
    policy = RetryPolicy(backoff_initial_s=0.1, backoff_max_s=5.0)
    pauses = [policy.backoff_s(attempts) for _ in range(200)]
    assert max(pauses) <= min(5.0, 0.1 * 2 ** min(attempts - 1, 10))
    assert len(set(pauses)) > 100


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(attempts_max=0),
        lambda: RetryPolicy(backoff_initial_s=0.0),
        lambda: RetryPolicy(backoff_initial_s=6.0, backoff_max_s=5.0),
        lambda: Timeouts(call_s=0.0),
        lambda: Timeouts(attempt_s=float("nan")),
        lambda: Timeouts(connect_s=float("inf")),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name_and_value(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"(attempts_max|_s) is "):
        make()


@pytest.mark.parametrize("target", ["", "localhost", "http//x", "127.0.0.1:", "a b:1", None, 50051])
def test_a_target_that_is_none_is_refused_with_one_that_is(target: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        checked_target(target)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:50051", "[::1]:50051", "localhost:1", "dns:///x.internal:50051", "ipv4:10.0.0.1:1,10.0.0.2:1"]
)
def test_targets_of_grpc_are_taken(target: str) -> None:
    assert checked_target(target) == target


async def test_where_nobody_listens_it_is_said_that_nothing_was_sent() -> None:
    connection = Connection("127.0.0.1:1")
    calls = Caller(connection, Timeouts(connect_s=0.2), RetryPolicy(attempts_max=1))
    method = connection.channel.unary_unary("/x/y")
    try:
        with pytest.raises(UnreachableError, match=r"127.0.0.1:1 within 0.2 s") as raised:
            await calls.call(method, GetAgentRequest(name="n"))
        assert raised.value.definite is True
    finally:
        await connection.close()
