"""Drives the load: Locust's users take scenarios from the dispatcher and send their steps; every attempt is recorded.

Runs on gevent; only the worker imports it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from holdfast_loadtests.attempts import NO_CONNECTION, Answer, Attempt, digest
from holdfast_loadtests.calls import CompiledStep, compile_calls
from holdfast_loadtests.clock import PhaseLog, RunClock
from holdfast_loadtests.codes import NEVER_SENT
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.dispatch import Dispatcher, Work
from holdfast_loadtests.records import Call, RecordWriter
from holdfast_loadtests.schedule import NO_ROW, Tables, schedule
from holdfast_loadtests.sending import Connection
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.tally import Tally
from holdfast_loadtests.templates import Scope, SeededUuids

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
"""Pauses of `until_definite` double from the first to the greatest; without jitter, so that a seed replays."""


@dataclass(slots=True)
class Life:
    """One run of a scenario by a user: what was captured, and when its next call could be sent."""

    work: Work
    connection: Connection
    captured: dict[str, Any]
    free_s: float
    failed: bool = False


class Driver:
    """Everything users share: schedule, record, totals. Times are unix seconds of `clock`."""

    def __init__(self, spec: LoadSpec, tables: Tables, seed: int, descriptors: Descriptors, record: Path) -> None:
        self.clock = RunClock()
        self.phases = PhaseLog("")
        self.tally = Tally()
        self.dispatcher = Dispatcher(schedule(spec, tables, seed), self.clock, closed=spec.users is not None)
        self.record = RecordWriter(record)
        deadline_max_s = max(spec.deadline_s(step) for one in spec.all_scenarios() for step in one.steps)
        self._begin_limit_s = 2 * deadline_max_s + 1.0
        self._end_limit_s = deadline_max_s + 1.0
        self._seed = seed
        self._steps = compile_calls(spec, descriptors)
        self._rows = {scenario.name: tables.get(scenario.table or "", ()) for scenario in spec.all_scenarios()}
        self._gave_up = False

    def live(self, connection: Connection) -> Iterator[Call]:
        """One user's life: scenario after scenario until dismissed; gives each call as it ends."""
        while True:
            idle_since_s = self.clock.now_s()
            work = self.dispatcher.take()
            if work is None:
                return
            life = Life(work, connection, {}, max(work.due_s, work.free_s, idle_since_s))
            try:
                yield from self._run(life)
            finally:
                self.dispatcher.done(work)

    @property
    def drain_limit_s(self) -> float:
        """The longest that `drain` may take."""
        return self._begin_limit_s + self._end_limit_s

    def drain(self) -> None:
        """After `dispatcher.stop()`: waits for what was due, gives up on what cannot begin, and records that."""
        for work in self.dispatcher.drain(self._begin_limit_s):
            self._abandon(work, "the run ended before a user or its row was free")
        self._gave_up = True
        self.dispatcher.wait_idle(self._end_limit_s)

    def record_refused(self) -> None:
        """Records scenarios that the full backlog refused."""
        refused, self.dispatcher.refused = self.dispatcher.refused, []
        for work in refused:
            self._abandon(work, "the backlog of due scenarios is full")

    def _run(self, life: Life) -> Iterator[Call]:
        for position, ready in enumerate(self._steps[life.work.due.scenario.name]):
            failed_before = life.failed and not ready.step.always
            if failed_before or not ready.needs <= life.captured.keys():
                continue
            due_s = self._due_s(life, position, ready)
            if self.dispatcher.sleep_until(due_s):
                return
            bodies = ready.bodies(self._scope(life, position))
            life.free_s = max(life.free_s, due_s)
            first = Attempt(life.work, position, 1, ready, self.phases.at(due_s), due_s, digest(bodies))
            yield from self._attempts(life, first, bodies)

    def _due_s(self, life: Life, position: int, ready: CompiledStep) -> float:
        if ready.step.after is not None:
            return life.work.due_s + ready.step.after.total_seconds()
        return life.work.due_s if position == 0 else life.free_s

    def _attempts(self, life: Life, first: Attempt, bodies: list[bytes]) -> Iterator[Call]:
        limit = first.ready.step.until_definite
        until_s = first.due_s + limit.total_seconds() if limit else first.due_s
        attempt = first
        while True:
            call = self._try(life, attempt, bodies)
            life.free_s = call.done_s
            yield call
            due_s = call.done_s + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempt.number - 1, 10))
            settled = call.expected or call.outcome not in ("indefinite", "refused")
            if settled or due_s > until_s or self.dispatcher.sleep_until(due_s):
                life.failed = life.failed or not call.expected
                return
            life.free_s = due_s
            attempt = replace(attempt, number=attempt.number + 1, due_s=due_s, phase=self.phases.at(due_s))

    def _try(self, life: Life, attempt: Attempt, bodies: list[bytes]) -> Call:
        sent_s = self.clock.now_s()
        if self._gave_up:
            return self._give_up(attempt, "the run ended while calls before it were still waiting")
        scheduler_late_s = attempt.work.late_s if attempt.is_first else 0.0
        lag_s = max(0.0, sent_s - max(attempt.due_s, life.free_s), scheduler_late_s)
        self.tally.start(attempt.labels, lag_s)
        step = attempt.ready.step
        answer = life.connection.send(attempt.ready.method, bodies, attempt.ready.deadline_s, step.receive)
        done_s = self.clock.now_s()
        wrong = self._wrong(life, attempt, answer)
        call = attempt.ended(sent_s, done_s, lag_s, answer, wrong, life.connection.number)
        self.tally.end(call)
        self.record.write(call)
        return call

    def _wrong(self, life: Life, attempt: Attempt, answer: Answer) -> str:
        """Why the answer is not what the step expects; `""` where it is. Captures what the step asks for."""
        ready = attempt.ready
        if answer.code not in ready.step.expect:
            return answer.details or f"expected {' or '.join(ready.step.expect)}"
        if answer.short:
            return answer.short
        if answer.code != "OK" or not ready.reads_answer:
            return ""
        if answer.message is None:
            return "no message to read"
        message = ready.method.response_class.FromString(answer.message)
        found = {name: path.value_in(message) for name, path in ready.captures}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            return f"nothing to capture for {', '.join(missing)}"
        life.captured |= found
        return ready.violation(message, self._scope(life, attempt.position))

    def _abandon(self, work: Work, why: str) -> None:
        ready = self._steps[work.due.scenario.name][0]
        after_s = ready.step.after.total_seconds() if ready.step.after else 0.0
        due_s = work.due_s + after_s
        if due_s < self.dispatcher.stop_s:
            self._give_up(Attempt(work, 0, 1, ready, self.phases.at(due_s), due_s, ""), why)

    def _give_up(self, attempt: Attempt, why: str) -> Call:
        now_s = self.clock.now_s()
        call = attempt.ended(now_s, now_s, 0.0, Answer(NEVER_SENT, None, why), why, NO_CONNECTION)
        self.tally.give_up(call)
        self.record.write(call)
        return call

    def _scope(self, life: Life, position: int) -> Scope:
        due = life.work.due
        row = self._rows[due.scenario.name][due.row_index] if due.row_index != NO_ROW else {}
        uuids = SeededUuids(self._seed, due.ordinal, position)

        def value(name: str) -> object:
            if "." in name:
                return row[name.partition(".")[2]]
            if name == "uuid":
                return uuids.next()
            return due.ordinal if name == "counter" else life.captured[name]

        return value
