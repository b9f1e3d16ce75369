"""Decisions through the handlers: an electorate that is frozen, votes that count once, and exactly one end."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry

from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.decisions import forgetting, opening
from holdfast.core.decisions.forgetting import ENDED_KEPT_S
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.service.context import CallContext
from holdfast.service.janitor import Janitor
from holdfast.serving.decision_metrics import DecisionMetrics
from holdfast.store.batching import WriteRefusedError
from holdfast.store.interface import Change
from holdfast.store.memory import MemoryStore
from support.deciding import agent, electors, opened, read, refused, vote
from support.engines import new_store
from support.replica import CALL, PARENT, Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says

pytestmark = pytest.mark.usefixtures("each_engine")
"""On every engine."""


async def test_the_vote_that_settles_it_closes_it_in_its_own_revision() -> None:
    async with replica() as here:
        decision = await opened(here)
        for name in "ab":
            decision = await vote(here, decision, name)
            assert decision.state == pb.DECISION_STATE_OPEN
        revision = here.registry.store.revision
        decision = await vote(here, decision, "c")
        assert here.registry.store.revision == revision + 1 == decision.revision
        assert decision.state == pb.DECISION_STATE_DECIDED
        assert decision.outcome == pb.DecisionOutcome(option="yes", margin=0.75, participation=0.75)
        assert [(each.option, each.votes, each.share) for each in decision.tally] == [("yes", 3, 0.75), ("no", 0, 0)]
        assert await read(here, decision) == decision
        await assert_view_is_what_the_store_says(here.registry)


async def test_consensus_is_of_the_electorate_and_not_of_the_votes_cast() -> None:
    """The original framework's defect: two votes for and none against were unanimous."""
    async with replica() as here:
        decision = await opened(here, "a b c d", threshold=0.75)
        await vote(here, decision, "a")
        await vote(here, decision, "b")
        closed = await here.decisions.close_decision(pb.CloseDecisionRequest(name=decision.name), CALL)
        assert closed.decision.state == pb.DECISION_STATE_FAILED
        assert closed.decision.failure == "'yes' leads with a share of 0.5, below 0.75"


async def test_ids_of_decisions_opened_in_one_second_differ() -> None:
    """The original framework made them of whole seconds."""
    async with replica() as here:
        names = {(await opened(here)).name for _ in range(50)}
        assert len(names) == 50


async def test_a_repeated_request_opens_one_decision() -> None:
    async with replica() as here:
        first = await opened(here, request_id="r1")
        assert await opened(here, request_id="r1") == first
        async with refused(Reason.REQUEST_ID_REUSED, here):
            await opened(here, request_id="r1", question="another?")


async def test_a_repeated_request_is_the_same_whatever_call_it_comes_with() -> None:
    """Without a correlation id of its own a decision takes the first call's; a second call has another."""
    async with replica() as here:
        decision = pb.Decision(
            question="?",
            options=[pb.DecisionOption(id="yes")],
            method=pb.DECISION_METHOD_CONSENSUS,
            electors=electors("a"),
        )
        answers = [
            await here.decisions.create_decision(
                pb.CreateDecisionRequest(parent=PARENT, decision=decision, request_id="r1"),
                CallContext("service", "method", correlation_id),
            )
            for correlation_id in ("first", "second")
        ]
        assert answers[0] == answers[1]
        assert answers[0].decision.correlation_id == "first"


async def test_whoever_opens_a_decision_for_nobody_learns_why_nobody_matches() -> None:
    """A count for each exclusion, in the message and for programs; a named agent is looked at by itself."""
    async with replica() as here:
        async with refused(Reason.NO_ELIGIBLE_AGENT, here) as caught:
            await opened(here, electors=[], elector_selector=AgentSelector(all_of=["review"]))
        assert "nobody is registered" in caught.value.message
        await here.register("able", agent=Agent(capabilities=[Capability(id="review")]))
        await here.register("other")
        await here.register("gone", ttl_s=1)
        await here.rule("cordon", "able")
        await here.pass_time(2)
        selector = AgentSelector(all_of=["review"])
        for asked, counts in (
            (selector, {"ADMIN_STATE": "1", "CAPABILITY": "1", "EXPIRED": "1"}),
            (AgentSelector(agent=agent("other"), all_of=["review"]), {"CAPABILITY": "1"}),
            (AgentSelector(agent=agent("none")), {}),
        ):
            async with refused(Reason.NO_ELIGIBLE_AGENT, here) as caught:
                await opened(here, electors=[], elector_selector=asked)
            assert caught.value.metadata == counts
            assert all(f"{reason} {count}" in caught.value.message for reason, count in counts.items())


