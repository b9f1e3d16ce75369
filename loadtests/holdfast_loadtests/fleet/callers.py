"""The callers of one process: they ask for work and for decisions, and wait until each has ended."""

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry, Counter, Histogram

from holdfast.client import Client, HoldfastError
from holdfast.client.activations import ENDED
from holdfast.coordination.v1 import activation_service_pb2 as work_pb
from holdfast.coordination.v1 import decision_service_pb2 as decision_pb
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast_loadtests.fleet.agents import CAPABILITY
from holdfast_loadtests.fleet.history import Recorder

DECIDED_OR_NOT: Final = (
    decision_pb.DECISION_STATE_DECIDED,
    decision_pb.DECISION_STATE_CANCELLED,
    decision_pb.DECISION_STATE_FAILED,
)
"""States of decisions that are final."""

END_WITHIN_S: Final = 15.0
"""How long after its deadline the end of something may take to be heard of, before it counts as not ended."""

_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
_ENDS_MAX: Final = 10_000
"""Ends kept that nobody has asked for yet: those that were heard of before the answer to their creation."""


@dataclass(frozen=True)
class Wishes:
    """What callers of a fleet ask for. Rates are of each caller, a second; times in seconds."""

    activations_rate: float = 2.0
    decisions_rate: float = 0.25
    attempts: int = 3
    deadline_s: float = 30.0
    heartbeat_timeout_s: float = 5.0
    consensus_deadline_s: float = 40.0
    electors: int = 9


class CallerMetrics:
    """What callers saw, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.activations = Counter(
            "holdfast_caller_activations", "Activations by how they ended, as their callers saw it.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.decisions = Histogram(
            "holdfast_caller_decision_seconds", "From asking for a decision to its end, as its caller saw it.",
            ["outcome"], buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.activations.labels("succeeded")
        self.decisions.labels("decided")


class Observer:
    """Watches all activations and decisions of the namespace: records each change, and says when one has ended."""

    def __init__(self, client: Client, history: Recorder) -> None:
        self._client = client
        self._history = history
        self._ends: OrderedDict[str, asyncio.Future[Any]] = OrderedDict()

    async def watch(self) -> None:
        """Goes on until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch("activation", self._client.activations.watch, self._activation))
            tasks.create_task(self._watch("decision", self._client.decisions.watch, self._decision))

    async def end_of(self, name: str, within_s: float) -> Any:  # noqa: ANN401 - an activation or a decision
        """The resource as it ended.

        Raises:
            TimeoutError: it was not heard of in time.
        """
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(self._end(name))
        finally:
            self._ends.pop(name, None)

    async def _watch(self, kind: str, watch: Any, take: Any) -> None:  # noqa: ANN401 - of either service
        while True:
            with suppress(HoldfastError):
                async for step in watch():
                    if type(step).__name__ == "Snapshot":
                        self._history.write("snapshot", kind=kind, revision=step.revision)
                    for item in step.items:
                        take(item, step.revision)
            await asyncio.sleep(0.5)

    def _activation(self, item: work_pb.Activation, revision: int) -> None:
        state = work_pb.ActivationState.Name(item.state).removeprefix("ACTIVATION_STATE_")
        self._history.write(
            "activation", revision=revision, name=item.name, state=state, agent=item.agent, fence=item.fence,
            attempt=item.attempt, attempts_max=item.retry_policy.max_attempts,
        )  # fmt: skip
        if item.state in ENDED:
            self._ended(item)

    def _decision(self, item: decision_pb.Decision, revision: int) -> None:
        self._history.write("decision", revision=revision, **described(item))
        if item.state in DECIDED_OR_NOT:
            self._ended(item)

    def _ended(self, item: Any) -> None:  # noqa: ANN401 - an activation or a decision
        end = self._end(item.name)
        if not end.done():
            end.set_result(item)
        while len(self._ends) > _ENDS_MAX:
            self._ends.popitem(last=False)

    def _end(self, name: str) -> asyncio.Future[Any]:
        return self._ends.setdefault(name, asyncio.get_running_loop().create_future())


