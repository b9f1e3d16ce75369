"""What is kept of activations: over a restart, beside another replica, and after their end."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.core.activations import creating, forgetting, owning, retrying
from holdfast.errors import HoldfastError, Reason
from holdfast.service.context import CallContext
from holdfast.service.janitor import Janitor
from holdfast.serving.activation_metrics import ActivationMetrics
from support.activating import ASSIGNED, BACKOFF, DEAD, PENDING, RUNNING, SUCCEEDED, TIMED_OUT, refused, working
from support.engines import new_store
from support.replica import PARENT, Clock, replica
from support.working import Work, agent, in_s, policy

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


async def test_all_outlive_a_restart() -> None:
    """A replica built from the store goes on where the other ended: states, fences, timers."""
    store, clock = new_store(), Clock()
    async with working(store, clock) as (here, work):
        await work.hire("a", slots=2)
        running = await work.started(deadline=in_s(here, 50))
        waiting = await work.fail(await work.started(retry_policy=policy(3, 20, 20), deadline=in_s(here, 50)))
    async with working(store, clock) as (here, work):
        assert (await work.heartbeat(running)).state == RUNNING
        assert (await work.read(waiting)).state == BACKOFF
        await here.pass_time(21)
        assert (await work.read(waiting)).state == ASSIGNED
        await here.pass_time(31)
        assert {(await work.read(each)).state for each in (running, waiting)} == {TIMED_OUT}


async def test_two_replicas_never_give_away_one_slot_twice() -> None:
    """X4: both see the same free slot at the same moment."""
    store, clock = new_store(), Clock()
    async with replica(store, clock) as one, replica(store, clock) as two:
        await Work(one).hire("a", slots=2)
        created = [
            (
                await here.activations.create_activation(
                    pb.CreateActivationRequest(parent=PARENT, activation=pb.Activation()),
                    CallContext("service", "method", "c"),
                )
            ).activation
            for here in (one, two, one, two, one)
        ]
        for each in (one, two):
            await each.registry.view.reached(store.revision)
        await asyncio.gather(one.dispatcher.make_round(), two.dispatcher.make_round())
        for each in (one, two):
            await each.settle()
        states = [(await Work(two).read(each)).state for each in created]
        assert (states.count(ASSIGNED), states.count(PENDING)) == (2, 3)
        assert one.registry.view.slots_held(agent("a")) == two.registry.view.slots_held(agent("a")) == 2


async def test_of_those_who_end_it_at_the_same_moment_one_does() -> None:
    async with working() as (_here, work):
        await work.hire("a")
        running = await work.started()
        outcomes = await asyncio.gather(
            work.complete(running), work.fail(running), work.cancel(running), return_exceptions=True
        )
        refusals = [each for each in outcomes if isinstance(each, HoldfastError)]
        assert [each.reason for each in refusals] == [Reason.ACTIVATION_CLOSED] * 2


async def test_ended_ones_are_forgotten_and_dead_letters_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with working() as (here, work):
        await work.hire("a")
        done = await work.complete(await work.started())
        dead = await work.fail(await work.started(retry_policy=policy(1)))
        janitor = Janitor(here.registry)
        here.clock.now_s += forgetting.ENDED_KEPT_S - 1
        await janitor.make_round()
        assert (await work.read(done)).state == SUCCEEDED
        here.clock.now_s += 2
        await janitor.make_round()
        async with refused(Reason.ACTIVATION_NOT_FOUND, here):
            await work.read(done)
        assert (await work.read(dead)).state == DEAD
        here.clock.now_s += forgetting.DEAD_KEPT_S
        await janitor.make_round()
        async with refused(Reason.ACTIVATION_NOT_FOUND, here):
            await work.read(dead)


async def test_of_too_many_ended_ones_the_first_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "ENDED_MAX", 2)
    async with working() as (here, work):
        await work.hire("a")
        ended = [await work.complete(await work.started()) for _ in range(4)]
        await Janitor(here.registry).make_round()
        left = [entry.name for entry in here.registry.view.activations.after(PARENT)]
        assert left == sorted(each.name for each in ended[2:])


async def test_what_is_known_of_agents_that_are_gone_is_forgotten() -> None:
    async with working() as (here, work):
        await work.hire("a")
        await work.complete(await work.started())
        await Janitor(here.registry).make_round()
        assert here.registry.view.work(agent("a")) is not None
        await here.deregister("a")
        await Janitor(here.registry).make_round()
        assert here.registry.view.work(agent("a")) is None


async def test_lists_are_filtered_and_paged_and_leave_out_payloads() -> None:
    async with working() as (_here, work):
        await work.hire("a")
        created = [await work.create(payload=b"p", requester=f"r{number % 2}") for number in range(6)]
        request = pb.ListActivationsRequest(parent=PARENT, page_size=2, filter="requester = r1")
        found: list[pb.Activation] = []
        while True:
            page = await work._ask("list_activations", request)
            found += page.activations
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert [each.name for each in found] == sorted(each.name for each in created[1::2])
        assert {each.payload for each in found} == {b""}


def test_what_the_core_says_is_pure() -> None:
    """Nothing of it asks for the time or for chance."""
    for module in (creating, owning, retrying):
        assert not {"time", "random", "secrets", "asyncio"} & set(vars(module))


async def test_each_step_is_counted_once_and_what_there_is_is_shown() -> None:
    registry = CollectorRegistry()
    metrics = ActivationMetrics(registry)
    async with working() as (here, work):
        metrics.observe(here.registry.view.activations, here.registry.view.breakers)
        here.registry.view.activations.on_changed = metrics.changed
        await work.hire("a")
        running = await work.started(retry_policy=policy(2, 0.01))
        await here.pass_time(3)
        await work.fail(running, reason="whatever an owner says")
        await here.pass_time(0.4)
        await work.complete(await work.accept(await work.read(running)))
        await work.create()

        def sample(name: str, **labels: str) -> float:
            value = registry.get_sample_value(name, labels)
            assert value is not None, name
            return value

        assert sample("holdfast_activations_ended_total", state="succeeded") == 1
        assert sample("holdfast_activations_ended_total", state="failed") == 0
        assert sample("holdfast_activation_failures_total", reason="OWNER") == 1
        assert sample("holdfast_activation_attempts_sum") == 2
        assert sample("holdfast_activation_start_seconds_count") == 1
        assert 3 <= sample("holdfast_activation_seconds_sum", state="succeeded") < 4
        assert sample("holdfast_activations", state="assigned") == 1
        assert sample("holdfast_breakers", state="open") == 0
