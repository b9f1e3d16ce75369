"""One run of a scenario by a user: its steps one after the other, each attempt recorded, the next begun by its end.

A life is driven by its answers, without a task of its own: a call costs the generator what HTTP/2 costs, not what
waking a coroutine does on top.
"""

from typing import Any, Final

from google.protobuf.message import DecodeError

from holdfast_loadtests.answers import Answer
from holdfast_loadtests.calls import CompiledStep
from holdfast_loadtests.channels import Channel
from holdfast_loadtests.codes import NEVER_SENT
from holdfast_loadtests.course import Course
from holdfast_loadtests.dispatch import Work
from holdfast_loadtests.draws import Draws
from holdfast_loadtests.framing import frame
from holdfast_loadtests.ready import digest
from holdfast_loadtests.records import RecordWriter, end_of
from holdfast_loadtests.schedule import NO_ROW
from holdfast_loadtests.templates import Scope

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
"""Pauses of `until_definite` double from the first to the greatest; without jitter, so that a seed replays."""

NO_CONNECTION: Final = -1


class Life:
    """A scenario under way.

    Args:
        course: what all lives share.
        user: the number of the user that runs it.
        work: the scenario, and when it was due.
        channel: what its calls are sent by.
        now_s: when the user was free for it.
    """

    __slots__ = (
        "_attempt",
        "_bodies",
        "_captured",
        "_channel",
        "_course",
        "_digest",
        "_due_s",
        "_failed",
        "_lag_s",
        "_lane",
        "_phase",
        "_position",
        "_sent_s",
        "_steps",
        "_until_s",
        "free_s",
        "user",
        "work",
    )

    def __init__(self, course: Course, user: int, work: Work, channel: Channel, now_s: float) -> None:
        self.user = user
        self.work = work
        self._course = course
        self._channel = channel
        self._steps = course.steps[work.due.scenario.name]
        self._captured: dict[str, Any] = {}
        self.free_s = max(work.due_s, work.free_s, now_s)
        self._failed = False
        self._position = 0

    def go_on(self) -> None:
        """Begins the next step that can run, now or when it is due; ends the life where there is none."""
        steps, course, work = self._steps, self._course, self.work
        while self._position < len(steps):
            ready = steps[self._position]
            if (self._failed and not ready.always) or (ready.needs and not ready.needs <= self._captured.keys()):
                self._position += 1
                continue
            if ready.after_s is not None:
                course.at(work.due_s + ready.after_s, self._begin, self._cut_short)
                return
            due_s = work.due_s if self._position == 0 else self.free_s
            if due_s >= course.dispatcher.stop_s:
                self._over(cut_short=True)
                return
            self._begin(due_s)
            return
        self._over()

    def _over(self, cut_short: bool = False) -> None:
        """It has ended, perhaps by the end of the load before its last step: its user is free."""
        self._course.dispatcher.done(self.user, self.work, self.free_s, cut_short)

    def _cut_short(self) -> None:
        """A step would have been due after the end of the load."""
        self._over(cut_short=True)

    def _begin(self, due_s: float) -> None:
        """The step's first attempt."""
        ready = self._steps[self._position]
        data = ready.constant
        self._digest = ready.digest
        if data is None:
            bodies = ready.compiled.bodies(self._scope())
            data = frame(bodies, ready.compressed)
            if self._course.record is not None:
                self._digest = digest(bodies)
        self._bodies = data
        self._attempt = 1
        if due_s > self.free_s:
            self.free_s = due_s
        self._until_s = due_s + ready.until_definite_s if ready.until_definite_s is not None else due_s
        self._send(due_s)

    def _send(self, due_s: float) -> None:
        course = self._course
        ready = self._steps[self._position]
        self._due_s = due_s
        self._phase = course.phases.at(due_s)
        if ready.phase != self._phase or ready.lane is None:
            ready.phase, ready.lane = self._phase, course.lane(ready.compiled.method, self._phase)
        self._lane = ready.lane
        self._sent_s = sent_s = course.clock.now_s()
        if course.gave_up:
            self._end(Answer(NEVER_SENT, None, "the run ended while calls before it were still waiting"), sent_s)
            return
        scheduler_late_s = self.work.late_s if self._position == 0 and self._attempt == 1 else 0.0
        self._lag_s = max(0.0, sent_s - max(due_s, self.free_s), scheduler_late_s)
        self._lane.start(self._lag_s)
        course.tally.in_flight += 1
        self._channel.start(ready.prepared, self._bodies, self._answered)

    def _answered(self, answer: Answer) -> None:
        course = self._course
        done_s = course.clock.now_s()
        ready = self._steps[self._position]
        wrong = ""
        if answer.code not in ready.expect:
            wrong = answer.details or f"expected {' or '.join(ready.compiled.step.expect)}"
        elif answer.short:
            wrong = answer.short
        elif answer.code == "OK" and ready.compiled.reads_answer:
            wrong = self._misses(ready.compiled, answer)
        course.tally.in_flight -= 1
        self._lane.end(answer.code, done_s - self._due_s, not wrong)
        course.tally.judge(answer.outcome, not wrong)
        if course.record is not None:
            self._write(course.record, answer, wrong, done_s)
        if wrong:
            course.note(ready.compiled.method, answer.code, wrong)
        self.free_s = done_s
        if wrong and answer.outcome in ("indefinite", "refused") and self._tries_again(done_s):
            return
        self._failed = self._failed or bool(wrong)
        self._position += 1
        self.go_on()

    def _tries_again(self, done_s: float) -> bool:
        due_s = done_s + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._attempt - 1, 10))
        if due_s > self._until_s or self._course.dispatcher.is_stopped:
            return False
        self._attempt += 1
        self.free_s = due_s
        self._course.at(due_s, self._send, self._cut_short)
        return True

    def _misses(self, compiled: CompiledStep, answer: Answer) -> str:
        """Why an OK is not what the step expects; `""` where it is. Captures what the step asks for."""
        if answer.message is None:
            return "no message to read"
        try:
            message = compiled.method.response_class.FromString(answer.message)
        except DecodeError as error:
            return f"the answer is no {compiled.method.response_class.__name__}: {error}"
        found = {name: path.value_in(message) for name, path in compiled.captures}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            return f"nothing to capture for {', '.join(missing)}"
        self._captured |= found
        return compiled.violation(message, self._scope())

    def abandon(self, why: str) -> None:
        """Records a scenario that will never begin, if its first step was due."""
        ready = self._steps[0]
        course = self._course
        due_s = self.work.due_s + (ready.after_s or 0.0)
        if due_s < course.dispatcher.stop_s:
            self._due_s, self._attempt, self._digest = due_s, 1, ""
            self._phase = course.phases.at(due_s)
            self._lane = course.lane(ready.compiled.method, self._phase)
            self._give_up(Answer(NEVER_SENT, None, why, outcome="never_sent"))

    def _end(self, answer: Answer, now_s: float) -> None:
        """The rest of the life does not take place."""
        answer.outcome = "never_sent"
        self._give_up(answer)
        self._failed = True
        self.free_s = now_s
        self._position += 1
        self.go_on()

    def _give_up(self, answer: Answer) -> None:
        course = self._course
        now_s = course.clock.now_s()
        self._sent_s, self._lag_s = now_s, 0.0
        self._lane.never_sent += 1
        course.tally.judge("never_sent", expected=False)
        if course.record is not None:
            self._write(course.record, answer, answer.details, now_s)

    def _scope(self) -> Scope:
        course, due = self._course, self.work.due
        row = course.rows[due.scenario.name][due.row_index] if due.row_index != NO_ROW else {}
        return Scope(row, self._captured, due.ordinal, Draws(course.seed, due.ordinal, self._position))

    def _write(self, record: RecordWriter, answer: Answer, wrong: str, done_s: float) -> None:
        due, ready = self.work.due, self._steps[self._position]
        is_sent = answer.code != NEVER_SENT
        numbers = (
            due.ordinal,
            self._position,
            self._attempt,
            due.row_index,
            self._channel.number if is_sent else NO_CONNECTION,
            int(self._due_s * 1e6 + 0.5),
            int(self._sent_s * 1e6 + 0.5),
            int(done_s * 1e6 + 0.5),
            int(self._lag_s * 1e6 + 0.5),
        )
        end = end_of(answer.code, answer.outcome, not wrong, answer.broke, wrong or answer.details)
        record.write(numbers, self._digest, ready.labels(self._phase) + end)
