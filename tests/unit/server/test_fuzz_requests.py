"""Whatever is sent to any rpc, alone or after other calls: an answer of the API, and a state that is whole."""

import asyncio
import itertools

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.registry.v1.agent_pb2 import Agent, Capability
from support.hostile import requests
from support.replica import Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.surface import METHODS, Answer, Surface, assert_fitting

Call = tuple[MethodDescriptor, bytes]

NOTHING_TO_ASSUME = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def serialised(message: Message) -> bytes:
    return message.SerializeToString()


def calls_of(method: MethodDescriptor) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(method), requests(method.input_type).map(serialised))


CALLS = st.sampled_from(METHODS).flatmap(calls_of)


async def play(calls: list[Call]) -> list[Answer]:
    """Answers to some calls in a row, with agents and a lease there to meet; between them leases run out."""
    async with replica() as here:
        ids = itertools.count()
        here.registry.new_id = lambda: f"id{next(ids)}"
        await here.register("a", ttl_s=1.5)
        await here.register("b", agent=Agent(lease=(await here.grant()).name, capabilities=[Capability(id="review")]))
        surface, answers = Surface(here), list[Answer]()
        for method, data in calls:
            answers.append(await surface.call(method, data))
            assert_fitting(answers[-1], method.input_type)
            assert answers[-1].code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), answers[-1]
            await here.pass_time(0.4)
        await assert_sane(here)
        return answers


async def assert_sane(here: Replica) -> None:
    await assert_view_is_what_the_store_says(here.registry)
    agent = await here.register("sane", parent="namespaces/others")
    assert agent.name == "namespaces/others/agents/sane"
    assert {each.status.code for each in await here.keep(agent.lease)} == {0}


@settings(NOTHING_TO_ASSUME, max_examples=150)
@given(calls=st.lists(CALLS, min_size=1, max_size=25))
def test_any_calls_in_any_order_are_answered_and_leave_the_state_whole(calls: list[Call]) -> None:
    asyncio.run(play(calls))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@settings(NOTHING_TO_ASSUME, max_examples=30)
@given(data=st.data())
def test_every_rpc_answers_whatever_its_message(method: MethodDescriptor, data: st.DataObject) -> None:
    asyncio.run(play([data.draw(calls_of(method))]))


@settings(NOTHING_TO_ASSUME, max_examples=200)
@given(method=st.sampled_from(METHODS), data=st.data())
def test_bytes_cut_or_changed_anywhere_are_answered(method: MethodDescriptor, data: st.DataObject) -> None:
    """Bits flipped, ends cut off, pieces of other messages put in: read or refused, never a defect."""
    _, sound = data.draw(calls_of(method))
    other = data.draw(st.binary(max_size=40))
    at = data.draw(st.integers(0, len(sound)))
    broken = data.draw(st.sampled_from([sound[:at], sound[:at] + other + sound[at:], sound[:at] + other, other]))
    asyncio.run(play([(method, broken)]))
