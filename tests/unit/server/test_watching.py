"""Watches: ordered, unique, whole, resumable, and honest about what they missed."""

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.state import AgentEntry
from holdfast.errors import HoldfastError, Reason
from holdfast.filtering import compile_filter
from holdfast.history import Step
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentEventType,
    ListAgentsRequest,
    WatchAgentsRequest,
    WatchAgentsResponse,
    WatchResetReason,
)
from holdfast.service.janitor import Janitor
from holdfast.service.room import HOST_MESSAGES_MAX
from holdfast.service.watching import SNAPSHOT_PAGE
from holdfast.store.sqlite import SqliteStore
from support.replica import CALL, PARENT, Replica, replica

ADDED, MODIFIED, EXPIRED, DELETED = (
    AgentEventType.AGENT_EVENT_TYPE_ADDED,
    AgentEventType.AGENT_EVENT_TYPE_MODIFIED,
    AgentEventType.AGENT_EVENT_TYPE_EXPIRED,
    AgentEventType.AGENT_EVENT_TYPE_DELETED,
)


def kinds(messages) -> list[tuple[int, list[tuple[int, str]]]]:
    return [
        (message.revision, [(event.type, event.agent.name.rsplit("/", 1)[1]) for event in message.events.events])
        for message in messages
    ]


async def test_a_watch_from_zero_is_a_snapshot_then_changes() -> None:
    async with replica() as here:
        await here.register("a")
        watch = asyncio.create_task(here.watch(4))
        await asyncio.sleep(0.01)
        await here.register("b", ttl_s=1)
        await here.deregister("a")
        await here.pass_time(1.3)
        messages = await watch
        assert kinds(messages) == [
            (1, [(ADDED, "a")]),
            (2, [(ADDED, "b")]),
            (3, [(DELETED, "a")]),
            (4, [(EXPIRED, "b")]),
        ]
        assert [message.events.snapshot_end for message in messages] == [True, False, False, False]


async def test_an_empty_snapshot_says_that_it_is_one() -> None:
    async with replica() as here:
        [message] = await here.watch(1)
        assert (message.revision, message.events.snapshot_end, list(message.events.events)) == (0, True, [])


async def test_a_large_snapshot_comes_in_parts_of_one_revision() -> None:
    async with replica() as here:
        lease = await here.grant()
        many = [f"a{number:04}" for number in range(SNAPSHOT_PAGE + 1)]
        await asyncio.gather(*(here.register(name, agent=Agent(lease=lease.name)) for name in many))
        first, second = await here.watch(2)
        assert first.revision == second.revision == here.registry.store.revision
        assert [len(first.events.events), len(second.events.events)] == [SNAPSHOT_PAGE, 1]
        assert [first.events.snapshot_end, second.events.snapshot_end] == [False, True]


async def test_other_namespaces_are_not_seen() -> None:
    """W1."""
    async with replica() as here:
        await here.register("a", parent="namespaces/other")
        await here.register("b")
        await here.register("c", parent="namespaces/other")
        await here.register("d")
        assert kinds(await here.watch(2, start_revision=1)) == [(2, [(ADDED, "b")]), (4, [(ADDED, "d")])]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["register", "deregister", "expire"])), max_size=15
    ),
    start=st.integers(0, 15),
)
@settings(max_examples=40, deadline=None)
def test_a_watcher_knows_what_the_registry_knows(steps: list[tuple[str, str]], start: int) -> None:
    """W2 to W4, W6, W7: wherever it starts, a watcher sees each revision once, in order, and ends with the list."""

    async def check() -> None:
        async with replica() as here:
            for agent_id, step in steps:
                with contextlib.suppress(HoldfastError):
                    if step == "register":
                        await here.register(agent_id)
                    elif step == "deregister":
                        await here.deregister(agent_id)
                    else:
                        await here.revoke((await here.get(agent_id)).lease)
            everything = await watch_to_the_end(here, 1)
            revisions = [revision for revision, _ in everything]
            assert revisions == sorted(set(revisions))
            known: set[str] = set()
            for _, events in everything:
                for kind, name in events:
                    known = known | {name} if kind == ADDED else known - {name}
            assert sorted(known) == await here.listed()
            begin = min(start, here.registry.store.revision) + 1
            assert await watch_to_the_end(here, begin) == [one for one in everything if one[0] >= begin]

    asyncio.run(check())