async def test_an_electorate_has_everyone_who_matches_however_large_they_are() -> None:
    """A page of MatchAgents ends after some bytes; who is on the next one may vote as well."""
    tags = [f"{number:02}{'t' * 62}" for number in range(32)]
    large = Agent(capabilities=[Capability(id=f"c{number}", tags=tags) for number in range(128)])
    async with replica() as here:
        for number in range(10):
            await here.register(f"a{number}", agent=large)
        decision = await opened(here, electors=[], elector_selector=AgentSelector(all_of=["c1"]))
        assert [each.agent for each in decision.electors] == [agent(f"a{number}") for number in range(10)]


async def test_a_selector_finds_the_agent_it_names_among_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.service.decisions.ELECTORS_MAX", 2)
    async with replica() as here:
        for number in range(5):
            await here.register(f"a{number}")
        decision = await opened(here, electors=[], elector_selector=AgentSelector(agent=agent("a4")))
        assert [each.agent for each in decision.electors] == [agent("a4")]


async def test_votes_at_the_same_moment_settle_it_once() -> None:
    """D1: each is counted after the one before, so the third closes it and the others find it closed."""
    async with replica() as here:
        decision = await opened(here, "a b c d")
        outcomes = await asyncio.gather(*(vote(here, decision, name) for name in "abcd"), return_exceptions=True)
        late = [each for each in outcomes if isinstance(each, BaseException)]
        assert [each.reason for each in late if isinstance(each, HoldfastError)] == [Reason.DECISION_CLOSED]
        last = await read(here, decision)
        assert (last.state, len(last.votes)) == (pb.DECISION_STATE_DECIDED, 3)


class FullStore(MemoryStore):
    """Refuses every write once it is full."""

    is_full = False

    async def _write(self, changes: Sequence[Change]) -> None:
        if self.is_full:
            raise WriteRefusedError("its disk is full")
        await super()._write(changes)


async def test_votes_that_fail_together_each_get_an_error_of_their_own() -> None:
    """Raising an error adds to it where it was raised, and a call lets go of that once it has answered."""
    store = FullStore()
    async with replica(store) as here:
        decision = await opened(here, "a b c d")
        store.is_full = True
        outcomes = await asyncio.gather(*(vote(here, decision, name) for name in "abc"), return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, HoldfastError)]
        assert [(each.reason, each.message) for each in failed] == [(Reason.STORE_UNAVAILABLE, failed[0].message)] * 3
        assert len(set(map(id, failed))) == 3


async def test_a_quorum_of_nobody_divides_by_nothing() -> None:
    """The original framework's defect: with no participants it divided by zero. Nobody votes, or nobody may."""
    async with replica() as here:
        decision = await opened(here, method=pb.DECISION_METHOD_QUORUM)
        closed = await here.decisions.close_decision(pb.CloseDecisionRequest(name=decision.name), CALL)
        assert closed.decision.failure == "none of 4 electors voted"
        async with refused(Reason.INVALID_FIELD, here):
            await opened(here, electors=[], method=pb.DECISION_METHOD_QUORUM)


async def test_who_is_no_elector_does_not_vote() -> None:
    async with replica() as here:
        await here.register("stranger")
        decision = await opened(here)
        async with refused(Reason.NOT_ELECTOR, here, decision):
            await vote(here, decision, "stranger")


async def test_a_second_vote_is_refused_unless_votes_may_change() -> None:
    async with replica() as here:
        fixed, free = await opened(here), await opened(here, allow_vote_change=True)
        for decision in (fixed, free):
            await vote(here, decision, "a")
        async with refused(Reason.ALREADY_VOTED, here, fixed):
            await vote(here, fixed, "a", "no")
        changed = await vote(here, free, "a", "no")
        assert [(each.option, each.votes) for each in changed.tally] == [("yes", 0), ("no", 1)]
        assert len(changed.votes) == 1


