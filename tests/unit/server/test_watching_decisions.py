"""Watches of decisions: ordered, unique, whole, resumable, bounded, and honest about what they missed."""

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.core.decisions.forgetting import ENDED_KEPT_S
from holdfast.errors import HoldfastError, Reason
from holdfast.service import slices
from holdfast.service.context import CallContext
from holdfast.service.following import SMALL_SNAPSHOT
from holdfast.service.janitor import Janitor
from holdfast.service.room import HOST_MESSAGES_MAX, SMALL_BYTES
from holdfast.service.watching import SNAPSHOT_PAGE
from holdfast.topics import Step
from support.deciding import opened, read, vote
from support.replica import CALL, PARENT, Replica, replica

LARGE = [pb.DecisionOption(id=f"o{number}", description="d" * 1024) for number in range(64)]
"""Options of a decision of some 66 KB."""


@contextlib.asynccontextmanager
async def watching(
    here: Replica, client: str = "", parent: str = PARENT, **fields: object
) -> AsyncIterator[AsyncIterator[pb.WatchDecisionsResponse]]:
    """A watch, closed at the end of the block."""
    request = pb.WatchDecisionsRequest(parent=parent, **fields)
    responses = here.decisions.watch_decisions(request, CallContext("service", "method", "correlation", client))

    async def parsed() -> AsyncIterator[pb.WatchDecisionsResponse]:
        async for each in responses:
            encoded = each if isinstance(each, bytes) else each.SerializeToString()
            yield pb.WatchDecisionsResponse.FromString(encoded)

    async with contextlib.aclosing(responses), contextlib.aclosing(parsed()) as read_out:
        yield read_out


async def watched(
    here: Replica, count: int, start_revision: int = 0, **fields: object
) -> list[pb.WatchDecisionsResponse]:
    """The first messages of a watch."""
    async with asyncio.timeout(10), watching(here, start_revision=start_revision, **fields) as responses:
        return [await anext(responses) for _ in range(count)]


def told(messages: list[pb.WatchDecisionsResponse]) -> list[tuple[int, list[tuple[str, int]]]]:
    """Revisions, with the names and states of the decisions they tell; state 0 of those that are gone."""
    return [(message.revision, [(each.name, each.state) for each in message.events.decisions]) for message in messages]


async def test_a_watch_from_zero_is_a_snapshot_then_changes_as_they_are_read() -> None:
    """W2 to W4: each change is the decision as GetDecision shows it, once, in order; a decision that goes is told."""
    async with replica() as here:
        first = await opened(here, "a b")
        async with watching(here) as responses:
            snapshot = await anext(responses)
            assert (snapshot.revision, snapshot.events.snapshot_end) == (1, True)
            assert list(snapshot.events.decisions) == [first]
            changes = [await vote(here, first, "a"), second := await opened(here), await vote(here, first, "b")]
            for change in changes:
                message = await anext(responses)
                assert (message.revision, message.events.snapshot_end) == (change.revision, False)
                assert list(message.events.decisions) == [change]
            assert await read(here, second) == second
            here.clock.now_s += ENDED_KEPT_S
            await Janitor(here.registry).make_round()
            [gone] = [await anext(responses)]
            revision = here.registry.store.revision
            assert list(gone.events.decisions) == [pb.Decision(name=first.name, revision=revision)]


async def test_an_empty_snapshot_says_that_it_is_one() -> None:
    async with replica() as here:
        [message] = await watched(here, 1)
        assert (message.revision, message.events.snapshot_end, list(message.events.decisions)) == (0, True, [])


async def test_a_large_snapshot_comes_in_parts_of_one_revision() -> None:
    """In the order of names, however many there are, and none is left out."""
    async with replica() as here:
        await asyncio.gather(*(opened(here, "a") for _ in range(SNAPSHOT_PAGE + 1)))
        first, second = await watched(here, 2)
        assert first.revision == second.revision == here.registry.store.revision
        assert [len(first.events.decisions), len(second.events.decisions)] == [SNAPSHOT_PAGE, 1]
        assert [first.events.snapshot_end, second.events.snapshot_end] == [False, True]
        names = [each.name for each in itertools.chain(first.events.decisions, second.events.decisions)]
        assert names == sorted(set(names))


