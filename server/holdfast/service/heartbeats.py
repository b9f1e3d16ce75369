"""Heartbeats of activations: few are written, and yet nobody is given up early.

Whoever waits for an owner knows only of what is written. So a heartbeat is written when the last one that this replica
wrote began a third of `heartbeat_timeout` ago, or another replica wrote since; and all wait 4/3 of `heartbeat_timeout`
from what is written (`activations.SILENCE_FACTOR`). The time is counted from before the write on, which all others
learn of only after it: so whatever their clocks and delays are, no owner is given up within `heartbeat_timeout` of a
heartbeat that was acknowledged.
"""

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.coordination.v1.activation_service_pb2 import Activation, ActivationProgress, HeartbeatActivationRequest
from holdfast.core.activations.creating import ms
from holdfast.core.activations.entry import ActivationEntry, Reader, shown
from holdfast.core.activations.owning import Saying, check_working, touch
from holdfast.core.state import Plan
from holdfast.errors import HoldfastError, Reason
from holdfast.store.interface import Txn

WRITTEN_SHARE = 1 / 3
"""Share of `heartbeat_timeout` after which a heartbeat is written."""

PROGRESS_BURST = 10
"""Changes of progress that may come at once; each is a write."""

PROGRESS_PER_S = 1.0
"""Changes of progress per second beyond that: more is a loop that ran away, and is RATE_LIMITED."""

BEATS_MAX = 100_000
"""Activations of which is remembered what was written; beyond, the longest ago is forgotten and written again."""


@dataclass(slots=True)
class _Beat:
    """What this replica wrote last about an activation: its revision, when that began, and what is still allowed."""

    fence: int
    revision: int
    begun_s: float
    allowance: float
    allowed_s: float


class Heartbeats:
    """Decides what of a heartbeat is written; one for all handlers of a replica.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, _Beat] = {}

    def decide(self, reader: Reader, request: HeartbeatActivationRequest, saying: Saying) -> Plan[Activation]:
        """Decides HeartbeatActivation. What is answered without a write rests on a view that must be fresh.

        Raises:
            HoldfastError: As `owning.check_working`; RATE_LIMITED when progress changes too often.
        """
        entry = check_working(reader, saying)
        progress = request.progress if _is_news(entry, request) else None
        if progress is not None:
            self._spend(entry)
        elif not self._is_due(entry):
            answer = shown(entry, is_brief=True)
            return Plan(Txn(), lambda _: answer)
        begun_s = self._clock()
        plan = touch(reader, saying, progress)

        def answer_written(revision: int) -> Activation:
            self._note(entry, revision, begun_s)
            return plan.answer(revision)

        return Plan(plan.txn, answer_written)

    def _is_due(self, entry: ActivationEntry) -> bool:
        beat = self._beats.get(entry.name)
        if beat is None or beat.revision != entry.mod_revision:
            return True
        timeout_s = ms(entry.record.activation.heartbeat_timeout) / 1000
        return self._clock() - beat.begun_s >= timeout_s * WRITTEN_SHARE

    def _note(self, entry: ActivationEntry, revision: int, begun_s: float) -> None:
        beat = self._beat(entry)
        beat.revision, beat.begun_s = revision, begun_s

    def _beat(self, entry: ActivationEntry) -> _Beat:
        """What is remembered of an activation under its owner; the newest are the last."""
        beat = self._beats.pop(entry.name, None)
        if beat is None or beat.fence != entry.fence:
            beat = _Beat(entry.fence, 0, 0.0, PROGRESS_BURST, self._clock())
        self._beats[entry.name] = beat
        if len(self._beats) > BEATS_MAX:
            del self._beats[next(iter(self._beats))]
        return beat

    def _spend(self, entry: ActivationEntry) -> None:
        """Takes one change of progress from what an activation is allowed.

        Raises:
            HoldfastError: RATE_LIMITED.
        """
        beat, now_s = self._beat(entry), self._clock()
        earned = (now_s - beat.allowed_s) * PROGRESS_PER_S
        beat.allowance, beat.allowed_s = min(PROGRESS_BURST, beat.allowance + earned), now_s
        if beat.allowance < 1:
            raise HoldfastError(
                Reason.RATE_LIMITED,
                f"{entry.name} has told {PROGRESS_BURST} changes of progress at once and may tell {PROGRESS_PER_S:g} "
                "in a second; send heartbeats without progress, or less often.",
                subject=entry.name,
            )
        beat.allowance -= 1

    def forget(self, name: str) -> None:
        """Lets go of an activation that is not worked on here any more."""
        self._beats.pop(name, None)


def _is_news(entry: ActivationEntry, request: HeartbeatActivationRequest) -> bool:
    """Whether it says another progress than is known."""
    if not request.HasField("progress"):
        return False
    known = ActivationProgress()
    known.CopyFrom(entry.state.progress)
    known.ClearField("time")
    return known != request.progress or not entry.state.HasField("progress")