async def test_an_option_that_is_not_offered_cannot_be_voted_for() -> None:
    """The original framework's emergent method returned one."""
    async with replica() as here:
        decision = await opened(here, method=pb.DECISION_METHOD_EMERGENT)
        async with refused(Reason.INVALID_FIELD, here, decision):
            await vote(here, decision, "a", "perhaps")


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan, math.inf])
async def test_confidence_is_from_0_to_1(confidence: float) -> None:
    async with replica() as here:
        decision = await opened(here)
        async with refused(Reason.INVALID_FIELD, here, decision):
            await vote(here, decision, "a", confidence=confidence)


async def test_a_stale_fence_and_a_banned_agent_do_not_vote() -> None:
    async with replica() as here:
        present = await here.register("a")
        decision = await opened(here)
        async with refused(Reason.FENCE_STALE, here, decision):
            await vote(here, decision, "a", fence=present.fence - 1)
        async with refused(Reason.FENCE_STALE, here, decision):
            await vote(here, decision, "b", fence=1)
        await here.rule("ban", "a")
        async with refused(Reason.AGENT_BANNED, here, decision):
            await vote(here, decision, "a", fence=present.fence)


async def test_no_vote_counts_once_the_deadline_has_passed() -> None:
    """D3: neither before the end is written nor after."""
    async with replica() as here:
        decision = await opened(here, deadline=in_s(here, 10))
        await vote(here, decision, "a")
        here.clock.now_s += 10
        async with refused(Reason.DECISION_CLOSED, here, decision):
            await vote(here, decision, "b")
        await here.pass_time(0.2)
        last = await read(here, decision)
        assert (last.state, len(last.votes)) == (pb.DECISION_STATE_FAILED, 1)
        async with refused(Reason.DECISION_CLOSED, here, decision):
            await vote(here, decision, "b")


def in_s(here: Replica, seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(int((here.clock.now_s + seconds) * 1000))
    return time


async def test_a_deadline_that_passed_while_nobody_served_ends_voting_at_the_next_start() -> None:
    store, clock = new_store(), Clock()
    async with replica(store, clock) as here:
        decision = await opened(here, deadline=in_s(here, 10))
        await vote(here, decision, "a")
    clock.now_s += 100
    async with replica(store, clock) as here:
        async with refused(Reason.DECISION_CLOSED, here, decision):
            await vote(here, decision, "b")
        await here.pass_time(0.2)
        assert (await read(here, decision)).state == pb.DECISION_STATE_FAILED


async def test_the_fallback_fires_once() -> None:
    """D6: whoever closes, and however often the deadline is looked at."""
    async with replica() as here:
        fallback = pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_STATUS_QUO, option="no")
        decision = await opened(here, deadline=in_s(here, 10), fallback=fallback)
        await vote(here, decision, "a")
        await here.pass_time(10.2)
        last = await read(here, decision)
        assert last.outcome == pb.DecisionOutcome(option="no", margin=-0.25, participation=0.25, by_fallback=True)
        await here.pass_time(30)
        assert await read(here, decision) == last
        async with refused(Reason.DECISION_CLOSED, here, decision):
            await here.decisions.close_decision(pb.CloseDecisionRequest(name=decision.name), CALL)


async def test_a_designated_agent_settles_it_or_it_fails_in_time() -> None:
    async with replica() as here:
        fallback = pb.DecisionFallback(
            kind=pb.DECISION_FALLBACK_KIND_DESIGNATED_AGENT, agent=agent("boss"), timeout=Duration(seconds=20)
        )
        settled, forgotten = [await opened(here, deadline=in_s(here, 10), fallback=fallback) for _ in range(2)]
        await here.pass_time(10.2)
        assert (await read(here, settled)).state == pb.DECISION_STATE_AWAITING_FALLBACK
        resolve = pb.ResolveDecisionRequest(name=settled.name, option="yes")
        for other in ("", agent("a")):
            resolve.agent = other
            async with refused(Reason.NOT_OWNER, here, settled):
                await here.decisions.resolve_decision(resolve, CALL)
        resolve.agent = agent("boss")
        resolved = (await here.decisions.resolve_decision(resolve, CALL)).decision
        assert (resolved.state, resolved.outcome.option, resolved.outcome.by_fallback) == (
            pb.DECISION_STATE_DECIDED,
            "yes",
            True,
        )
        await here.pass_time(20.4)
        assert (await read(here, settled)).state == pb.DECISION_STATE_DECIDED
        assert (await read(here, forgotten)).state == pb.DECISION_STATE_FAILED