async def test_a_snapshot_message_stays_below_what_clients_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.service.following.PAGE_BYTES_MAX", 150_000)
    async with replica() as here:
        for _ in range(5):
            await opened(here, "a", options=LARGE)
        messages = await watched(here, 3)
        assert [len(each.events.decisions) for each in messages] == [2, 2, 1]
        assert all(each.ByteSize() < 150_000 for each in messages)


async def test_a_page_of_a_list_stays_below_what_clients_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest decision has more than half of it, so what would go beyond comes on the next page."""
    monkeypatch.setattr("holdfast.service.paging.PAGE_BYTES_MAX", 150_000)
    async with replica() as here:
        names = sorted([(await opened(here, "a", options=LARGE)).name for _ in range(5)])
        request, pages = pb.ListDecisionsRequest(parent=PARENT), list[list[str]]()
        while not pages or request.page_token:
            page = await here.decisions.list_decisions(request, CALL)
            assert page.ByteSize() < 150_000
            pages.append([each.name for each in page.decisions])
            request.page_token = page.next_page_token
        assert [len(page) for page in pages] == [2, 2, 1]
        assert list(itertools.chain(*pages)) == names


async def test_what_happens_elsewhere_is_neither_seen_nor_heard() -> None:
    """W1: other namespaces and other kinds of resources neither send nor wake."""
    async with replica() as here, watching(here) as responses:
        await anext(responses)
        waiting = asyncio.ensure_future(anext(responses))
        await asyncio.sleep(0)
        topics = here.registry.view.history.topics
        [arrival] = topics._arrivals.values()
        electors = [pb.Elector(agent="namespaces/other/agents/a")]
        await opened(here, parent="namespaces/other", electors=electors)
        await here.register("a")
        assert not arrival.is_set()
        decision = await opened(here)
        assert told([await waiting]) == [(3, [(decision.name, pb.DECISION_STATE_OPEN)])]


async def test_nothing_is_left_of_watches_that_ended() -> None:
    """Neither places nor what they waited for, in namespaces that nobody uses."""
    async with replica() as here:
        for number in range(10):
            async with watching(here, parent=f"namespaces/n{number}") as responses:
                await anext(responses)
                waiting = asyncio.ensure_future(anext(responses))
                await asyncio.sleep(0)
                assert here.registry.audience.count == 1
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        assert here.registry.audience.count == 0
        assert not here.registry.view.history.topics._arrivals


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["open", "vote a", "vote b", "cancel", "elsewhere"])), max_size=20
    ),
    start=st.integers(0, 20),
)
@settings(max_examples=40, deadline=None)
def test_a_watcher_knows_what_the_service_knows(steps: list[tuple[int, str]], start: int) -> None:
    """W6, W7: wherever it starts, it is told every revision of a decision once, and the last is what is read."""

    async def check() -> None:
        async with replica() as here:
            decisions, expected = dict[int, pb.Decision](), list[pb.Decision]()
            for number, step in steps:
                with contextlib.suppress(HoldfastError, KeyError):
                    if step == "open":
                        decisions[number] = await opened(here, "a b")
                        expected.append(decisions[number])
                    elif step.startswith("vote"):
                        expected.append(await vote(here, decisions[number], step[-1]))
                    elif step == "cancel":
                        request = pb.CancelDecisionRequest(name=decisions[number].name)
                        expected.append((await here.decisions.cancel_decision(request, CALL)).decision)
                    else:
                        await here.register("a")
            begin = min(start, here.registry.store.revision) + 1
            wanted = [each for each in expected if each.revision >= begin]
            messages = await watched(here, len(wanted), begin)
            assert [list(message.events.decisions) for message in messages] == [[each] for each in wanted]
            assert [message.revision for message in messages] == [each.revision for each in wanted]
            [snapshot] = await watched(here, 1)
            latest = {each.name: each for each in expected}
            assert list(snapshot.events.decisions) == [latest[name] for name in sorted(latest)]

    asyncio.run(check())


async def test_a_filter_is_judged_before_and_after_each_change() -> None:
    """W1: what begins to match is told, and what ceases to is told as gone."""
    only = "state = OPEN votes.option:yes"
    async with replica() as here:
        matching, other = await opened(here, "a b"), await opened(here, "a b")
        await vote(here, matching, "a")
        await vote(here, other, "a", "no")
        closed = await vote(here, matching, "b")
        assert closed.state == pb.DECISION_STATE_DECIDED
        await vote(here, other, "b")
        messages = await watched(here, 2, 1, filter=only)
        assert told(messages) == [(3, [(matching.name, pb.DECISION_STATE_OPEN)]), (5, [(matching.name, 0)])]
        assert messages[1].events.decisions[0] == pb.Decision(name=matching.name, revision=5)
        [snapshot] = await watched(here, 1, filter="state = DECIDED")
        assert [each.name for each in snapshot.events.decisions] == [matching.name]


async def test_a_filter_that_cannot_be_read_is_refused() -> None:
    async with replica() as here:
        with pytest.raises(HoldfastError) as refused:
            await watched(here, 1, filter="liveness = LIVE")
        assert refused.value.reason is Reason.INVALID_FIELD
        assert here.registry.audience.count == 0


async def test_progress_is_told_where_nothing_happens_and_where_a_filter_lets_nothing_through() -> None:
    """W5: up to its revision everything has been told."""
    async with asyncio.timeout(10), replica() as here:
        only = "question:never"
        async with watching(here, progress_notify=True, filter=only) as responses:
            assert (await anext(responses)).events.snapshot_end
            await here.register("a")
            await opened(here)
            while (message := await anext(responses)).revision < 2:
                assert message.HasField("progress")
            assert message.HasField("progress")


async def test_a_start_in_the_future_is_refused() -> None:
    async with replica() as here:
        await opened(here)
        with pytest.raises(HoldfastError) as refused:
            await watched(here, 1, 3)
        assert refused.value.reason is Reason.REVISION_FUTURE


async def test_a_start_that_is_compacted_is_reset_and_refused() -> None:
    async with replica() as here:
        for _ in range(30):
            await opened(here)
        await Janitor(here.registry, retain_revisions=10).make_round()
        async with watching(here, start_revision=20) as responses:
            message = await anext(responses)
            assert (message.revision, message.reset.compact_revision) == (20, 21)
            with pytest.raises(HoldfastError) as refused:
                await anext(responses)
            assert refused.value.reason is Reason.REVISION_COMPACTED
        assert len(await watched(here, 10, 21)) == 10


async def test_a_slow_consumer_gets_a_reset_never_a_gap() -> None:
    async with replica() as here, watching(here) as responses:
        await anext(responses)
        for _ in range(100):
            await opened(here)
        await Janitor(here.registry, retain_revisions=10).make_round()
        [message] = [response async for response in responses]
        assert message.reset.compact_revision == 91


async def test_a_quiet_watch_outlives_the_history_of_others() -> None:
    """It has missed nothing, however much of what it never asked for has been dropped."""
    async with replica() as here, watching(here) as responses:
        await anext(responses)
        waiting = asyncio.ensure_future(anext(responses))
        for number in range(100):
            await here.register(f"a{number}")
        await Janitor(here.registry, retain_revisions=10).make_round()
        decision = await opened(here)
        assert told([await waiting]) == [(101, [(decision.name, pb.DECISION_STATE_OPEN)])]


async def test_a_watch_that_is_not_read_holds_on_to_no_history() -> None:
    """It has its position alone, so what is forgotten is gone, whoever stands still before it."""

    def alive() -> int:
        gc.collect()
        return sum(type(each) is Step for each in gc.get_objects())

    async with replica() as here:
        for _ in range(60):
            await opened(here)
        async with watching(here, start_revision=1) as responses:
            await anext(responses)
            before = alive()
            await Janitor(here.registry, retain_revisions=10).make_round()
            assert before - alive() == 50
            assert len(here.registry.view.history.topics._told) == 10


async def test_votes_changed_over_and_over_are_counted_and_the_oldest_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few revisions they are: the bound in bytes is shared with the history of agents."""
    monkeypatch.setattr("holdfast.history.HISTORY_BYTES_MAX", 200_000)
    async with replica() as here:
        history, decision = here.registry.view.history, await opened(here, "a b c", allow_vote_change=True)
        for _ in range(100):
            await vote(here, decision, "a", rationale="r" * 2000)
            assert history.size_bytes <= 200_000
        assert history.size_bytes > 100_000
        assert history.start > 50
        assert history.topics.start == history.start
        assert len(history.topics._told) == history.end - history.start


