"""The agents of one process: they register, take work, vote, and begin anew whenever their session is lost."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from holdfast.client import Assignments, Client, HoldError, HoldfastError, Session, Work, WorkFailedError
from holdfast.client.errors import AlreadyVotedError, DecisionClosedError, NotElectorError
from holdfast.coordination.v1.decision_service_pb2 import DECISION_STATE_OPEN, Decision
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from holdfast_loadtests.fleet.guarded import GuardedResource
from holdfast_loadtests.fleet.history import Recorder

CAPABILITY: Final = "fleet-work"
"""What every agent of a fleet can do, and callers ask for."""

_BEGIN_AGAIN_S: Final = 0.5
"""Between a session that was lost, or refused, and the next."""

_VOTES_MAX: Final = 8
"""How often a vote is cast where answers are lost; a repeated one is refused as ALREADY_VOTED, and so is harmless."""


@dataclass(frozen=True)
class Habits:
    """How agents of a fleet behave. Times are in seconds; shares are of the work that comes."""

    ttl_s: float = 6.0
    slots: int = 2
    work_s_max: float = 0.6
    declined: float = 0.02
    failed: float = 0.02
    dissent: float = 0.02


class Agents:
    """Agents that live in one process.

    Args:
        client: open.
        names: their ids.
        habits: how they behave.
        rng: every choice they make.
        history: what they saw.
        resource: what their work writes to; None: to nothing.
    """

    def __init__(
        self,
        client: Client,
        names: Sequence[str],
        habits: Habits,
        rng: Random,
        history: Recorder,
        resource: GuardedResource | None,
    ) -> None:
        self._client = client
        self._names = names
        self._habits = habits
        self._rng = rng
        self._history = history
        self._resource = resource
        self._sessions: dict[str, Session] = {}
        self._open: dict[str, Decision] = {}
        self._votes: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.all_registered = asyncio.Event()

    async def live(self) -> None:
        """Lives until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear_decisions())
            for name in self._names:
                tasks.create_task(self._live_as(name))

    async def _live_as(self, name: str) -> None:
        spec = Agent(capabilities=[Capability(id=CAPABILITY)], max_concurrency=self._habits.slots)
        while True:
            with suppress(HoldfastError):  # lost or refused: begin another
                async with self._client.session(name, ttl_s=self._habits.ttl_s, spec=spec) as session:
                    self._history.write(
                        "registered", agent=session.agent.name, fence=session.agent.fence, slots=self._habits.slots
                    )
                    await self._work(session)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * _BEGIN_AGAIN_S)

    async def _work(self, session: Session) -> None:
        name = session.agent.name
        self._sessions[name] = session
        if len(self._sessions) == len(self._names):
            self.all_registered.set()
        self._consider()
        try:
            async with session.activations() as assignments, asyncio.TaskGroup() as tasks:
                await self._take(assignments, name, tasks)
        except* HoldfastError as errors:
            self._history.write("session_lost", agent=name, why=str(errors.exceptions[0])[:200])
        finally:
            del self._sessions[name]

    async def _take(self, assignments: Assignments, name: str, tasks: asyncio.TaskGroup) -> None:
        async for work in assignments:
            tasks.create_task(self._do(work, name))

    async def _do(self, work: Work, name: str) -> None:
        told = {"activation": work.name, "agent": name, "fence": work.activation.fence}
        chance = self._rng.random()
        try:
            if chance < self._habits.declined:
                await work.decline("not now")
                self._history.write("declined", **told)
                return
            async with work:
                await self._labour(work, told, chance < self._habits.declined + self._habits.failed)
        except WorkFailedError:
            self._history.write("failed", **told)
        except HoldfastError as error:
            self._history.write("gave_up", **told, why=str(error)[:200])
        else:
            self._history.write("completed", **told)

    async def _labour(self, work: Work, told: Mapping[str, object], fails: bool) -> None:
        self._history.write("began", **told)
        self._write(work, told)
        await asyncio.sleep(self._rng.uniform(0.1, 1.0) * self._habits.work_s_max)
        if fails:
            raise WorkFailedError("it went wrong this time", reason="CHANCE", retryable=True)
        self._write(work, told)

    def _write(self, work: Work, told: Mapping[str, object]) -> None:
        if self._resource is not None:
            accepted = self._resource.write(work.name.rpartition("/")[2], work.fence, str(told["agent"]))
            self._history.write("wrote" if accepted else "write_refused", **told)

    # ── votes

    async def _hear_decisions(self) -> None:
        while True:
            with suppress(HoldfastError):
                async for step in self._client.decisions.watch("state = OPEN"):
                    for decision in step.items:
                        if decision.state == DECISION_STATE_OPEN:
                            self._open[decision.name] = decision
                        else:
                            self._open.pop(decision.name, None)
                    self._consider()
            await asyncio.sleep(_BEGIN_AGAIN_S)

    def _consider(self) -> None:
        """Has each agent vote once on each open decision that it is an elector of."""
        self._votes = {key: task for key, task in self._votes.items() if key[0] in self._open or not task.done()}
        for decision in self._open.values():
            for elector in decision.electors:
                key = (decision.name, elector.agent)
                if elector.agent in self._sessions and key not in self._votes:
                    self._votes[key] = asyncio.create_task(self._vote(decision, self._sessions[elector.agent]))

    async def _vote(self, decision: Decision, session: Session) -> None:
        agrees = self._rng.random() >= self._habits.dissent
        option = decision.options[0 if agrees else -1].id
        told = {"decision": decision.name, "agent": session.agent.name, "option": option}
        for _ in range(_VOTES_MAX):
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))
            try:
                await session.vote(decision.name, option)
            except (AlreadyVotedError, DecisionClosedError, NotElectorError, HoldError) as error:
                self._history.write("vote_refused", **told, why=error.reason)
                if isinstance(error, HoldError):
                    self._votes.pop((decision.name, session.agent.name), None)  # its next session may
                return
            except HoldfastError:
                continue
            self._history.write("voted", **told)
            return