async def test_a_cancelled_decision_has_no_result() -> None:
    async with replica() as here:
        decision = await opened(here)
        request = pb.CancelDecisionRequest(name=decision.name, reason="moot")
        cancelled = (await here.decisions.cancel_decision(request, CALL)).decision
        assert (cancelled.state, cancelled.failure) == (pb.DECISION_STATE_CANCELLED, "moot")
        async with refused(Reason.DECISION_CLOSED, here, decision):
            await vote(here, decision, "a")
        async with refused(Reason.DECISION_CLOSED, here, decision):
            await here.decisions.cancel_decision(request, CALL)


async def test_the_electorate_is_who_matches_when_it_opens() -> None:
    """D5: who comes later has no vote, and who goes still counts."""
    async with replica() as here:
        for name in "ab":
            await here.register(name, agent=Agent(capabilities=[Capability(id="review")]))
        await here.register("c")
        decision = await opened(here, electors=[], elector_selector=AgentSelector(all_of=["review"]))
        assert [elector.agent for elector in decision.electors] == [agent("a"), agent("b")]
        await here.register("late", agent=Agent(capabilities=[Capability(id="review")]))
        await here.deregister("b")
        async with refused(Reason.NOT_ELECTOR, here, decision):
            await vote(here, decision, "late")
        assert (await vote(here, decision, "a")).tally[0].share == 0.5
        async with refused(Reason.NO_ELIGIBLE_AGENT, here):
            await opened(here, electors=[], elector_selector=AgentSelector(all_of=["nothing"]))


async def test_weights_are_the_electors_own_or_their_priority() -> None:
    async with replica() as here:
        await here.register("a", agent=Agent(coordination_priority=90))
        weights = [pb.Elector(agent=agent("a")), pb.Elector(agent=agent("b"), weight=10)]
        decision = await opened(here, electors=weights, method=pb.DECISION_METHOD_WEIGHTED)
        assert [elector.weight for elector in decision.electors] == [90, 10]
        assert (await vote(here, decision, "a")).outcome.option == "yes"
        async with refused(Reason.AGENT_NOT_FOUND, here):
            await opened(here, electors=electors("unknown"), method=pb.DECISION_METHOD_WEIGHTED)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"electors": []}, "decision.electors"),
        ({"electors": electors("a a")}, "decision.electors[1].agent"),
        ({"electors": [pb.Elector(agent="namespaces/other/agents/a")]}, "decision.electors[0].agent"),
        ({"threshold": 0.0}, "decision.threshold"),
        ({"threshold": 1.01}, "decision.threshold"),
        ({"threshold": -0.5}, "decision.threshold"),
        ({"threshold": math.nan}, "decision.threshold"),
        ({"quorum": 0.5}, "decision.quorum"),
        ({"method": pb.DECISION_METHOD_QUORUM, "quorum": 0.0}, "decision.quorum"),
        ({"method": pb.DECISION_METHOD_QUORUM, "threshold": 0.5}, "decision.threshold"),
        ({"electors": [pb.Elector(agent=agent("a"), weight=-1)]}, "decision.electors[0].weight"),
        ({"electors": [pb.Elector(agent=agent("a"), weight=math.nan)]}, "decision.electors[0].weight"),
        ({"electors": [pb.Elector(agent=agent("a"), weight=math.inf)]}, "decision.electors[0].weight"),
        ({"options": [pb.DecisionOption(id="x"), pb.DecisionOption(id="x")]}, "decision.options[1].id"),
        ({"options": []}, "decision.options"),
        ({"method": 0}, "decision.method"),
        ({"deadline": Timestamp(seconds=1)}, "decision.deadline"),
        ({"deadline": Timestamp(seconds=10**9)}, "decision.deadline"),
        ({"fallback": pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_STATUS_QUO)}, "decision.fallback.option"),
        ({"fallback": pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_DESIGNATED_AGENT)}, "decision.fallback.agent"),
        ({"elector_selector": AgentSelector()}, "decision.elector_selector"),
    ],
)
async def test_what_cannot_be_decided_is_refused_by_its_field(fields: dict[str, Any], field: str) -> None:
    async with replica() as here:
        async with refused(Reason.INVALID_FIELD, here) as caught:
            await opened(here, **fields)
        assert [violation.field for violation in caught.value.field_violations] == [field]