async def watch_to_the_end(
    here: Replica, start_revision: int, only: str = ""
) -> list[tuple[int, list[tuple[int, str]]]]:
    """What a watch sends until a mark that is set for it."""
    mark = f"mark{here.registry.store.revision}"
    only = f"({only}) OR name:mark" if only else ""
    await here.register(mark)
    count, found = 1, await here.watch(1, start_revision, filter=only)
    while found[-1].events.events[0].agent.name != f"{PARENT}/agents/{mark}":
        count += 1
        found = await here.watch(count, start_revision, filter=only)
    await here.deregister(mark)
    return [one for one in kinds(found) if not one[1][0][1].startswith("mark")]


async def test_progress_tells_how_far_a_quiet_watch_is() -> None:
    """W5."""
    async with replica() as here:
        await here.register("a", parent="namespaces/other")
        messages = await here.watch(3, start_revision=1, progress_notify=True)
        assert [message.WhichOneof("step") for message in messages] == ["progress"] * 3
        assert [message.revision for message in messages] == [1, 1, 1]


async def test_progress_is_told_while_others_are_busy() -> None:
    """A namespace where nothing happens must not lose its place in the history to those where much does."""
    async with replica() as here:
        await here.register("a", parent="namespaces/other")

        async def be_busy() -> None:
            for number in itertools.count():
                await here.register(f"busy-{number}", parent="namespaces/other")
                await asyncio.sleep(0.005)

        others = asyncio.create_task(be_busy())
        try:
            messages = await here.watch(3, start_revision=1, progress_notify=True)
        finally:
            others.cancel()
            await asyncio.gather(others, return_exceptions=True)
        assert [message.WhichOneof("step") for message in messages] == ["progress"] * 3
        revisions = [message.revision for message in messages]
        assert revisions[0] < revisions[1] < revisions[2]


async def test_a_watch_resumes_across_a_restart(tmp_path: Path) -> None:
    """W6: the history is the store's, not the process's."""
    store = SqliteStore(tmp_path / "h.db")
    await store.open()
    async with replica(store) as before:
        for number in range(30):
            await before.register(f"a{number}")
        await before.deregister("a3")
        await store.compact(10)
        expected = kinds(await before.watch(21, start_revision=11))
    await store.close()
    again = SqliteStore(tmp_path / "h.db")
    await again.open()
    async with replica(again) as after:
        assert kinds(await after.watch(21, start_revision=11)) == expected
        assert len(await after.listed()) == 29
    await again.close()


async def test_a_start_in_dropped_history_is_reset_and_refused() -> None:
    async with replica() as here:
        for number in range(30):
            await here.register(f"a{number}")
        await Janitor(here.registry, retain_revisions=10).make_round()
        request = WatchAgentsRequest(parent=PARENT, start_revision=20)
        responses = here.agents.watch_agents(request, CALL)
        reset = (await anext(responses)).reset
        assert (reset.reason, reset.compact_revision) == (WatchResetReason.WATCH_RESET_REASON_COMPACTED, 21)
        with pytest.raises(HoldfastError) as refused:
            await anext(responses)
        assert refused.value.reason is Reason.REVISION_COMPACTED
        assert len(await here.watch(10, start_revision=21)) == 10


async def test_a_start_in_the_future_is_refused() -> None:
    async with replica() as here:
        await here.register("a")
        with pytest.raises(HoldfastError) as refused:
            await here.watch(1, start_revision=3)
        assert refused.value.reason is Reason.REVISION_FUTURE


