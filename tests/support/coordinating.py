"""Some seconds of coordination at a real server: a short story for each promise, recorded, and judged by the checkers.

Each story is what a bug would have to show in; all of them go on side by side. Whoever is left out, refused or too late
in a story of a sound server is so by its promises, and says nothing.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1 import activation_service_pb2 as work_pb
from holdfast.coordination.v1 import decision_service_pb2 as decision_pb
from holdfast.coordination.v1 import handoff_service_pb2 as handoff_pb
from holdfast.coordination.v1 import lock_service_pb2 as lock_pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import RegisterAgentRequest
from holdfast.registry.v1.lease_service_pb2 import GrantLeaseRequest
from support import work_checkers
from support.checkers import check
from support.evidence import Limits, Violation
from support.history import History
from support.recorder import Connection
from support.work_checkers import BROKEN, Answered, Told, WorkHistory

PARENT = "namespaces/test"
TTL_S, LONG_TTL_S = 1.0, 600.0
"""Of who falls silent in a story, and of all others, who are not kept either: no story lasts that long."""

WITHIN_S = 15.0
"""Longest wait for what a sound server does within two seconds; the machine may be busy."""

AGENTS = ("old", "new", "dies", "gives", "takes", "breaks")
"""Those who work; each takes one piece of work at a time."""

RELAYERS, RELAY = ("old", "new"), "relay"
"""Those who can do each other's work, and what it takes."""

UNSETTLED = ("OPEN", "AWAITING_FALLBACK")


async def coordinate(address: str) -> list[Violation]:
    """Lives through all stories at a server; what its answers and watches contradict."""
    history = History(time.monotonic)
    async with Connection(history, address) as connection:
        world = Coordination(connection)
        await world.live()
    return [*check(history.events, Limits(grace_s=5.0)), *work_checkers.check(world.work)]


def name_of(agent: str) -> str:
    return f"{PARENT}/agents/{agent}"


