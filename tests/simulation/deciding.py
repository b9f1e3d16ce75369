"""Clients that open decisions, vote on them, in time or late, once or twice, entitled or not, and end them."""

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1 import decision_service_pb2 as pb
from simulation.clients import AGENTS, PARENT, TEAMS, THINK_S
from simulation.machine import Follower, Stage

CLIENTS = 2
OPERATIONS = 72
"""Calls of all of them together."""

RIVALS = 0.35
"""Share of votes that come at the same moment as another call about the same decision."""

RECENT = 4
"""How many of the latest decisions are voted on: few, so that they come to an end."""

TRIES_MAX = 5
"""Reads of each decision at the end, at most: messages are lost even then, and some decisions are forgotten."""

UNSETTLED = (pb.DECISION_STATE_OPEN, pb.DECISION_STATE_AWAITING_FALLBACK)
OPTIONS = ("yes", "no", "later")
STRANGER = f"{PARENT}/agents/stranger"
WEIGHTS = {
    "CreateDecision": 14,
    "CastVote": 56,
    "CloseDecision": 5,
    "CancelDecision": 3,
    "ResolveDecision": 12,
    "GetDecision": 4,
    "ListDecisions": 2,
    "again": 4,
    "on time": 5,
}
"""How often each is done; `again` repeats an earlier request to open one, `on time` opens one and closes it at its
deadline.
"""

WAITS_S = (1, 2, 4, 20)
"""How long fallbacks wait: some so long that it shows if they do not."""

ON_TIME_S = 0.05
"""How long before a deadline the call leaves that is to come at that moment, at most."""

FOLLOWED = ("", "state = OPEN")
"""Filters of the watches."""

METHODS = (
    pb.DECISION_METHOD_CONSENSUS,
    pb.DECISION_METHOD_WEIGHTED,
    pb.DECISION_METHOD_QUORUM,
    pb.DECISION_METHOD_EMERGENT,
)
FALLBACKS = (
    pb.DECISION_FALLBACK_KIND_NONE,
    pb.DECISION_FALLBACK_KIND_STATUS_QUO,
    pb.DECISION_FALLBACK_KIND_PLURALITY,
    pb.DECISION_FALLBACK_KIND_DESIGNATED_AGENT,
    pb.DECISION_FALLBACK_KIND_ESCALATE,
)

OPS = tuple(WEIGHTS)
CUMULATIVE = tuple(itertools.accumulate(WEIGHTS.values()))


