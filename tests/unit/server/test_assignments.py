"""What agents hear of their assignments: all that is theirs, each change of it once, and answers to what they say."""

import asyncio
import contextlib

import pytest
from google.rpc import code_pb2  # type: ignore[import-untyped]

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.errors import HoldfastError, Reason
from holdfast.service.assignments import ANSWERS_WAITING_MAX
from support.assignment_line import WAIT_S, Line, line
from support.replica import CALL, PARENT, replica
from support.working import Work, agent, in_s

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


async def test_a_whole_life_on_a_stream() -> None:
    """Accepting, heartbeats and completing are answered in order; what the agent gives up itself is not revoked."""
    async with replica() as here, line(here) as stream:
        work = Work(here)
        await work.hire("a")
        await work.create(payload=b"\x01")
        assigned = await stream.assignment()
        assert (assigned.payload, assigned.attempt) == (b"\x01", 1)
        key = {"name": assigned.name, "fence": assigned.fence}
        stream.say(accept=pb.AcceptActivationRequest(**key))
        assert (await stream.answer()).activation.state == pb.ACTIVATION_STATE_RUNNING
        stream.say(heartbeat=pb.HeartbeatActivationRequest(**key, progress=pb.ActivationProgress(percent=5)))
        assert (await stream.answer()).activation.progress.percent == 5
        stream.say(complete=pb.CompleteActivationRequest(**key, result=b"r"))
        assert (await stream.answer()).activation.state == pb.ACTIVATION_STATE_SUCCEEDED
        assert await stream.is_quiet()


async def test_on_opening_all_that_is_the_agents_comes_first() -> None:
    """What runs, too: an agent that lost its stream finds its work again."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a", slots=3)
        running = await work.started()
        assigned = [await work.create() for _ in range(2)]
        async with line(here) as stream:
            heard = [await stream.assignment() for _ in range(3)]
            assert {each.name for each in heard} == {running.name, *(each.name for each in assigned)}
            assert {each.state for each in heard} == {pb.ACTIVATION_STATE_RUNNING, pb.ACTIVATION_STATE_ASSIGNED}
            assert await stream.is_quiet()


@pytest.mark.parametrize("how", ["cancel", "deadline", "other call"])
async def test_what_is_taken_away_is_revoked(how: str) -> None:
    async with replica() as here, line(here) as stream:
        work = Work(here)
        await work.hire("a")
        running = await work.started(deadline=in_s(here, 9))
        assert (await stream.assignment()).name == running.name
        match how:
            case "cancel":
                await work.cancel(running)
            case "deadline":
                await here.pass_time(10)
            case _:
                await work.complete(running)
        revocation = (await stream.hear()).revocation
        assert (revocation.activation, revocation.fence) == (running.name, running.fence)
        assert revocation.state == (await work.read(running)).state


async def test_a_refusal_is_an_answer_and_the_stream_goes_on() -> None:
    async with replica() as here, line(here) as stream:
        work = Work(here)
        await work.hire("a")
        assigned = await work.create()
        current = await stream.assignment()
        stream.say(complete=pb.CompleteActivationRequest(name=assigned.name, fence=current.fence))
        stream.say(accept=pb.AcceptActivationRequest(name=assigned.name, fence=1))
        stream.say(accept=pb.AcceptActivationRequest(name="nonsense", fence=1))
        stream.say(accept=pb.AcceptActivationRequest(name=assigned.name, fence=current.fence))
        answers = [await stream.answer() for _ in range(4)]
        assert [each.reason for each in answers] == ["ACTIVATION_STATE_CONFLICT", "FENCE_STALE", "INVALID_FIELD", ""]
        assert [each.code for each in answers] == [
            code_pb2.FAILED_PRECONDITION,
            code_pb2.FAILED_PRECONDITION,
            code_pb2.INVALID_ARGUMENT,
            0,
        ]
        assert await stream.is_quiet()


async def test_only_the_first_message_opens() -> None:
    async with replica() as here:
        await Work(here).hire("a")
        async with line(here) as stream:
            stream.say(open=pb.AssignmentsOpening(agent=agent("a")))
            with pytest.raises(HoldfastError) as caught:
                await stream.hear()
            assert caught.value.field_violations[0].field == "open"
        unopened = Line(here)
        unopened._said.get_nowait()
        unopened.say(accept=pb.AcceptActivationRequest(name=f"{PARENT}/activations/x", fence=1))
        with pytest.raises(HoldfastError) as caught:
            await unopened.hear()
        assert caught.value.field_violations[0].field == "open"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("expire", Reason.AGENT_NOT_FOUND),
        ("deregister", Reason.AGENT_NOT_FOUND),
        ("ban", Reason.AGENT_BANNED),
        ("take over", Reason.FENCE_STALE),
    ],
)
async def test_with_its_agent_the_stream_ends(how: str, reason: Reason) -> None:
    async with replica() as here, line(here) as stream:
        first = await here.register("a", ttl_s=2)
        hearing = asyncio.ensure_future(stream.hear())
        while not here.registry.audience.count:  # noqa: ASYNC110 - the stream's own steps, no time
            await asyncio.sleep(0)
        match how:
            case "expire":
                await here.pass_time(4)
            case "deregister":
                await here.deregister("a")
            case "ban":
                await here.rule("ban", "a")
            case _:
                await here.register("a", fence=first.fence)
        with pytest.raises(HoldfastError) as caught:
            await hearing
        assert caught.value.reason is reason
        assert here.registry.audience.count == 0
        assert not here.registry.view.activations._bells


async def test_who_may_not_hear_is_refused() -> None:
    async with replica() as here:
        with pytest.raises(HoldfastError) as caught:
            await Line(here, "nobody").hear()
        assert caught.value.reason is Reason.AGENT_NOT_FOUND
        await Work(here).hire("a")
        for refusal in (Line(here, "a", fence=1).hear(), Work(here).fetch("a", fence=1)):
            with pytest.raises(HoldfastError) as caught:
                await refusal
            assert caught.value.reason is Reason.FENCE_STALE


async def test_one_replica_has_so_many_listeners() -> None:
    async with replica() as here:
        await Work(here).hire("a", "b")
        await Work(here).create()
        async with line(here) as one, line(here) as two:
            await asyncio.gather(one.assignment(), two.assignment())
            with pytest.raises(HoldfastError) as caught:
                await Work(here).fetch("b", wait_s=60)
            assert caught.value.reason is Reason.QUOTA_EXCEEDED


async def test_an_agent_that_reads_no_answers_is_not_read_either() -> None:
    """What it says waits in its own connection."""
    async with replica() as here, line(here) as stream:
        work = Work(here)
        await work.hire("a")
        await work.create()
        assigned = await stream.assignment()
        for _ in range(3 * ANSWERS_WAITING_MAX):
            stream.say(accept=pb.AcceptActivationRequest(name=assigned.name, fence=assigned.fence))
        for _ in range(500):
            await asyncio.sleep(0)
        assert stream._said.qsize() >= 2 * ANSWERS_WAITING_MAX - 2
        for _ in range(3 * ANSWERS_WAITING_MAX):
            assert (await stream.answer()).code == 0


async def test_a_poller_waits_for_its_first_assignment() -> None:
    """And gets the same again until it accepts: an answer that was lost costs nothing."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a", slots=3)
        waiting = asyncio.ensure_future(work.fetch("a", 3, wait_s=60))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        created = await work.create()
        assert [each.name for each in await waiting] == [created.name]
        assert [each.name for each in await work.fetch("a", 3)] == [created.name]
        more = [await work.create() for _ in range(2)]
        assert len(await work.fetch("a")) == 1
        assert {each.name for each in await work.fetch("a", 3)} == {created.name, *(each.name for each in more)}
        await work.accept(await work.read(created))
        assert {each.name for each in await work.fetch("a", 3)} == {each.name for each in more}