def seconds(count: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(int(count * 1000))
    return duration


def ahead(count: float) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(int((time.time() + count) * 1000))
    return moment


class Coordination:
    """Everybody at one server.

    Attributes:
        work: What was seen of activations and handoffs; all else is in the connection's history.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.work = WorkHistory({name_of(agent): 1 for agent in AGENTS})

    async def live(self) -> None:
        """All stories, and what came of them in the end."""
        watched = asyncio.Event(), asyncio.Event()
        watching = [
            asyncio.create_task(self._watch_work(watched[0])),
            asyncio.create_task(self._watch_decisions(watched[1])),
        ]
        try:
            async with asyncio.timeout(WITHIN_S):
                await asyncio.gather(*(each.wait() for each in watched))
            stories = (
                self.few_votes, self.late_vote, self.fallback, self.lost_lock,
                self.stale_fence, self.death, self.handoff, self.breaker,
            )  # fmt: skip
            await asyncio.gather(*(story() for story in stories))
            await self._end()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def ask(self, who: str, op: str, request: Message) -> Any:
        """A call; None if it was refused."""
        response = await self._connection.call(who, op, request)
        if response is not None:
            self.work.answers.append(Answered(op, request, response))
        return response

    async def must(self, who: str, op: str, request: Message) -> Any:
        """A call that no bug has refused."""
        response = await self.ask(who, op, request)
        assert response is not None, f"{op} of {who} failed: {request}"
        return response

    # ── decisions

    async def few_votes(self) -> None:
        """Two of four agree, where three are needed."""
        name = (await self._open("abcd", threshold=0.75)).name
        for voter in "ab":
            await self._vote(name, voter)
        await self.must("asker", "GetDecision", decision_pb.GetDecisionRequest(name=name))
        await self.ask("asker", "CloseDecision", decision_pb.CloseDecisionRequest(name=name))

    async def late_vote(self) -> None:
        """Somebody votes when it is over."""
        name = (await self._open("ab", deadline=ahead(1.0))).name
        await self._until(name, lambda state: state != "OPEN")
        await self._vote(name, "a")
        await self.must("asker", "GetDecision", decision_pb.GetDecisionRequest(name=name))

    async def fallback(self) -> None:
        """Somebody is asked, says nothing for as long as it takes, and is not asked again."""
        fallback = decision_pb.DecisionFallback(kind=decision_pb.DECISION_FALLBACK_KIND_ESCALATE, timeout=seconds(1.0))
        name = (await self._open("ab", deadline=ahead(1.0), fallback=fallback)).name
        await self._until(name, lambda state: state not in UNSETTLED, within_s=5.0)
        await self.ask("asker", "CancelDecision", decision_pb.CancelDecisionRequest(name=name))

    async def _open(self, voters: str, **fields: Any) -> decision_pb.Decision:
        decision = decision_pb.Decision(
            question="shall we?",
            options=[decision_pb.DecisionOption(id=each) for each in ("yes", "no")],
            method=decision_pb.DECISION_METHOD_CONSENSUS,
            electors=[decision_pb.Elector(agent=name_of(f"voter-{each}")) for each in voters],
            **fields,
        )
        request = decision_pb.CreateDecisionRequest(parent=PARENT, decision=decision)
        return (await self.must("asker", "CreateDecision", request)).decision  # type: ignore[no-any-return]

    async def _vote(self, decision: str, voter: str) -> None:
        request = decision_pb.CastVoteRequest(
            decision=decision, agent=name_of(f"voter-{voter}"), option="yes", rationale=f"{voter} of {decision}"
        )
        await self.ask(voter, "CastVote", request)

    async def _until(self, decision: str, is_so: Any, within_s: float = WITHIN_S) -> None:
        """Reads it until its state is so, or the time is over."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            told = await self.must("asker", "GetDecision", decision_pb.GetDecisionRequest(name=decision))
            state = decision_pb.DecisionState.Name(told.decision.state).removeprefix("DECISION_STATE_")
            if is_so(state):
                return
            await asyncio.sleep(0.1)

    # ── locks

    async def lost_lock(self) -> None:
        """A holder falls silent, and somebody else asks again and again until the lock is his."""
        lock = f"{PARENT}/locks/guarded"
        leases = [
            (await self.must("holder", "GrantLease", GrantLeaseRequest(parent=PARENT, ttl=seconds(ttl_s)))).lease.name
            for ttl_s in (TTL_S, LONG_TTL_S)
        ]
        first = lock_pb.AcquireLockRequest(lock=lock, holder="first", lease=leases[0], delay=seconds(2.0))
        await self.must("first", "AcquireLock", first)
        until_s = time.monotonic() + WITHIN_S
        while time.monotonic() < until_s:
            second = lock_pb.AcquireLockRequest(lock=lock, holder="second", lease=leases[1], wait=seconds(0))
            if await self.ask("second", "AcquireLock", second) is not None:
                return
            await asyncio.sleep(0.1)

    # ── work

    async def stale_fence(self) -> None:
        """One who fell silent reports as done what was given to another meanwhile."""
        await self._hire("old", TTL_S)
        created = await self._create("old")
        before = await self._take("old")
        await self._hire("new", LONG_TTL_S)
        after = await self._take("new")
        if before is not None and after is not None:
            assert created.name == before.name == after.name
            await self._say("old", "CompleteActivation", work_pb.CompleteActivationRequest, before)
            await self._say("new", "CompleteActivation", work_pb.CompleteActivationRequest, after)

    async def death(self) -> None:
        """One who died while he worked is back, and is as free as anybody."""
        await self._hire("dies", TTL_S)
        lost = await self._create("dies")
        await self._take("dies")
        async with asyncio.timeout(WITHIN_S):
            while (await self._read(lost.name)).state in work_checkers.OWNED:  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.1)
        await self.must("asker", "CancelActivation", work_pb.CancelActivationRequest(name=lost.name))
        await self._hire("dies", LONG_TTL_S)
        await self._create("dies")
        again = await self._take("dies", wait_s=5.0)
        if again is None:
            self.work.not_served.append(name_of("dies"))
        else:
            await self._say("dies", "CompleteActivation", work_pb.CompleteActivationRequest, again)

    async def handoff(self) -> None:
        """One hands over what he does."""
        await self._hire("gives", LONG_TTL_S)
        await self._hire("takes", LONG_TTL_S)
        await self._create("gives")
        mine = await self._take("gives")
        assert mine is not None
        told = handoff_pb.Handoff(activation=mine.name, from_agent=name_of("gives"), to_agent=name_of("takes"))
        offer = handoff_pb.OfferHandoffRequest(parent=PARENT, handoff=told, fence=mine.fence)
        offered = (await self.must("gives", "OfferHandoff", offer)).handoff
        accept = handoff_pb.AcceptHandoffRequest(name=offered.name, agent=name_of("takes"))
        fence = (await self.must("takes", "AcceptHandoff", accept)).fence
        done = work_pb.Activation(name=mine.name, fence=fence)
        await self._say("takes", "CompleteActivation", work_pb.CompleteActivationRequest, done)

    async def breaker(self) -> None:
        """One does a piece of work, breaks three, and is spared the next."""
        await self._hire("breaks", LONG_TTL_S)
        broken = work_pb.ActivationFailure(reason=BROKEN, retryable=True)
        for number in range(4):
            await self._create("breaks", attempts=1)
            mine = await self._take("breaks")
            assert mine is not None
            if number == 0:
                await self._say("breaks", "CompleteActivation", work_pb.CompleteActivationRequest, mine)
            else:
                await self._say("breaks", "FailActivation", work_pb.FailActivationRequest, mine, failure=broken)
        if await self._create("breaks", attempts=1, may_fail=True) is not None:
            await self._take("breaks", wait_s=1.0)

    async def _hire(self, agent: str, ttl_s: float) -> None:
        told = Agent(max_concurrency=1, capabilities=[Capability(id=RELAY)] if agent in RELAYERS else [])
        request = RegisterAgentRequest(parent=PARENT, agent_id=agent, agent=told, ttl=seconds(ttl_s))
        await self.must(agent, "RegisterAgent", request)

    async def _create(self, agent: str, *, attempts: int = 3, may_fail: bool = False) -> Any:
        """Work for an agent; that of one who relays is for the others, too."""
        selector = AgentSelector(all_of=[RELAY]) if agent in RELAYERS else AgentSelector(agent=name_of(agent))
        activation = work_pb.Activation(
            selector=selector,
            deadline=ahead(300),
            heartbeat_timeout=seconds(60),
            retry_policy=work_pb.RetryPolicy(max_attempts=attempts, initial_backoff=seconds(0.1)),
        )
        request = work_pb.CreateActivationRequest(parent=PARENT, activation=activation)
        response = await (self.ask if may_fail else self.must)("asker", "CreateActivation", request)
        return response.activation if response is not None else None

    async def _take(self, agent: str, wait_s: float = WITHIN_S) -> work_pb.Activation | None:
        """Fetches what is given to an agent, and accepts it."""
        fetch = work_pb.FetchAssignmentsRequest(agent=name_of(agent), max=1, wait=seconds(wait_s))
        response = await self.ask(agent, "FetchAssignments", fetch)
        if response is None or not response.activations:
            return None
        assigned = response.activations[0]
        await self._say(agent, "AcceptActivation", work_pb.AcceptActivationRequest, assigned)
        return assigned  # type: ignore[no-any-return]

    async def _say(self, agent: str, op: str, kind: Any, held: work_pb.Activation, **fields: Any) -> None:
        await self.ask(agent, op, kind(name=held.name, fence=held.fence, **fields))

    async def _read(self, name: str) -> work_pb.Activation:
        request = work_pb.GetActivationRequest(name=name)
        return (await self.must("asker", "GetActivation", request)).activation  # type: ignore[no-any-return]

    # ── what is told, and the end

    async def _watch_work(self, has_begun: asyncio.Event) -> None:
        request = work_pb.WatchActivationsRequest(parent=PARENT)
        async for step in self._connection.stream("WatchActivations", request):
            for activation in step.events.activations:
                self.work.told.append(Told(step.revision, activation, is_whole=True))
            has_begun.set()

    async def _watch_decisions(self, has_begun: asyncio.Event) -> None:
        history, op = self._connection.history, "WatchDecisions"
        request = decision_pb.WatchDecisionsRequest(parent=PARENT)
        watch = history.follow_begun("watcher", op, request)
        async for step in self._connection.stream(op, request):
            history.follow_message("watcher", watch, step)
            has_begun.set()

    async def _end(self) -> None:
        """Cancels what has not ended, reads everything, and waits until the watch has told of it."""
        listed = work_pb.ListActivationsRequest(parent=PARENT, page_size=1000)
        last = 0
        for activation in (await self.must("asker", "ListActivations", listed)).activations:
            if activation.state not in work_checkers.ENDED:
                cancel = work_pb.CancelActivationRequest(name=activation.name)
                last = (await self.must("asker", "CancelActivation", cancel)).activation.revision
        self.work.final += (await self.must("asker", "ListActivations", listed)).activations
        last = max([last, *(each.revision for each in self.work.final)])
        async with asyncio.timeout(WITHIN_S):
            while not self.work.told or self.work.told[-1].revision < last:  # noqa: ASYNC110 - told by a stream
                await asyncio.sleep(0.02)


def invariants(violations: Sequence[Violation]) -> set[str]:
    """Which are violated."""
    return {violation.invariant for violation in violations}
