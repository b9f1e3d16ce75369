"""What all lives of a load share: time and phases, totals and record, and the steps that wait for their time."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from holdfast_loadtests.clock import PhaseLog, RunClock
from holdfast_loadtests.descriptors import Method
from holdfast_loadtests.dispatch import Dispatcher
from holdfast_loadtests.ready import ReadyStep
from holdfast_loadtests.records import RecordWriter
from holdfast_loadtests.tally import Lane, Started, Tally

NOTES_MAX: Final = 100
"""Different wrong answers that are kept in words; all are counted."""


class Course:
    """The load as its lives know it. Times are unix seconds of `clock`.

    Args:
        clock: the time.
        dispatcher: says when the load ends, and hears of lives that are over.
        steps: of each scenario, by its name.
        rows: that each scenario draws from, by its name.
        seed: fixes what is drawn.
        record: gets every call; None where totals are enough.

    Attributes:
        gave_up: nothing is sent any more; what would be was never sent.
    """

    def __init__(
        self,
        clock: RunClock,
        dispatcher: Dispatcher,
        steps: Mapping[str, Sequence[ReadyStep]],
        rows: Mapping[str, Sequence[Mapping[str, str]]],
        seed: int,
        record: RecordWriter | None,
    ) -> None:
        self.clock = clock
        self.dispatcher = dispatcher
        self.steps = steps
        self.rows = rows
        self.seed = seed
        self.record = record
        self.phases = PhaseLog("")
        self.tally = Tally()
        self.notes: Counter[tuple[str, str]] = Counter()
        self.gave_up = False
        self._loop = asyncio.get_running_loop()
        self._sleeping: dict[object, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}

    def lane(self, method: Method, phase: str) -> Lane:
        """Where calls of a method in a phase are counted."""
        return self.tally.lane(Started(method.grpc_type, method.service, method.name, phase))

    def note(self, method: Method, code: str, wrong: str) -> None:
        """Keeps what was wrong with an answer, in words, by `service/method`."""
        key = (f"{method.service}/{method.name}", f"{code}: {wrong}"[:300])
        if key in self.notes or len(self.notes) < NOTES_MAX:
            self.notes[key] += 1

    def at(self, due_s: float, then: Callable[[float], None], too_late: Callable[[], None]) -> None:
        """Calls `then` with `due_s` once it has come, or `too_late` where that is after the end of the load."""
        if due_s >= self.dispatcher.stop_s:
            too_late()
            return
        wait_s = due_s - self.clock.now_s()
        if wait_s <= 0.0:
            then(due_s)
            return
        sleeper = object()

        def wake() -> None:
            del self._sleeping[sleeper]
            self.at(due_s, then, too_late)

        # Rounded up: the loop counts milliseconds, and a step must not begin before it is due.
        self._sleeping[sleeper] = self._loop.call_later(math.ceil(wait_s * 1000.0) / 1000.0, wake), wake

    def wake_all(self) -> None:
        """After the end of the load: a step that was due by then is made, any other is too late."""
        for timer, wake in list(self._sleeping.values()):
            timer.cancel()
            wake()