async def test_large_changes_wait_for_those_that_nobody_reads() -> None:
    """What waits for room is not held, so it may be gone by then: a reset, never a gap."""
    async with replica() as here, contextlib.AsyncExitStack() as held:
        here.registry.audience.watchers_max = 100
        history, room = here.registry.view.history, here.registry.audience.room
        for _ in range(HOST_MESSAGES_MAX):
            await held.enter_async_context(room.taken("one", SMALL_BYTES + 1))
        large = await opened(here, "a", options=LARGE)
        async with asyncio.timeout(10), watching(here, "one", start_revision=1) as behind:
            waiting = asyncio.ensure_future(anext(behind))
            async with watching(here, "other", start_revision=1) as elsewhere:
                assert (await anext(elsewhere)).events.decisions[0].name == large.name
            while not room._asking["one"] > HOST_MESSAGES_MAX:  # noqa: ASYNC110 - it is a count
                await asyncio.sleep(0)
            history.forget(history.end)
            await held.aclose()
            assert (await waiting).HasField("reset")


async def test_a_large_snapshot_is_of_the_revision_at_which_there_is_room_for_it() -> None:
    """W7: what happened while it waited is in it, and what follows comes after it."""
    async with replica() as here, contextlib.AsyncExitStack() as held:
        here.registry.audience.watchers_max = 100
        room = here.registry.audience.room
        for _ in range(HOST_MESSAGES_MAX):
            await held.enter_async_context(room.taken("one", SMALL_BYTES + 1))
        for _ in range(SMALL_SNAPSHOT + 1):
            await opened(here, "a")
        async with asyncio.timeout(10), watching(here, "one") as responses:
            waiting = asyncio.ensure_future(anext(responses))
            while not room._asking["one"] > HOST_MESSAGES_MAX:  # noqa: ASYNC110 - it is a count
                await asyncio.sleep(0)
            last = await opened(here, "a")
            await held.aclose()
            snapshot = await waiting
            assert snapshot.revision == last.revision
            assert len(snapshot.events.decisions) == SMALL_SNAPSHOT + 2
            after = await opened(here, "a")
            assert told([await anext(responses)]) == [(after.revision, [(after.name, pb.DECISION_STATE_OPEN)])]