class Deciding:
    """The machine: see `simulation.machine`.

    Attributes:
        followers: Its watches; each tells all clients what becomes of decisions.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known: dict[str, pb.Decision] = {}
        self._requests: list[Message] = []
        self.followers = [
            Follower(
                f"decision-watcher{number}",
                stage,
                "WatchDecisions",
                pb.WatchDecisionsRequest(parent=PARENT, filter=only),
                pb.WatchDecisionsResponse,
                self._hear,
            )
            for number, only in enumerate(FOLLOWED)
        ]

    async def run(self) -> None:
        """Makes its calls."""
        clients = [
            _Client(f"decider{number}", self._stage, self._known, self._requests, _fork(self._stage.rng))
            for number in range(CLIENTS)
        ]
        await asyncio.gather(*(client.run(OPERATIONS // CLIENTS) for client in clients))

    async def finish(self) -> None:
        """Reads every decision that anybody heard of, and ends those that have not ended, whatever it takes."""
        for name in sorted(self._known):
            for _ in range(TRIES_MAX):
                response = await self._call("GetDecision", pb.GetDecisionRequest(name=name))
                if response is not None and response.decision.state not in UNSETTLED:
                    break
                if response is not None:
                    await self._call("CancelDecision", pb.CancelDecisionRequest(name=name))

    async def _call(self, op: str, request: Message) -> Any:
        return await self._stage.network.call("decider", op, request)

    def _hear(self, message: pb.WatchDecisionsResponse) -> None:
        for decision in message.events.decisions:
            learn(self._known, decision)


def learn(known: dict[str, pb.Decision], decision: pb.Decision) -> None:
    """Takes in a sight of a decision, unless a later one is known, or it is gone, as with a filter."""
    before = known.get(decision.name)
    if decision.options and (before is None or decision.revision > before.revision):
        known[decision.name] = decision


def _fork(rng: random.Random) -> random.Random:
    return random.Random(rng.getrandbits(64))


class _Client:
    """Makes calls, one after the other, or two at the same moment."""

    def __init__(
        self, name: str, stage: Stage, known: dict[str, pb.Decision], requests: list[Message], rng: random.Random
    ) -> None:
        self._name = name
        self._stage = stage
        self._known = known
        self._requests = requests
        self._rng = rng

    async def run(self, count: int) -> None:
        """Makes so many."""
        for _ in range(count):
            await asyncio.sleep(self._rng.expovariate(1 / THINK_S))
            op = self._rng.choices(OPS, cum_weights=CUMULATIVE)[0]
            calls = list(self._calls(op)) if op != "on time" else await self._on_time()
            responses = await asyncio.gather(*(self._stage.network.call(self._name, *call) for call in calls))
            for response in responses:
                self._learn(response)

    def _learn(self, response: Any) -> None:
        if response is None:
            return
        told = response.decisions if hasattr(response, "decisions") else [response.decision]
        for decision in told:
            learn(self._known, decision)

    def _calls(self, op: str) -> Iterator[tuple[str, Message]]:
        """A call, and what comes at the same moment and gets in its way."""
        if op == "again":
            if self._requests:
                yield "CreateDecision", self._rng.choice(self._requests[-4:])
            return
        if op in ("CreateDecision", "ListDecisions") or not self._known:
            yield ("ListDecisions", self._list()) if op == "ListDecisions" else ("CreateDecision", self._opening())
            return
        decision = self._chosen(op)
        yield op, self._about(op, decision)
        if op == "CastVote" and self._rng.random() < RIVALS:
            rival = self._rng.choice(["CastVote", "CastVote", "CloseDecision"])
            yield rival, self._about(rival, decision)
        elif op == "ResolveDecision" and self._rng.random() < RIVALS:
            yield op, self._about(op, decision)

    async def _on_time(self) -> list[tuple[str, Message]]:
        """Opens a decision whose fallback waits for somebody, waits for its deadline, and then closes it."""
        cluster, request = self._stage.cluster, self._opening()
        request.decision.fallback.CopyFrom(
            pb.DecisionFallback(kind=FALLBACKS[-1], timeout=Duration(seconds=WAITS_S[-1]))
        )
        request.decision.deadline.CopyFrom(self._deadline())
        response = await self._stage.network.call(self._name, "CreateDecision", request)
        if response is None:
            return []
        left_s = (response.decision.deadline.ToMilliseconds() / 1000 - cluster.latest_s()) / cluster.wall_rate
        await asyncio.sleep(max(0.0, left_s - self._rng.uniform(0, ON_TIME_S)))
        return [("CloseDecision", pb.CloseDecisionRequest(name=response.decision.name))]

    def _chosen(self, op: str) -> pb.Decision:
        """One of the latest that the call is for, or any: too late for most."""
        wanted = pb.DECISION_STATE_AWAITING_FALLBACK if op == "ResolveDecision" else pb.DECISION_STATE_OPEN
        fitting = [each for each in self._known.values() if each.state == wanted][-RECENT:]
        if fitting and self._rng.random() < 0.9:
            return self._rng.choice(fitting)
        return self._rng.choice(list(self._known.values())[-2 * RECENT :])

    def _about(self, op: str, decision: pb.Decision) -> Message:
        match op:
            case "CastVote":
                return self._vote(decision)
            case "CloseDecision":
                return pb.CloseDecisionRequest(name=decision.name)
            case "CancelDecision":
                return pb.CancelDecisionRequest(name=decision.name, reason="changed my mind")
            case "ResolveDecision":
                return self._resolution(decision)
            case _:
                return pb.GetDecisionRequest(name=decision.name)

    def _list(self) -> Message:
        only = self._rng.choice(["", "", "state = DECIDED"])
        return pb.ListDecisionsRequest(parent=PARENT, filter=only, page_size=self._rng.choice([0, 3]))

    # Votes.

    def _vote(self, decision: pb.Decision) -> Message:
        rng = self._rng
        voter = self._voter(decision)
        option = "never" if rng.random() < 0.03 else rng.choice(["yes", "yes", *OPTIONS[: len(decision.options)]])
        request = pb.CastVoteRequest(
            decision=decision.name,
            agent=voter,
            option=option,
            fence=self._fence(voter),
            rationale=f"v{rng.getrandbits(48)}",  # so that it can be told what became of it
        )
        if rng.random() < 0.4:
            request.confidence = rng.choice([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
        return request

    def _voter(self, decision: pb.Decision) -> str:
        """Mostly an elector that has not voted; now and then one that has, or one that may not."""
        rng = self._rng
        if rng.random() < 0.08:
            return rng.choice([STRANGER, *(f"{PARENT}/agents/{each}" for each in AGENTS)])
        electors = [each.agent for each in decision.electors]
        voted = {each.agent for each in decision.votes}
        missing = [each for each in electors if each not in voted]
        return rng.choice(missing if missing and rng.random() < 0.85 else electors)

    def _fence(self, agent: str) -> int:
        """None, the one last heard of, or an older one."""
        seen = self._stage.known.agents.get(agent)
        if seen is None or self._rng.random() < 0.5:
            return 0
        return seen.fence - (1 if self._rng.random() < 0.3 else 0)

    def _resolution(self, decision: pb.Decision) -> Message:
        rng = self._rng
        agent = decision.fallback.agent if rng.random() < 0.8 else rng.choice(["", STRANGER])
        option = "never" if rng.random() < 0.1 else rng.choice([each.id for each in decision.options])
        return pb.ResolveDecisionRequest(name=decision.name, option=option, agent=agent, fence=self._fence(agent))

    # Openings.

    def _opening(self) -> pb.CreateDecisionRequest:
        rng = self._rng
        decision = pb.Decision(
            question="which?",
            options=[pb.DecisionOption(id=each) for each in OPTIONS[: rng.randint(1, 3)]],
            method=rng.choice(METHODS),
            allow_vote_change=rng.random() < 0.3,
            fallback=self._fallback(),
        )
        if decision.method == pb.DECISION_METHOD_QUORUM:
            decision.quorum = rng.choice([0.3, 0.6, 1.0])
        elif rng.random() < 0.8:
            decision.threshold = rng.choice([0.5, 0.7, 0.75, 1.0])
        if rng.random() < 0.1:
            decision.elector_selector.labels["team"] = rng.choice(TEAMS)
        else:
            decision.electors.extend(self._electors())
        if rng.random() < 0.6:
            decision.deadline.CopyFrom(self._deadline())
        request = pb.CreateDecisionRequest(parent=PARENT, decision=decision)
        if rng.random() < 0.3:
            request.request_id = f"d{rng.getrandbits(32)}"
            self._requests.append(request)
        return request

    def _electors(self) -> Sequence[pb.Elector]:
        rng = self._rng
        electors = [pb.Elector(agent=f"{PARENT}/agents/{each}") for each in rng.sample(AGENTS, rng.randint(1, 5))]
        for elector in electors:
            if rng.random() < 0.6:
                elector.weight = rng.choice([0.1, 1.0, 2.5, 9.0])
        return electors

    def _deadline(self) -> Timestamp:
        """Some seconds ahead by the clock that is furthest, and far enough for the way there where a day is short."""
        cluster = self._stage.cluster
        ahead_s = self._rng.uniform(0.5, 6) + 0.04 * cluster.wall_rate
        deadline = Timestamp()
        deadline.FromMilliseconds(int((cluster.latest_s() + ahead_s) * 1000))
        return deadline

    def _fallback(self) -> pb.DecisionFallback:
        rng = self._rng
        fallback = pb.DecisionFallback(kind=rng.choice(FALLBACKS), timeout=Duration(seconds=rng.choice(WAITS_S)))
        if fallback.kind == pb.DECISION_FALLBACK_KIND_STATUS_QUO:
            fallback.option = "yes"
        if fallback.kind == pb.DECISION_FALLBACK_KIND_DESIGNATED_AGENT:
            fallback.agent = f"{PARENT}/agents/{rng.choice(AGENTS)}"
        return fallback
