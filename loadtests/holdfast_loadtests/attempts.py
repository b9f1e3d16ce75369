"""An attempt at a call, before and after: what is known when it is due, and the record it becomes when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from holdfast_loadtests.calls import CompiledStep
from holdfast_loadtests.codes import error_class, outcome
from holdfast_loadtests.dispatch import Work
from holdfast_loadtests.records import Call
from holdfast_loadtests.tally import Started

NO_CONNECTION: Final = -1


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: the code's name, the last message, what the status said, and how a stream was cut short."""

    code: str
    message: bytes | None
    details: str = ""
    short: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The `number`-th try (from 1) of the step at `position`; `request` is the digest of its messages."""

    work: Work
    position: int
    number: int
    ready: CompiledStep
    phase: str
    due_s: float
    request: str

    @property
    def is_first(self) -> bool:
        """Whether it is the first call of its scenario, whose lateness may be the scheduler's."""
        return self.position == 0 and self.number == 1

    @property
    def labels(self) -> Started:
        """Labels of its metrics."""
        method = self.ready.method
        return Started(method.grpc_type, method.service, method.name, self.phase)

    def ended(self, sent_s: float, done_s: float, lag_s: float, answer: Answer, wrong: str, connection: int) -> Call:
        """Its record; `wrong` says why the answer is not as expected, `""` where it is."""
        due, method = self.work.due, self.ready.method
        return Call(
            ordinal=due.ordinal,
            step=self.position,
            attempt=self.number,
            phase=self.phase,
            scenario=due.scenario.name,
            row=due.row_index,
            service=method.service,
            method=method.name,
            type=method.grpc_type,
            due_s=self.due_s,
            sent_s=sent_s,
            done_s=done_s,
            lag_ms=lag_s * 1000.0,
            code=answer.code,
            outcome=outcome(answer.code, answer.details),
            expected=not wrong,
            connection=connection,
            error_class=error_class(answer.code, answer.details),
            request=self.request,
            note=wrong or answer.details,
        )


def digest(bodies: Sequence[bytes]) -> str:
    """A short digest of the messages sent, to tell whether two runs sent the same."""
    state = blake2b(digest_size=8)
    for body in bodies:
        state.update(len(body).to_bytes(4, "big"))
        state.update(body)
    return state.hexdigest()