async def test_pages_of_decisions_neither_repeat_nor_skip() -> None:
    async with replica() as here:
        names = sorted([(await opened(here)).name for _ in range(7)])
        request, found = pb.ListDecisionsRequest(parent=PARENT, page_size=3), list[str]()
        while True:
            page = await here.decisions.list_decisions(request, CALL)
            found += [each.name for each in page.decisions]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert found == names
        await vote(here, pb.Decision(name=names[2]), "a")
        only = pb.ListDecisionsRequest(parent=PARENT, filter="state = OPEN AND tally.votes = 1")
        assert [each.name for each in (await here.decisions.list_decisions(only, CALL)).decisions] == [names[2]]


async def test_a_deadline_that_comes_as_somebody_closes_leaves_the_fallback_its_time() -> None:
    """D6: who acts on a deadline may find that voting has ended meanwhile, by a call or through another replica."""
    fallback = pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_ESCALATE, timeout=Duration(seconds=5))
    async with replica() as here:
        decision = await opened(here, fallback=fallback, deadline=in_s(here, 10))
        here.clock.now_s += 10
        await asyncio.gather(
            here.decisions.close_decision(pb.CloseDecisionRequest(name=decision.name), CALL),
            here.registry.deadlines.look(),
        )
        await here.settle()
        await here.registry.deadlines.look()
        assert (await read(here, decision)).state == pb.DECISION_STATE_AWAITING_FALLBACK
        await here.pass_time(5)
        assert (await read(here, decision)).state == pb.DECISION_STATE_FAILED


async def test_decisions_that_ended_are_forgotten_after_a_day_with_all_their_records() -> None:
    """D1: until then they keep their one result, over a restart, too."""
    store, clock = new_store(), Clock()
    async with replica(store, clock) as here:
        ended, unsettled = await opened(here, "a"), await opened(here, deadline=in_s(here, 20 * ENDED_KEPT_S))
        await vote(here, ended, "a")
        await vote(here, unsettled, "a")
        clock.now_s += ENDED_KEPT_S - 1
        await Janitor(here.registry).make_round()
        assert (await read(here, ended)).outcome.option == "yes"
    async with replica(store, clock) as here:
        clock.now_s += 1
        await Janitor(here.registry).make_round()
        async with refused(Reason.DECISION_NOT_FOUND, here):
            await read(here, ended)
        assert (await read(here, unsettled)).state == pb.DECISION_STATE_OPEN
        left = [found.key.partition(":")[0] for found in (await store.range(""))[1]]
        assert sorted(left) == ["decision", "decision-state", "vote"]
        await assert_view_is_what_the_store_says(here.registry)


async def test_the_first_ended_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "ENDED_MAX", 2)
    async with replica() as here:
        names = []
        for _ in range(4):
            decision = await opened(here, "a")
            await vote(here, decision, "a")
            names.append(decision.name)
        await Janitor(here.registry).make_round()
        kept = [entry.name for entry in here.registry.view.decisions.ended()]
        assert kept == names[2:]


async def test_no_decision_is_opened_when_too_many_have_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "UNSETTLED_MAX", 1)
    async with replica() as here:
        decision = await opened(here, "a")
        async with refused(Reason.QUOTA_EXCEEDED, here):
            await opened(here)
        await vote(here, decision, "a")
        await opened(here)


async def test_decisions_are_measured_once_each_as_they_end() -> None:
    store, clock = new_store(), Clock()
    registry = CollectorRegistry()
    metrics = DecisionMetrics(registry)
    async with replica(store, clock) as here:
        here.registry.view.decisions.on_ended = metrics.observe
        decided = await opened(here, "a b")
        fallback = pb.DecisionFallback(kind=pb.DECISION_FALLBACK_KIND_STATUS_QUO, option="no")
        fallen = await opened(here, "a b", deadline=in_s(here, 10), fallback=fallback)
        await vote(here, decided, "a")
        clock.now_s += 3
        await vote(here, decided, "b")
        await vote(here, fallen, "a")
        await here.pass_time(20)
    labels = {"method": "consensus"}

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(name, {**labels, **more})

    ended = "holdfast_decisions_ended_total"
    assert value(ended, state="decided", by_fallback="false") == 1
    assert value(ended, state="decided", by_fallback="true") == 1
    assert value("holdfast_decision_seconds_count") == 2
    assert value("holdfast_decision_seconds_sum") == pytest.approx(13, abs=0.5)
    assert value("holdfast_decision_participation_sum") == 1.5
    assert value("holdfast_decision_margin_sum") == 1