async def test_a_slow_consumer_gets_a_reset_never_a_gap() -> None:
    async with replica() as here:
        responses = here.agents.watch_agents(WatchAgentsRequest(parent=PARENT), CALL)
        await anext(responses)
        for number in range(1000):
            await here.register(f"a{number}", parent=PARENT if number % 2 else "namespaces/other")
        await Janitor(here.registry, retain_revisions=10).make_round()
        [*_, last] = [response async for response in responses]
        assert last.reset.reason == WatchResetReason.WATCH_RESET_REASON_SLOW_CONSUMER
        assert last.reset.compact_revision == 991
        assert here.registry.audience.count == 0


def alive(kind: type) -> int:
    """How many objects of a type there are."""
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


async def test_a_watch_that_is_not_read_holds_on_to_no_history() -> None:
    """It has its position alone, so what is forgotten is gone, whoever stands still before it."""
    async with replica() as here:
        for number in range(300):
            await here.register(f"a{number}")
        responses = here.agents.watch_agents(WatchAgentsRequest(parent=PARENT, start_revision=1), CALL)
        await anext(responses)
        before = alive(Step)
        await Janitor(here.registry, retain_revisions=10).make_round()
        assert before - alive(Step) == 290
        await responses.aclose()


async def test_a_watch_holds_on_to_nothing_of_its_snapshot() -> None:
    async with replica() as here:
        for number in range(20):
            await here.register(f"a{number}")
        responses = here.agents.watch_agents(WatchAgentsRequest(parent=PARENT), CALL)
        await anext(responses)
        waiting = asyncio.ensure_future(anext(responses))
        before = alive(AgentEntry)
        for number in range(20):
            await here.deregister(f"a{number}")
        await waiting
        assert before - alive(AgentEntry) == 20
        await responses.aclose()


async def test_a_history_that_takes_too_much_drops_its_oldest_and_wakes_the_janitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few revisions they are, here and in the store; who stands in what was dropped gets a reset."""
    monkeypatch.setattr("holdfast.history.HISTORY_BYTES_MAX", 1_000_000)
    large = {"capabilities": [{"id": f"c{number}", "tags": ["t" * 60] * 8} for number in range(64)]}
    async with replica() as here:
        store, history = here.registry.store, here.registry.view.history
        janitor = asyncio.create_task(Janitor(here.registry).run(every_s=3600))
        await here.register("a", agent=large)
        stuck = here.agents.watch_agents(WatchAgentsRequest(parent=PARENT), CALL)
        await anext(stuck)
        for number in range(100):
            await here.update("a", {"domain": f"d{number}"}, "domain")
            assert history.size_bytes <= 1_000_000
        assert history.size_bytes == sum(step.held_bytes for step in history.after(history.start, 1000)) > 500_000
        async with asyncio.timeout(10):
            while store.compact_revision < history.start:  # noqa: ASYNC110 - it sets no event when it is done
                await asyncio.sleep(0)
        assert 50 < store.compact_revision == history.start
        assert [each.reset.reason async for each in stuck] == [WatchResetReason.WATCH_RESET_REASON_SLOW_CONSUMER]
        assert kinds(await here.watch(1, history.start + 1)) == [(history.start + 1, [(MODIFIED, "a")])]
        janitor.cancel()


async def test_an_agent_registered_and_removed_over_and_over_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody holds but the history counts, whatever made it so: removal, expiry, succession, a decision."""
    monkeypatch.setattr("holdfast.history.HISTORY_BYTES_MAX", 100_000_000)
    agent = {"display_name": "x" * 200}
    async with replica() as here:
        history = here.registry.view.history
        first = await here.register("a", agent=agent)
        assert history.size_bytes == 0, "it lives, and is held for that"
        held = [history.size_bytes]
        await here.register("a", agent=agent, fence=first.fence)
        held.append(history.size_bytes)
        await here.rule("cordon", "a")
        held.append(history.size_bytes)
        await here.revoke((await here.get("a")).lease)
        held.append(history.size_bytes)
        await here.deregister("a")
        held.append(history.size_bytes)
        grown = [after - before for before, after in itertools.pairwise(held)]
        assert all(1200 < each < 2500 for each in grown[:-1]), grown
        assert 2400 < grown[-1] < 5000, "before, and as it last was"
        history.forget(history.end)
        assert history.size_bytes == 0


