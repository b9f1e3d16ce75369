"""One run of a scenario by a user: its steps one after the other, each attempt recorded, the next begun by its end.

A life is driven by its answers, without a task of its own: a call costs the generator what HTTP/2 costs, not what
waking a coroutine does on top.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from holdfast_loadtests.calls import CompiledStep
from holdfast_loadtests.channels import Channel, Prepared
from holdfast_loadtests.codes import NEVER_SENT
from holdfast_loadtests.dispatch import Work
from holdfast_loadtests.draws import Draws
from holdfast_loadtests.exchanges import Answer
from holdfast_loadtests.framing import frame
from holdfast_loadtests.records import RecordWriter, end_of, labels_of
from holdfast_loadtests.schedule import NO_ROW
from holdfast_loadtests.templates import Scope

if TYPE_CHECKING:
    from holdfast_loadtests.driver import Driver
    from holdfast_loadtests.tally import Lane

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
"""Pauses of `until_definite` double from the first to the greatest; without jitter, so that a seed replays."""

NO_CONNECTION: Final = -1


class ReadyStep:
    """A step with what every call of it shares: header block, and the framed messages where they never change."""

    __slots__ = (
        "_labels",
        "_scenario",
        "after_s",
        "always",
        "compiled",
        "constant",
        "digest",
        "expect",
        "lane",
        "needs",
        "phase",
        "prepared",
        "until_definite_s",
    )

    def __init__(self, scenario: str, compiled: CompiledStep, prepared: Prepared, keeps_digest: bool) -> None:
        self._scenario = scenario
        self._labels: dict[str, str] = {}
        self.compiled = compiled
        self.prepared = prepared
        self.expect = frozenset(compiled.step.expect)
        self.always = compiled.step.always
        self.needs = compiled.needs
        after, limit = compiled.step.after, compiled.step.until_definite
        self.after_s = after.total_seconds() if after is not None else None
        self.until_definite_s = limit.total_seconds() if limit is not None else None
        bodies = compiled.bodies(Scope({}, {}, 0, Draws(0, 0, 0))) if compiled.is_constant else None
        self.constant = frame(bodies) if bodies is not None else None
        self.digest = digest(bodies) if bodies is not None and keeps_digest else ""
        self.phase = ""
        self.lane: Lane | None = None

    def labels(self, phase: str) -> str:
        """What lines of its calls in a phase have in common, in the record."""
        found = self._labels.get(phase)
        if found is None:
            method = self.compiled.method
            labels = labels_of(phase, self._scenario, method.service, method.name, method.grpc_type)
            found = self._labels[phase] = labels
        return found


class Life:
    """A scenario under way.

    Args:
        driver: what all lives share.
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
        "_digest",
        "_driver",
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

    def __init__(self, driver: "Driver", user: int, work: Work, channel: Channel, now_s: float) -> None:
        self.user = user
        self.work = work
        self._driver = driver
        self._channel = channel
        self._steps = driver.steps[work.due.scenario.name]
        self._captured: dict[str, Any] = {}
        self.free_s = max(work.due_s, work.free_s, now_s)
        self._failed = False
        self._position = 0

    def go_on(self) -> None:
        """Begins the next step that can run, now or when it is due; ends the life where there is none."""
        steps, driver, work = self._steps, self._driver, self.work
        while self._position < len(steps):
            ready = steps[self._position]
            if (self._failed and not ready.always) or (ready.needs and not ready.needs <= self._captured.keys()):
                self._position += 1
                continue
            if ready.after_s is not None:
                driver.at(self, work.due_s + ready.after_s, self._begin)
                return
            due_s = work.due_s if self._position == 0 else self.free_s
            if due_s >= driver.dispatcher.stop_s:
                driver.ended(self, cut_short=True)
                return
            self._begin(due_s)
            return
        driver.ended(self)

    def _begin(self, due_s: float) -> None:
        """The step's first attempt."""
        ready = self._steps[self._position]
        data = ready.constant
        self._digest = ready.digest
        if data is None:
            bodies = ready.compiled.bodies(self._scope())
            data = frame(bodies)
            if self._driver.record is not None:
                self._digest = digest(bodies)
        self._bodies = data
        self._attempt = 1
        if due_s > self.free_s:
            self.free_s = due_s
        self._until_s = due_s + ready.until_definite_s if ready.until_definite_s is not None else due_s
        self._send(due_s)

    def _send(self, due_s: float) -> None:
        driver = self._driver
        ready = self._steps[self._position]
        self._due_s = due_s
        self._phase = driver.phases.at(due_s)
        if ready.phase != self._phase or ready.lane is None:
            ready.phase, ready.lane = self._phase, driver.lane(ready.compiled.method, self._phase)
        self._lane = ready.lane
        self._sent_s = sent_s = driver.clock.now_s()
        if driver.gave_up:
            self._end(Answer(NEVER_SENT, None, "the run ended while calls before it were still waiting"), sent_s)
            return
        scheduler_late_s = self.work.late_s if self._position == 0 and self._attempt == 1 else 0.0
        self._lag_s = max(0.0, sent_s - max(due_s, self.free_s), scheduler_late_s)
        self._lane.start(self._lag_s)
        driver.tally.in_flight += 1
        self._channel.start(ready.prepared, self._bodies, self._answered)

    def _answered(self, answer: Answer) -> None:
        driver = self._driver
        done_s = driver.clock.now_s()
        ready = self._steps[self._position]
        wrong = ""
        if answer.code not in ready.expect:
            wrong = answer.details or f"expected {' or '.join(ready.compiled.step.expect)}"
        elif answer.short:
            wrong = answer.short
        elif answer.code == "OK" and ready.compiled.reads_answer:
            wrong = self._misses(ready.compiled, answer)
        driver.tally.in_flight -= 1
        self._lane.end(answer.code, done_s - self._due_s, not wrong)
        driver.tally.judge(answer.outcome, not wrong)
        if driver.record is not None:
            self._write(driver.record, answer, wrong, done_s)
        if wrong:
            driver.note(ready.compiled.method, answer.code, wrong)
        self.free_s = done_s
        if wrong and answer.outcome in ("indefinite", "refused") and self._tries_again(done_s):
            return
        self._failed = self._failed or bool(wrong)
        self._position += 1
        self.go_on()

    def _tries_again(self, done_s: float) -> bool:
        due_s = done_s + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._attempt - 1, 10))
        if due_s > self._until_s or self._driver.dispatcher.is_stopped:
            return False
        self._attempt += 1
        self.free_s = due_s
        self._driver.at(self, due_s, self._send)
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
        driver = self._driver
        due_s = self.work.due_s + (ready.after_s or 0.0)
        if due_s < driver.dispatcher.stop_s:
            self._due_s, self._attempt, self._digest = due_s, 1, ""
            self._phase = driver.phases.at(due_s)
            self._lane = driver.lane(ready.compiled.method, self._phase)
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
        driver = self._driver
        now_s = driver.clock.now_s()
        self._sent_s, self._lag_s = now_s, 0.0
        self._lane.never_sent += 1
        driver.tally.judge("never_sent", expected=False)
        if driver.record is not None:
            self._write(driver.record, answer, answer.details, now_s)

    def _scope(self) -> Scope:
        driver, due = self._driver, self.work.due
        row = driver.rows[due.scenario.name][due.row_index] if due.row_index != NO_ROW else {}
        return Scope(row, self._captured, due.ordinal, Draws(driver.seed, due.ordinal, self._position))

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


def digest(bodies: Sequence[bytes]) -> str:
    """A short digest of the messages sent, to tell whether two runs sent the same."""
    state = blake2b(digest_size=8)
    for body in bodies:
        state.update(len(body).to_bytes(4, "big"))
        state.update(body)
    return state.hexdigest()
