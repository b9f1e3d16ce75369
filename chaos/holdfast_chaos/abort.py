"""The rules that end a run early: a guard for what the experiment must not do to the service."""

from collections import deque
from collections.abc import Sequence

from holdfast_chaos.experiment import AbortRule
from holdfast_loadtests.codes import SERVER_FAULTS
from holdfast_loadtests.snapshots import Snapshot

RATIO_OVER_S = 2.0
"""An error ratio is taken over the calls of this long, so that it follows the service and not the whole run."""


class AbortWatch:
    """Follows the load's snapshots and says when a rule has been broken for as long as it allows."""

    def __init__(self, rules: Sequence[AbortRule]) -> None:
        self._rules = rules
        self._broken_since_s: dict[int, float] = {}
        self._recent: deque[tuple[float, int, int]] = deque()

    def broken(self, snapshot: Snapshot, now_s: float) -> AbortRule | None:
        """The first rule whose limit has been exceeded without a break for its whole time, if any."""
        values = {"error_ratio": self._error_ratio(snapshot, now_s), "p95_ms": snapshot.p95_ms}
        for index, rule in enumerate(self._rules):
            if not rule.exceeded_by(values[rule.measure]):
                self._broken_since_s.pop(index, None)
            elif now_s - self._broken_since_s.setdefault(index, now_s) >= rule.for_.total_seconds():
                return rule
        return None

    def _error_ratio(self, snapshot: Snapshot, now_s: float) -> float:
        """Of the calls that ended, those that failed by the service's fault: Unavailable did, NotFound is an answer."""
        ended = sum(snapshot.counts.values())
        failed = sum(count for (_, _, code), count in snapshot.counts.items() if code in SERVER_FAULTS)
        self._recent.append((now_s, ended, failed))
        while self._recent[0][0] < now_s - RATIO_OVER_S:
            self._recent.popleft()
        _, ended_before, failed_before = self._recent[0]
        return (failed - failed_before) / max(ended - ended_before, 1)