class Callers:
    """Callers that live in one process.

    Args:
        client: open.
        count: how many.
        wishes: what they ask for.
        rng: every choice they make.
        history: what they saw.
    """

    def __init__(self, client: Client, count: int, wishes: Wishes, rng: Random, history: Recorder) -> None:
        self._client = client
        self._count = count
        self._wishes = wishes
        self._rng = rng
        self._history = history
        self._observer = Observer(client, history)
        self._pending: set[asyncio.Task[None]] = set()
        self.metrics = CallerMetrics()

    async def ask(self, stop: asyncio.Event) -> None:
        """Asks until it is told to stop, then waits until everything has ended."""
        watching = asyncio.create_task(self._observer.watch())
        asking = [
            asyncio.create_task(self._every(rate, one))
            for _ in range(self._count)
            for rate, one in (
                (self._wishes.activations_rate, self._activation),
                (self._wishes.decisions_rate, self._decision),
            )
            if rate > 0
        ]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, watching, *asking], return_when=asyncio.FIRST_COMPLETED)
        for task in asking:
            task.cancel()
        failed = await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.gather(*self._pending)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for error in failed:
            if isinstance(error, Exception):
                raise error

    async def _every(self, rate: float, one: Any) -> None:  # noqa: ANN401 - one of the two below
        while True:
            await asyncio.sleep(self._rng.expovariate(rate))
            task = asyncio.create_task(one())
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _activation(self) -> None:
        wishes = self._wishes
        asked = work_pb.Activation(
            selector=AgentSelector(all_of=[CAPABILITY]),
            payload=b"work",
            deadline=_in(wishes.deadline_s),
            heartbeat_timeout=_length(wishes.heartbeat_timeout_s),
            retry_policy=work_pb.RetryPolicy(
                max_attempts=wishes.attempts, initial_backoff=_length(0.2), max_backoff=_length(2.0)
            ),
        )
        try:
            created = await self._client.activations.create(asked)
        except HoldfastError as error:
            self._history.write("create_failed", why=str(error)[:200])
            self.metrics.activations.labels("not_created").inc()
            return
        self._history.write("created", activation=created.name)
        try:
            ended = await self._observer.end_of(created.name, wishes.deadline_s + END_WITHIN_S)
        except TimeoutError:
            ended = await self._read(self._client.activations.get, created.name)
        state = "lost" if ended is None else work_pb.ActivationState.Name(ended.state)
        outcome = state.removeprefix("ACTIVATION_STATE_").lower()
        is_over = ended is not None and ended.state in ENDED
        self._history.write("ended" if is_over else "not_ended", activation=created.name, outcome=outcome)
        self.metrics.activations.labels(outcome).inc()

    async def _decision(self) -> None:
        began_s = time.monotonic()
        try:
            electors = await self._electors()
            asked = decision_pb.Decision(
                question="shall we go on?",
                options=[decision_pb.DecisionOption(id=each) for each in ("yes", "no")],
                method=decision_pb.DECISION_METHOD_CONSENSUS,
                electors=[decision_pb.Elector(agent=agent) for agent in electors],
                deadline=_in(self._wishes.consensus_deadline_s),
            )
            opened = await self._client.decisions.create(asked)
        except HoldfastError as error:
            self._history.write("open_failed", why=str(error)[:200])
            self.metrics.decisions.labels("not_opened").observe(time.monotonic() - began_s)
            return
        self._history.write("opened", decision=opened.name, electors=len(electors))
        try:
            ended = await self._observer.end_of(opened.name, self._wishes.consensus_deadline_s + END_WITHIN_S)
        except TimeoutError:
            ended = await self._read(self._client.decisions.get, opened.name)
        took_s = time.monotonic() - began_s
        is_over = ended is not None and ended.state in DECIDED_OR_NOT
        found = {"state": "LOST"} if ended is None else described(ended)
        self._history.write("closed" if is_over else "not_closed", decision=opened.name, **found)
        again = await self._read(self._client.decisions.get, opened.name)
        if again is not None:
            self._history.write("reread", decision=opened.name, **described(again))
        self.metrics.decisions.labels(str(found["state"]).lower()).observe(took_s)

    async def _electors(self) -> list[str]:
        live = [agent.name async for agent in self._client.agents.list(f"capabilities:{CAPABILITY}")]
        return self._rng.sample(live, min(self._wishes.electors, len(live)))

    async def _read(self, get: Any, name: str) -> Any:  # noqa: ANN401 - of either service
        with suppress(HoldfastError):
            return await get(name)
        return None


def described(item: decision_pb.Decision) -> dict[str, object]:
    """What histories hold of a decision."""
    return {
        "name": item.name,
        "state": decision_pb.DecisionState.Name(item.state).removeprefix("DECISION_STATE_"),
        "option": item.outcome.option,
        "close_time_ms": item.close_time.ToMilliseconds(),
    }


def _in(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromMilliseconds(int((time.time() + seconds) * 1000))
    return found


def _length(seconds: float) -> Duration:
    found = Duration()
    found.FromMilliseconds(int(seconds * 1000))
    return found
