"""Drives a load: users take scenarios from the dispatcher and live them, until the load has ended and is drained."""

import asyncio

from holdfast_loadtests.answers import given_up
from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.channels import Channel, expire
from holdfast_loadtests.clock import RunClock
from holdfast_loadtests.course import Course
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.dispatch import Dispatcher, Work
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.lives import Life
from holdfast_loadtests.ready import make_ready
from holdfast_loadtests.records import RecordWriter
from holdfast_loadtests.schedule import Tables, schedule
from holdfast_loadtests.shares import WHOLE, Share
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.targets import Target


class Driver:
    """One load, from its start to its last answer.

    Args:
        spec: the load.
        tables: its rows.
        seed: fixes the schedule and what is drawn.
        descriptors: of the target's services.
        target: where the calls go.
        record: gets every call; None where totals are enough.
        share: the part of the schedule that is made here.

    Attributes:
        course: what its lives share, totals among it.
        channels: what calls are sent by; add some before the start.
        expiry: the deadlines of calls that are under way.
        ended_by_stop: calls that had ended when the load did.
        unended: calls that were still under way when the load had waited for them long enough.
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
        clock = RunClock()
        self.dispatcher = Dispatcher(
            share.of(schedule(spec, tables, seed)), clock, closed=spec.users is not None, begin=self._begin
        )
        steps = {
            name: tuple(make_ready(name, step, target, keeps_digest=record is not None) for step in steps)
            for name, steps in compile_calls(spec, descriptors).items()
        }
        rows = {scenario.name: tables.get(scenario.table or "", ()) for scenario in spec.all_scenarios()}
        self.course = Course(clock, self.dispatcher, steps, rows, seed, record)
        self.channels: list[Channel] = []
        self.expiry = Expiry(asyncio.get_running_loop(), expire)
        self.ended_by_stop = 0
        self.unended = 0
        deadline_max_s = max(spec.deadline_s(step) for one in spec.all_scenarios() for step in one.steps)
        self._begin_limit_s = 2 * deadline_max_s + 1.0
        self._end_limit_s = deadline_max_s + 1.0

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
        self.ended_by_stop = self.course.tally.ended
        self.course.wake_all()
        for work in await self.dispatcher.drain(self._begin_limit_s):
            self._abandon(work, "the run ended before a user or its row was free")
        self.course.gave_up = True
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

    def _begin(self, user: int, work: Work, idle_since_s: float) -> None:
        Life(self.course, user, work, self.channels[user % len(self.channels)], idle_since_s).go_on()

    def _abandon(self, work: Work, why: str) -> None:
        Life(self.course, -1, work, self.channels[0], self.course.clock.now_s()).abandon(why)
