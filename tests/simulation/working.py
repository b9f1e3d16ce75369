"""Worlds about work: agents that do it, fail it, hand it over, fall silent and die, under everything that goes wrong.

A world of its own beside `world`, with the same nodes, store, links and troubles; judged by `support.work_checkers`.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import validation
from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.coordination.v1 import handoff_service_pb2 as handoffs_pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations import entry as states
from holdfast.errors import HoldfastError
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import DeregisterAgentRequest, RegisterAgentRequest
from holdfast.service.activations import ActivationHandlers
from holdfast.service.dispatcher import Dispatcher
from holdfast.service.handoffs import HandoffHandlers
from simulation import loop
from simulation.cluster import Cluster
from simulation.coverage import Coverage
from simulation.network import TIMEOUT_S, Network
from simulation.node import CALL, PROGRESS_EVERY_S, Clocks, Node
from simulation.store import SimulatedStore
from simulation.trouble import Trouble
from support.evidence import Violation
from support.history import History
from support.work_checkers import BROKEN, Answered, Told, WorkHistory, check

PARENT = "namespaces/sim"
AGENTS = {f"{PARENT}/agents/w{number}": 2 + number % 3 for number in range(5)}
"""Agents by name, with how much work each takes."""

LEAVING = frozenset(list(AGENTS)[:2])
"""Those who deregister now and then, with which their breaker is forgotten."""

OPERATIONS = 220
"""Activations, and calls about them that others than agents make."""

REQUESTERS = 3
LIFE_S = 40.0
"""Longest time that an activation is given."""

REST_S = 45.0
"""By then, once all is healed, everything has ended: deadlines, and breakers that were open."""

SERVED_S = 40.0
"""By then an agent that is free gets work: its breaker is open for 30 s at most."""

TRANSITIONS = frozenset(
    {
        (states.PENDING, states.ASSIGNED),
        (states.PENDING, states.CANCELLED),
        (states.PENDING, states.TIMED_OUT),
        (states.ASSIGNED, states.RUNNING),
        (states.ASSIGNED, states.PENDING),
        (states.ASSIGNED, states.BACKOFF),
        (states.ASSIGNED, states.CANCELLED),
        (states.RUNNING, states.SUCCEEDED),
        (states.RUNNING, states.FAILED),
        (states.RUNNING, states.BACKOFF),
        (states.RUNNING, states.DEAD_LETTERED),
        (states.RUNNING, states.HANDING_OFF),
        (states.RUNNING, states.CANCELLED),
        (states.RUNNING, states.TIMED_OUT),
        (states.HANDING_OFF, states.RUNNING),
        (states.HANDING_OFF, states.BACKOFF),
        (states.HANDING_OFF, states.SUCCEEDED),
        (states.BACKOFF, states.PENDING),
        (states.BACKOFF, states.DEAD_LETTERED),
        (states.DEAD_LETTERED, states.PENDING),
    }
)
"""What a hundred seeds must show between them; rarer ones may show, too."""


class WorkNode(Node):
    """A node that serves activations and handoffs as well."""

    def start(self, store: SimulatedStore) -> None:
        """Begins to serve once it has its view."""
        super().start(store)
        self.work = ActivationHandlers(self.registry, progress_every_s=PROGRESS_EVERY_S)
        self.handoffs = HandoffHandlers(self.registry)

    async def _run(self) -> None:
        await super()._run()
        self._part("dispatcher", Dispatcher(self.registry).run())

    def handler(self, op: str) -> Any:
        """The handler of an rpc."""
        name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in op)[1:]
        for owner in (self.work, self.handoffs):
            if hasattr(owner, name):
                return getattr(owner, name)
        return super().handler(op)


class Line(Network):
    """The same links; what is learnt about work goes into its own history."""

    def __init__(self, nodes: list[Node], rng: random.Random, history: History, work: WorkHistory) -> None:
        super().__init__(nodes, rng, history)
        self.work = work
        self.operations = 0

    async def ask(self, op: str, request: Message) -> Any | None:
        """A call; None if it did not succeed, as far as its caller knows."""
        self.operations += 1
        node = await self.wait_for()
        validation.check(request)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._exchange(node, op, request)
        except (HoldfastError, TimeoutError):
            return None
        self.work.answers.append(Answered(op, request, response))
        return response


class Worker:
    """An agent: registers, keeps its lease most of the time, and does with its work whatever there is to do."""

    def __init__(self, name: str, line: Line, rng: random.Random, stale: list[pb.Activation], now: "WallClock") -> None:
        self.name = name
        self._now = now
        self._line = line
        self._rng = rng
        self._stale = stale
        self._mine: dict[str, pb.Activation] = {}
        self._lease = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._live()
            await asyncio.sleep(self._rng.choice([0.1, 1.0, 4.0]))

    async def _live(self) -> None:
        rng = self._rng
        told = Agent(max_concurrency=AGENTS[self.name], capabilities=[Capability(id=rng.choice("xyz"))])
        request = RegisterAgentRequest(
            parent=PARENT, agent_id=self.name.rsplit("/", 1)[1], agent=told, ttl=Duration(seconds=rng.choice([2, 4]))
        )
        response = await self._line.ask("RegisterAgent", request)
        if response is None:
            return
        self._lease = response.agent.lease
        keeping = asyncio.ensure_future(self._keep())
        end_s = asyncio.get_running_loop().time() + rng.expovariate(1 / 25)
        try:
            while asyncio.get_running_loop().time() < end_s and not keeping.done():
                await self._step()
                await asyncio.sleep(rng.expovariate(1 / 0.3))
        finally:
            keeping.cancel()
        if self.name in LEAVING and rng.random() < 0.5:
            await self._line.ask("DeregisterAgent", DeregisterAgentRequest(name=self.name))
        self._stale += self._mine.values()
        self._mine.clear()

    async def _keep(self) -> None:
        while await self._line.keep(self.name, self._lease):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.7)

    async def _step(self) -> None:
        request = pb.FetchAssignmentsRequest(agent=self.name, max=3, wait=Duration(nanos=200_000_000))
        response = await self._line.ask("FetchAssignments", request)
        for assigned in response.activations if response is not None else ():
            if self._rng.random() < 0.15:
                await self._say("DeclineActivation", pb.DeclineActivationRequest, assigned)
            elif self._rng.random() < 0.9:  # others are ignored
                accepted = await self._say("AcceptActivation", pb.AcceptActivationRequest, assigned)
                if accepted is not None:
                    self._mine[assigned.name] = accepted.activation
        for held in list(self._mine.values()):
            await self._work(held)
        await self._answer_offers()
        if self._stale and self._rng.random() < 0.15:  # what it once held, it believes to hold still
            await self._say("CompleteActivation", pb.CompleteActivationRequest, self._rng.choice(self._stale[-6:]))

    async def _work(self, held: pb.Activation) -> None:
        rng = self._rng
        match rng.choices(("on", "done", "broken", "bad", "offer", "gone"), (30, 28, 14, 3, 24, 1))[0]:
            case "on":
                progress = pb.ActivationProgress(percent=rng.randrange(101))
                if await self._say("HeartbeatActivation", pb.HeartbeatActivationRequest, held, progress=progress):
                    return
            case "done":
                await self._say("CompleteActivation", pb.CompleteActivationRequest, held, result=b"done")
            case "broken" | "bad" as how:
                failure = pb.ActivationFailure(reason=BROKEN, retryable=how == "broken")
                await self._say("FailActivation", pb.FailActivationRequest, held, failure=failure)
            case "offer":
                await self._offer(held)
                return
            case _:
                return  # it forgets what it did
        self._stale.append(self._mine.pop(held.name))

    async def _offer(self, held: pb.Activation) -> None:
        other = self._rng.choice([name for name in AGENTS if name != self.name])
        told = handoffs_pb.Handoff(activation=held.name, from_agent=self.name, to_agent=other)
        if self._rng.random() < 0.5:  # others outlive most activations
            told.deadline.CopyFrom(self._now.in_s(self._rng.uniform(1, 6)))
        offered = await self._line.ask(
            "OfferHandoff", handoffs_pb.OfferHandoffRequest(parent=PARENT, handoff=told, fence=held.fence)
        )
        if offered is not None and self._rng.random() < 0.2:
            await self._line.ask(
                "WithdrawHandoff", handoffs_pb.WithdrawHandoffRequest(name=offered.handoff.name, fence=held.fence)
            )

    async def _answer_offers(self) -> None:
        if self._rng.random() < 0.5:
            return
        request = handoffs_pb.ListHandoffsRequest(parent=PARENT, filter=f"state = OFFERED AND to_agent = '{self.name}'")
        listed = await self._line.ask("ListHandoffs", request)
        for offered in listed.handoffs if listed is not None else ():
            if self._rng.random() < 0.25:
                reject = handoffs_pb.RejectHandoffRequest(name=offered.name, agent=self.name)
                await self._line.ask("RejectHandoff", reject)
                continue
            accept = handoffs_pb.AcceptHandoffRequest(name=offered.name, agent=self.name)
            accepted = await self._line.ask("AcceptHandoff", accept)
            if accepted is not None:
                self._mine[offered.activation] = pb.Activation(name=offered.activation, fence=accepted.fence)

    async def _say(self, op: str, kind: Any, held: pb.Activation, **fields: Any) -> Any | None:
        return await self._line.ask(op, kind(name=held.name, fence=held.fence, **fields))


class Requester:
    """Asks for work, repeats itself, changes its mind, and gives dead letters another chance."""

    def __init__(self, name: str, line: Line, rng: random.Random, now: "WallClock") -> None:
        self._name = name
        self._line = line
        self._rng = rng
        self._now = now
        self._asked: list[pb.CreateActivationRequest] = []
        self.created: dict[str, None] = {}

    async def run(self, count: int) -> None:
        """Makes `count` calls."""
        for _ in range(count):
            await asyncio.sleep(self._rng.expovariate(1 / 0.8))
            await self._act()

    async def _act(self) -> None:
        rng = self._rng
        name = rng.choice(list(self.created)[-8:]) if self.created else ""
        match rng.choices(("create", "again", "cancel", "requeue", "read"), (70, 8, 7, 10, 5))[0]:
            case "create":
                await self._create(self._creation())
            case "again" if self._asked:
                await self._create(rng.choice(self._asked[-4:]))
            case "cancel" if name:
                await self._line.ask("CancelActivation", pb.CancelActivationRequest(name=name))
            case "requeue" if name:
                dead = await self._line.ask(
                    "ListActivations", pb.ListActivationsRequest(parent=PARENT, filter="state = DEAD_LETTERED")
                )
                for each in list(dead.activations)[:2] if dead is not None else ():
                    await self._line.ask("RequeueActivation", pb.RequeueActivationRequest(name=each.name))
            case _ if name:
                await self._line.ask("GetActivation", pb.GetActivationRequest(name=name))
            case _:
                pass

    def _creation(self) -> pb.CreateActivationRequest:
        rng = self._rng
        selector = rng.choice(
            [
                AgentSelector(),
                AgentSelector(all_of=["x"]),
                AgentSelector(any_of=["x", "y"]),
                AgentSelector(agent=rng.choice(list(AGENTS))),
            ]
        )
        activation = pb.Activation(
            selector=selector,
            requester=self._name,
            priority=rng.choice([0, 10, 90]),
            deadline=self._now.in_s(rng.uniform(4, LIFE_S)),
            heartbeat_timeout=Duration(seconds=rng.choice([2, 5])),
            retry_policy=pb.RetryPolicy(
                max_attempts=rng.choice([1, 2, 4]), initial_backoff=Duration(nanos=200_000_000)
            ),
        )
        request = pb.CreateActivationRequest(
            parent=PARENT, activation=activation, request_id=f"r{rng.getrandbits(48)}" if rng.random() < 0.6 else ""
        )
        if request.request_id:
            self._asked.append(request)
        return request

    async def _create(self, request: pb.CreateActivationRequest) -> None:
        response = await self._line.ask("CreateActivation", request)
        if response is not None:
            self.created[response.activation.name] = None


class Watcher:
    """Watches activations from one node after another, and goes on where it was."""

    def __init__(self, line: Line, coverage: set[tuple[int, int]]) -> None:
        self._line = line
        self._reached = coverage
        self._states: dict[str, int] = {}
        self.position = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            node = await self._line.wait_for()
            watching = node.spawn(self._watch(node, self.position + 1 if self.position else 0))
            await asyncio.wait([watching])
            if not watching.cancelled() and watching.exception() is not None:
                self.position = 0  # dropped, or another replica has not come so far
            await asyncio.sleep(0.2)

    async def _watch(self, node: WorkNode, start: int) -> None:
        request = pb.WatchActivationsRequest(parent=PARENT, start_revision=start)
        is_whole = bool(start)
        async for response in node.handler("WatchActivations")(request, CALL):
            step = pb.WatchActivationsResponse.FromString(
                response if isinstance(response, bytes) else response.SerializeToString()
            )
            if step.HasField("reset"):
                self.position = 0
                return
            for activation in step.events.activations:
                self._line.work.told.append(Told(step.revision, activation, is_whole))
                is_whole = True
                self._note(activation)
            if start or step.events.snapshot_end:
                self.position, start = step.revision, step.revision

    def _note(self, activation: pb.Activation) -> None:
        before = self._states.get(activation.name)
        if before is not None and before != activation.state:
            self._reached.add((before, activation.state))
        self._states[activation.name] = activation.state


class WallClock:
    """The time of day, which all nodes of these worlds agree on."""

    def __init__(self) -> None:
        self.begin_s = 1.7e9

    def in_s(self, seconds: float) -> Timestamp:
        """So many seconds from now."""
        time = Timestamp()
        time.FromMilliseconds(int((self.begin_s + asyncio.get_running_loop().time() + seconds) * 1000))
        return time


@dataclass(slots=True)
class Outcome:
    """What came of a seed. `reached` are the transitions that its watch told."""

    seed: int
    violations: list[Violation]
    defects: list[str]
    operations: int
    reached: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    text: str = ""


def simulate(seed: int) -> Outcome:
    """Runs a seed and judges it; the same seed gives the same history."""
    coverage = Coverage()
    coverage.begin_seed()
    with coverage.watching():
        outcome, errors = loop.run(_run(seed, coverage))
    outcome.defects = [repr(error) for error in errors]
    return outcome


async def _run(seed: int, coverage: Coverage) -> "tuple[Outcome, list[BaseException | str]]":
    running = asyncio.get_running_loop()
    assert isinstance(running, loop.VirtualLoop)
    rng = random.Random(seed)

    def fork() -> random.Random:
        return random.Random(rng.getrandbits(64))

    history, work, wall = History(running.time), WorkHistory(AGENTS, LEAVING), WallClock()
    retain = rng.choice([60, 10_000])
    nodes: list[Node] = [
        WorkNode(
            name,
            fork(),
            Clocks(rng.uniform(0, 1e6), 1 + rng.uniform(-0.005, 0.005), wall.begin_s, 1.0),
            history,
            retain,
        )
        for name in (("n1", "n2") if seed % 2 else ("n1",))
    ]
    cluster = Cluster(nodes, fork, coverage)
    line = Line(nodes, fork(), history, work)
    cluster.start()
    reached: set[tuple[int, int]] = set()
    watcher = Watcher(line, reached)
    watching = asyncio.ensure_future(watcher.run())
    stale: list[pb.Activation] = []
    workers = [Worker(name, line, fork(), stale, wall) for name in AGENTS]
    at_work = [asyncio.ensure_future(worker.run()) for worker in workers]
    requesters = [Requester(f"requester{number}", line, fork(), wall) for number in range(REQUESTERS)]
    troubles = asyncio.ensure_future(Trouble(cluster, line, fork()).at_random())
    await asyncio.gather(*(requester.run(OPERATIONS // REQUESTERS) for requester in requesters))
    for task in (troubles, *at_work):
        task.cancel()
    await asyncio.sleep(0)
    cluster.heal()
    await cluster.all_serve()
    await _rest(line, work, wall)
    watching.cancel()
    text = "\n".join(str(each) for each in (*work.answers, *work.told))
    return Outcome(seed, check(work), [], line.operations, reached, text), running.errors


async def _rest(line: Line, work: WorkHistory, wall: WallClock) -> None:
    """Until everything must have ended; then every agent comes once more, and is asked for."""
    await asyncio.sleep(LIFE_S + REST_S)
    listed = pb.ListActivationsRequest(parent=PARENT, page_size=1000)
    while (response := await line.ask("ListActivations", listed)) is None:
        pass
    work.final += response.activations
    await asyncio.gather(*(_probe(name, line, work, wall) for name in AGENTS))


async def _probe(name: str, line: Line, work: WorkHistory, wall: WallClock) -> None:
    """A free agent gets as much work as it takes, all of it at once."""
    told = Agent(max_concurrency=AGENTS[name])
    agent_id = name.rsplit("/", 1)[1]
    request = RegisterAgentRequest(
        parent=PARENT, agent_id=agent_id, agent=told, ttl=Duration(seconds=3600), request_id=f"probe-{agent_id}"
    )
    while await line.ask("RegisterAgent", request) is None:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(1)
    activation = pb.Activation(
        selector=AgentSelector(agent=name), deadline=wall.in_s(3600), heartbeat_timeout=Duration(seconds=3600)
    )
    wanted: list[str] = []
    while len(wanted) < AGENTS[name]:
        request_id = f"probe-{agent_id}-{len(wanted)}"  # one whose answer is lost would hold a slot, too
        creation = pb.CreateActivationRequest(parent=PARENT, activation=activation, request_id=request_id)
        response = await line.ask("CreateActivation", creation)
        if response is not None:
            wanted.append(response.activation.name)
    await asyncio.sleep(SERVED_S)
    states_of: Counter[int] = Counter()
    for each in wanted:
        while (read := await line.ask("GetActivation", pb.GetActivationRequest(name=each))) is None:
            pass
        states_of[read.activation.state] += 1
    if not states_of[states.ASSIGNED] or states_of[states.ASSIGNED] + states_of[states.PENDING] < len(wanted):
        work.not_served.append(name)