async def test_a_large_change_that_is_dropped_before_there_is_room_ends_in_a_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits for room is not held, so it may be gone by then."""
    monkeypatch.setattr("holdfast.service.watching.SMALL_BYTES", 10)
    async with replica() as here:
        agents, history = here.agents, here.registry.view.history
        held = contextlib.AsyncExitStack()
        for _ in range(HOST_MESSAGES_MAX):
            await held.enter_async_context(here.registry.audience.room.taken("", 1 << 20))
        await here.register("a", agent={"labels": {f"l{number}": "x" * 256 for number in range(64)}})
        request = WatchAgentsRequest(parent=PARENT, start_revision=1)
        waiting = asyncio.ensure_future(anext(agents.watch_agents(request, CALL)))
        async with asyncio.timeout(10):
            while not here.registry.audience.room._asking[""] > HOST_MESSAGES_MAX:  # noqa: ASYNC110 - it is a count
                await asyncio.sleep(0)
        history.forget(history.end)
        await held.aclose()
        assert (await waiting).reset.reason == WatchResetReason.WATCH_RESET_REASON_SLOW_CONSUMER


async def test_watches_are_bounded_and_counted() -> None:
    async with replica() as here:
        running = [here.agents.watch_agents(WatchAgentsRequest(parent=PARENT), CALL) for _ in range(2)]
        for watch in running:
            await anext(watch)
        assert here.registry.audience.count == 2
        with pytest.raises(HoldfastError) as refused:
            await here.watch(1)
        assert refused.value.reason is Reason.QUOTA_EXCEEDED
        for watch in running:
            await watch.aclose()
        assert here.registry.audience.count == 0
        await here.watch(1)


async def test_a_filter_is_judged_before_and_after_each_change() -> None:
    """W1: who begins to match is ADDED, who ceases to is DELETED with what it was; the others are not told."""
    async with replica() as here:
        await here.register("in", agent={"labels": {"team": "core"}})
        await here.register("out", agent={"labels": {"team": "edge"}})
        watch = asyncio.create_task(here.watch(5, filter="labels.team = core"))
        await asyncio.sleep(0.01)
        await here.update("out", {"domain": "x"}, "domain")
        await here.update("out", {"labels": {"team": "core"}}, "labels")
        await here.update("in", {"labels": {"team": "edge"}}, "labels")
        await here.deregister("in")
        await here.register("new")
        await here.deregister("out")
        await here.register("late", agent={"labels": {"team": "core"}})
        messages = await watch
        assert kinds(messages) == [
            (2, [(ADDED, "in")]),
            (4, [(ADDED, "out")]),
            (5, [(DELETED, "in")]),
            (8, [(DELETED, "out")]),
            (9, [(ADDED, "late")]),
        ]
        assert not messages[1].events.events[0].HasField("previous")
        gone = messages[2].events.events[0]
        assert (gone.previous.labels["team"], gone.agent.labels["team"]) == ("core", "edge")


async def test_an_expiry_is_told_as_what_it_is_to_the_filter() -> None:
    """EXPIRED where the agent still matches; DELETED or ADDED where the filter asks who lives or does not."""
    async with replica() as here:
        await here.register("a", ttl_s=1)
        await here.pass_time(1.3)
        told = {"lease:*": EXPIRED, "liveness = LIVE": DELETED, "liveness = EXPIRED": ADDED}
        for only, kind in told.items():
            assert kinds(await here.watch(1, start_revision=2, filter=only)) == [(2, [(kind, "a")])]


async def test_a_new_incarnation_that_does_not_match_takes_the_old_one_back() -> None:
    """Without that, whoever follows with a filter would keep an incarnation that is no more."""
    async with replica() as here:
        first = await here.register("a", agent={"labels": {"team": "core"}})
        await here.register("a", agent={"labels": {"team": "edge"}}, fence=first.fence)
        await here.register("b", agent={"labels": {"team": "core"}})
        messages = await here.watch(3, start_revision=1, filter="labels.team = core")
        assert [kind for _, [(kind, _)] in kinds(messages)] == [ADDED, DELETED, ADDED]
        taken_back = messages[1].events.events[0]
        assert (taken_back.agent.uid, taken_back.agent.revision) == (first.uid, 2)
        assert not taken_back.HasField("previous")


TEAMS = ("core", "edge")
STEPS = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["register", "deregister", "expire", "move", "cordon", "uncordon"]),
    st.sampled_from(TEAMS),
)


@given(
    steps=st.lists(STEPS, max_size=15),
    start=st.integers(0, 15),
    only=st.sampled_from(
        [
            "labels.team = core liveness:*",
            "labels.team = core liveness = LIVE",
            "liveness = EXPIRED",
            "admin_state = CORDONED liveness:*",
            "NOT labels.team = edge liveness = LIVE",
        ]
    ),
)
@settings(max_examples=80, deadline=None)
def test_who_follows_a_filter_knows_what_a_list_with_it_says(
    steps: list[tuple[str, str, str]], start: int, only: str
) -> None:
    """Nobody changes or is DELETED before having been ADDED; in the end, it is the list's answer."""

    async def check() -> None:
        async with replica() as here:
            for agent_id, step, team in steps[:start]:
                await _step(here, agent_id, step, team)
            known = set(await here.listed(only))
            begin = here.registry.store.revision + 1
            for agent_id, step, team in steps[start:]:
                await _step(here, agent_id, step, team)
            for _, events in await watch_to_the_end(here, begin, only):
                for kind, name in events:
                    assert kind == ADDED or name in known
                    known = known - {name} if kind == DELETED else known | {name}
            assert sorted(known) == await here.listed(only)

    asyncio.run(check())


