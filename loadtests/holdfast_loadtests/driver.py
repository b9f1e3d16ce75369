"""Drives the load: users take scenarios from the dispatcher and live them; each attempt is counted, or recorded too."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from holdfast_loadtests.calls import CompiledStep, compile_calls
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.clock import PhaseLog, RunClock
from holdfast_loadtests.descriptors import Descriptors, Method
from holdfast_loadtests.dispatch import Dispatcher, Work
from holdfast_loadtests.exchanges import given_up
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.lives import Life, ReadyStep
from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.records import RecordWriter
from holdfast_loadtests.schedule import Tables, schedule
from holdfast_loadtests.shares import WHOLE, Share
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.tally import Lane, Started, Tally
from holdfast_loadtests.targets import Target

NOTES_MAX: Final = 100
"""Different wrong answers that are kept in words; all are counted."""


class Driver:
    """Everything users share: schedule, record, totals. Times are unix seconds of `clock`.

    Args:
        spec: the load.
        tables: its rows.
        seed: fixes the schedule and what is drawn.
        descriptors: of the target's services.
        target: where the calls go.
        record: gets every call; None where totals are enough.
        share: the part of the schedule that is made here.
    """

    def __init__(
        self,
        spec: LoadSpec,
        tables: Tables,
        seed: int,
        descriptors: Descriptors,
        target: Target,
        record: RecordWriter | None,
        share: Share = WHOLE,
    ) -> None:
        self.clock = RunClock()
        self.phases = PhaseLog("")
        self.tally = Tally()
        self.record = record
        self.seed = seed
        self.gave_up = False
        self.ended_by_stop = 0
        self.unended = 0
        self.notes: Counter[tuple[str, str]] = Counter()
        self.channels: list[Channel] = []
        self.dispatcher = Dispatcher(
            share.of(schedule(spec, tables, seed)), self.clock, closed=spec.users is not None, begin=self._begin
        )
        self.steps = {
            name: tuple(_ready(name, step, target, keeps_digest=record is not None) for step in steps)
            for name, steps in compile_calls(spec, descriptors).items()
        }
        self.rows = {scenario.name: tables.get(scenario.table or "", ()) for scenario in spec.all_scenarios()}
        deadline_max_s = max(spec.deadline_s(step) for one in spec.all_scenarios() for step in one.steps)
        self._begin_limit_s = 2 * deadline_max_s + 1.0
        self._end_limit_s = deadline_max_s + 1.0
        self._loop = asyncio.get_running_loop()
        self.expiry = Expiry(self._loop, expire)
        self._sleeping: dict[Life, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}

    @property
    def drain_limit_s(self) -> float:
        """The longest that `drain` may take."""
        return self._begin_limit_s + self._end_limit_s

    async def drain(self) -> None:
        """Nothing falls due from now on; waits for what was due, and records what it gives up on.

        What cannot begin was never sent. A call that is under way still, though its deadline must have passed, is
        cancelled, and counted in `unended` too.
        """
        self.dispatcher.stop()
        self.ended_by_stop = self.tally.ended
        for timer, wake in list(self._sleeping.values()):  # a step that was due by now is made, any other ends its life
            timer.cancel()
            wake()
        for work in await self.dispatcher.drain(self._begin_limit_s):
            self._abandon(work, "the run ended before a user or its row was free")
        self.gave_up = True
        await self.dispatcher.wait_idle(self._end_limit_s)
        for exchange in self.expiry.under_way():
            was_sent = exchange.link is not None
            self.unended += was_sent
            exchange.stop(given_up(was_sent))

    def record_refused(self) -> None:
        """Records scenarios that the full backlog refused."""
        refused, self.dispatcher.refused = self.dispatcher.refused, []
        for work in refused:
            self._abandon(work, "the backlog of due scenarios is full")

    def lane(self, method: Method, phase: str) -> Lane:
        """Where calls of a method in a phase are counted."""
        return self.tally.lane(Started(method.grpc_type, method.service, method.name, phase))

    def note(self, method: Method, code: str, wrong: str) -> None:
        """Keeps what was wrong with an answer, in words, by `service/method`."""
        key = (f"{method.service}/{method.name}", f"{code}: {wrong}"[:300])
        if key in self.notes or len(self.notes) < NOTES_MAX:
            self.notes[key] += 1

    def at(self, life: Life, due_s: float, then: Callable[[float], None]) -> None:
        """Calls back with `due_s` once it has come; ends the life where that is after the end of the load."""
        if due_s >= self.dispatcher.stop_s:
            self.ended(life, cut_short=True)
            return
        wait_s = due_s - self.clock.now_s()
        if wait_s <= 0.0:
            then(due_s)
            return

        def wake() -> None:
            del self._sleeping[life]
            self.at(life, due_s, then)

        self._sleeping[life] = self._loop.call_later(math.ceil(wait_s * 1000.0) / 1000.0, wake), wake

    def ended(self, life: Life, cut_short: bool = False) -> None:
        """A life is over, perhaps by the end of the load before its last step: its user is free."""
        self.dispatcher.done(life.user, life.work, life.free_s, cut_short)

    def _begin(self, user: int, work: Work, idle_since_s: float) -> None:
        Life(self, user, work, self.channels[user % len(self.channels)], idle_since_s).go_on()

    def _abandon(self, work: Work, why: str) -> None:
        Life(self, -1, work, self.channels[0], self.clock.now_s()).abandon(why)


def _ready(scenario: str, step: CompiledStep, target: Target, keeps_digest: bool) -> ReadyStep:
    method = step.method
    pace = step.step.pace
    prepared = Prepared(
        block=target.block(method.path, step.deadline_s, wire_metadata(step.step.metadata.items())),
        deadline_s=step.deadline_s,
        takes_many=method.grpc_type in ("server_stream", "bidi_stream"),
        receive=step.step.receive,
        pace=pace.total_seconds() if isinstance(pace, timedelta) else pace,
    )
    return ReadyStep(scenario, step, prepared, keeps_digest)