async def test_a_poller_that_waits_in_vain_hears_nothing() -> None:
    async with replica() as here:
        await Work(here).hire("a")
        assert await Work(here).fetch("a", wait_s=0.01) == []
        assert here.registry.audience.count == 0


async def test_watches_tell_every_state_in_order_and_losses_at_the_revision_of_the_lease() -> None:
    """Without payloads; each revision once."""
    async with replica() as here:
        work = Work(here)
        await work.hire("a")
        start = here.registry.store.revision + 1
        running = await work.started(payload=b"p")
        lost_at = await here.revoke((await here.get("a")).lease)
        await here.settle()
        request = pb.WatchActivationsRequest(parent=PARENT, start_revision=start)
        told: list[tuple[int, int]] = []
        async with (
            asyncio.timeout(WAIT_S),
            contextlib.aclosing(
                here.activations.watch_activations(request, CALL)  # type: ignore[type-var]
            ) as responses,
        ):
            async for response in responses:
                encoded = response if isinstance(response, bytes) else response.SerializeToString()
                step = pb.WatchActivationsResponse.FromString(encoded)
                (activation,) = step.events.activations
                assert (activation.name, activation.payload) == (running.name, b"")
                assert activation.revision == step.revision
                told.append((step.revision, activation.state))
                if len(told) == 5:
                    break
        assert [state for _, state in told] == [
            pb.ACTIVATION_STATE_PENDING,
            pb.ACTIVATION_STATE_ASSIGNED,
            pb.ACTIVATION_STATE_RUNNING,
            pb.ACTIVATION_STATE_BACKOFF,
            pb.ACTIVATION_STATE_BACKOFF,
        ]
        assert [revision for revision, _ in told] == [start, start + 1, start + 2, lost_at, lost_at + 1]