async def _step(here: Replica, agent_id: str, step: str, team: str) -> None:
    agent = {"labels": {"team": team}}
    with contextlib.suppress(HoldfastError):
        if step == "register":
            await here.register(agent_id, agent=agent)
        elif step == "deregister":
            await here.deregister(agent_id)
        elif step == "expire":
            await here.revoke((await here.get(agent_id)).lease)
        elif step == "move":
            await here.update(agent_id, agent, "labels")
        else:
            await here.rule(step, agent_id)
        await here.settle()


@contextlib.asynccontextmanager
async def turns() -> AsyncIterator[list[None]]:
    """One element for each turn that others got meanwhile."""
    taken: list[None] = []

    async def take() -> None:
        while True:
            taken.append(None)
            await asyncio.sleep(0)

    others = asyncio.create_task(take())
    try:
        yield taken
    finally:
        others.cancel()


async def test_a_long_history_is_searched_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch resumed far back, whose filter matches next to nothing, lets others go on."""
    monkeypatch.setattr("holdfast.filtering.compiler.MESSAGES_AT_ONCE", 10)
    async with replica() as here:
        for number in range(300):
            await here.register(f"a{number}")
        async with turns() as taken:
            [found] = await here.watch(1, start_revision=1, filter="name:a299 -labels:resumed")
        assert kinds([found]) == [(300, [(ADDED, "a299")])]
        assert len(taken) >= 25


async def test_many_long_searches_leave_others_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lists search at a time, each round of the loop makes one slice of one of them."""
    monkeypatch.setattr("holdfast.filtering.compiler.MESSAGES_AT_ONCE", 10)
    async with replica() as here:
        await here.batch({f"a{number:03}": {} for number in range(500)})
        request = ListAgentsRequest(parent=PARENT, filter="name:a499 -labels:long")
        async with turns() as taken:
            await asyncio.gather(*(here.agents.list_agents(request, CALL) for _ in range(20)))
        assert len(taken) >= 20 * 49