async def test_others_have_their_turn_during_a_snapshot_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "COST_AT_ONCE", 5)
    async with replica() as here:
        for _ in range(50):
            await opened(here, "a")
        async with watching(here) as responses:
            snapshot, turns = asyncio.ensure_future(anext(responses)), 0
            while not snapshot.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns >= 10


async def test_watches_of_all_kinds_are_bounded_together() -> None:
    async with replica() as here:
        async with watching(here) as one, watching(here, parent="namespaces/other") as other:
            await anext(one)
            await anext(other)
            assert here.registry.audience.count == 2
            for attempt in (here.watch(1), watched(here, 1)):
                with pytest.raises(HoldfastError) as refused:
                    await attempt
                assert refused.value.reason is Reason.QUOTA_EXCEEDED
        assert here.registry.audience.count == 0


async def test_watchers_of_one_topic_share_what_is_serialised() -> None:
    async with replica() as here:
        here.registry.audience.watchers_max = 100
        async with contextlib.AsyncExitStack() as running:
            request = pb.WatchDecisionsRequest(parent=PARENT)
            streams = [here.decisions.watch_decisions(request, CALL) for _ in range(3)]
            for stream in streams:
                await running.enter_async_context(contextlib.aclosing(stream))
                await anext(stream)
            await opened(here)
            first, *others = [await anext(stream) for stream in streams]
            assert isinstance(first, bytes)
            assert all(each is first for each in others)


async def test_what_is_kept_for_sharing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.topics.KEPT_BYTES_MAX", 20_000)
    async with replica() as here:
        for _ in range(100):
            await opened(here)
        topics = here.registry.view.history.topics
        for only in ("", "state = OPEN", "question:ship"):
            await watched(here, 100, 1, filter=only)
            assert 10_000 < topics.responses.size_bytes <= 20_000
        assert 10_000 < topics.messages.size_bytes <= 20_000