async def test_a_step_of_many_is_judged_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get their turn while a large batch is judged, and many watchers of one filter have it judged once."""
    monkeypatch.setattr("holdfast.filtering.compiler.MESSAGES_AT_ONCE", 10)
    only = compile_filter("name:a99 -labels:sliced", Agent.DESCRIPTOR)
    async with replica() as here:
        await here.batch({f"a{number}": {} for number in range(1000)})
        history = here.registry.view.history
        [step] = history.after(0, 10)
        async with turns() as taken:
            await asyncio.gather(*(history.judge(step, PARENT, only) for _ in range(20)))
        assert 100 <= len(taken) < 400
        found = WatchAgentsResponse.FromString(history.encoded(step, PARENT, only) or b"")
        assert len(found.events.events) == 11


async def test_a_filtered_watch_resumed_anywhere_is_the_rest_of_the_whole() -> None:
    """W6 with a filter: from each revision on, exactly what a watch from the beginning got after it."""
    async with replica() as here:
        for number in range(12):
            await here.register(f"a{number}", agent={"labels": {"odd": "yes"}} if number % 2 else {})
        await here.deregister("a3")
        whole = await here.watch(7, start_revision=1, filter="labels:odd")
        for position, message in enumerate(whole[:-1]):
            rest = await here.watch(len(whole) - position - 1, message.revision + 1, filter="labels:odd")
            assert rest == whole[position + 1 :]


async def test_a_watch_that_names_liveness_begins_with_the_expired_too() -> None:
    async with replica() as here:
        await here.register("goes", ttl_s=1)
        await here.register("stays")
        await here.pass_time(1.3)
        [hidden] = await here.watch(1)
        [shown] = await here.watch(1, filter="liveness:*")
        assert kinds([hidden]) == [(3, [(ADDED, "stays")])]
        assert kinds([shown]) == [(3, [(ADDED, "goes"), (ADDED, "stays")])]


async def test_filtered_responses_are_shared_and_their_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches of one filter share what is serialised; of many filters, only the newest responses are kept."""
    monkeypatch.setattr("holdfast.history.RESPONSES_MAX", 10)
    async with replica() as here:
        await here.register("one")
        await here.register("two")
        history = here.registry.view.history
        [_, step] = history.after(0, 10)
        same = [history.encoded(step, PARENT, compile_filter("name:two", Agent.DESCRIPTOR)) for _ in range(2)]
        assert same[0] is same[1]
        for number in range(1000):
            history.encoded(step, PARENT, compile_filter(f"name:two -name:{number}x", Agent.DESCRIPTOR))
        assert len(history._responses) == 10
        assert history._responses_bytes == sum(len(each or b"") for each in history._responses.values())


async def test_responses_without_a_filter_are_shared_and_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that leaves nothing out shares them; one that is not kept any more is made again, the same."""
    monkeypatch.setattr("holdfast.history.RESPONSES_BYTES_MAX", 2000)
    everything, core = compile_filter("", Agent.DESCRIPTOR), compile_filter("name:*", Agent.DESCRIPTOR)
    async with replica() as here:
        await here.register("a")
        for number in range(30):
            await here.update("a", {"domain": f"d{number}"}, "domain")
        history = here.registry.view.history
        steps = history.after(1, 30)
        first = history.encoded(steps[0], PARENT, everything)
        assert first is history.encoded(steps[0], PARENT, everything) is history.encoded(steps[0], PARENT, core)
        for step in steps:
            history.encoded(step, PARENT, everything)
            assert history._responses_bytes <= 2000
        again = history.encoded(steps[0], PARENT, everything)
        assert again == first
        assert again is not first
        assert history.encoded(steps[0], "namespaces/other", everything) is None
