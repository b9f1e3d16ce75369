"""What a load without a record found: totals and histograms, merged bucket for bucket."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast_loadtests.histogram import Histogram, merged
from holdfast_loadtests.summary import (
    CPU_SHARE_MAX,
    LAG_P99_MAX_MS,
    LESS_LOAD,
    MORE_USERS,
    SENT_SHARE_MIN,
    out_of_room_text,
)

SHARES: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Shares of the latency distribution that are shown."""


@dataclass(frozen=True)
class Results:
    """A load in numbers.

    `latency` has every call that ended, from when it was due; `failed` those of them whose answer was not as expected.
    `codes` counts calls by (method, code), `outcomes` by how much their end lets one conclude. `notes` are wrong
    answers in words, with their number; `wrong` are the definite ones among the failed. `ended_by_stop` are the
    calls that had ended when the load did: a backlog that is answered afterwards is no throughput. `unended` of the
    indefinite ones were still under way when the load stopped waiting for them, and `out_of_room` were ended by the
    generator because of what all answers held together.
    """

    seconds: float
    ended_by_stop: int
    latency: Histogram
    failed: Histogram
    lag: Histogram
    codes: Mapping[tuple[str, str], int]
    outcomes: Mapping[str, int]
    never_sent: int
    unended: int
    out_of_room: int
    wrong: int
    notes: tuple[tuple[str, int], ...]
    cpu_share: float
    stall_ms_max: float

    @property
    def ended(self) -> int:
        """Calls that were sent and have ended."""
        return self.latency.count

    @property
    def errors(self) -> int:
        """Calls without the answer expected, never sent ones included."""
        return self.failed.count + self.never_sent

    @property
    def rps(self) -> float:
        """Calls that ended during the load, for each second of it."""
        return self.ended_by_stop / max(self.seconds, 1e-9)

    def late(self, over_ms: float) -> int:
        """Calls that the generator sent later than it should have, by more than so much."""
        return self.lag.count_above(round(over_ms * 1000.0))

    def quantile_ms(self, share: float, left_out: int = 0) -> float:
        """The latency at a share of all calls, where one that failed or was never sent is slower than any that did not.

        Infinite where the share falls on such calls, NaN without calls: an error that comes quickly is not fast.

        Args:
            share: of all calls, 0 to 1.
            left_out: so many of the slowest calls that did not fail are not counted.
        """
        good = Histogram()
        good.add(self.latency)
        for bucket, count in self.failed.counts.items():
            good.counts[bucket] -= count
            if not good.counts[bucket]:
                del good.counts[bucket]
        left_out = min(left_out, good.count)
        total = self.ended + self.never_sent - left_out
        rank = max(math.ceil(round(total * share, 9)), 1)
        if not total:
            return math.nan
        if rank > good.count - left_out:
            return math.inf
        return good.quantiles_us([rank / good.count])[0] / 1000.0

    @property
    def saturated(self) -> str:
        """Why the generator, not the server, may have made calls late or fail, and what to do; `""` if it did not."""
        if crowded := out_of_room_text(self.out_of_room):
            return crowded
        due = self.ended + self.never_sent
        [lag_us] = self.lag.quantiles_us([0.99])
        if due and self.ended < SENT_SHARE_MIN * due:
            return f"only {self.ended} of {due} calls that were due were sent: {MORE_USERS}"
        if lag_us > LAG_P99_MAX_MS * 1000:
            return f"calls left {lag_us / 1000:.0f} ms late at the 99th percentile: {LESS_LOAD}"
        if self.cpu_share > CPU_SHARE_MAX:
            return f"the load used {self.cpu_share:.0%} of its one core: {LESS_LOAD}"
        return ""

    def as_json(self) -> dict[str, object]:
        """For `--json`; times in milliseconds, null where no call gives one."""
        finite = {f"p{share * 100:g}": _finite(self.quantile_ms(share)) for share in SHARES}
        return {
            "schema": "holdfast.load/v1",
            "seconds": self.seconds,
            "calls": self.ended,
            "rps": self.rps,
            "errors": self.errors,
            "wrong": self.wrong,
            "never_sent": self.never_sent,
            "unended": self.unended,
            "out_of_room": self.out_of_room,
            "outcomes": dict(self.outcomes),
            "codes": [{"method": method, "code": code, "count": n} for (method, code), n in sorted(self.codes.items())],
            "latency_ms": {**finite, "max": self.latency.max_us / 1000.0, "mean": mean_ms(self.latency)},
            "lag_ms": {"p99": self.lag.quantiles_us([0.99])[0] / 1000.0, "max": self.lag.max_us / 1000.0},
            "stall_ms_max": self.stall_ms_max,
            "cpu_share": self.cpu_share,
            "saturated": self.saturated,
            "wrong_answers": [{"text": text, "count": count} for text, count in self.notes],
            "histogram": self.latency.as_json(),
        }


def results_of(drained: Mapping[str, Any], started_s: float) -> Results:
    """What the generator's last message says."""
    codes: Counter[tuple[str, str]] = Counter()
    series = [(labels, Histogram.of_json(text)) for *labels, text in drained["latency"]]
    for (_, service, method, code, _), histogram in series:
        codes[f"{service}/{method}", code] += histogram.count
    return Results(
        seconds=float(drained["stopped_s"]) - started_s,
        ended_by_stop=int(drained["ended_by_stop"]),
        latency=merged(histogram for _, histogram in series),
        failed=_merged_json(text for *_, text in drained["failed"]),
        lag=_merged_json(text for *_, text in drained["lag"]),
        codes=codes,
        outcomes=dict(drained["outcomes"]),
        never_sent=int(drained["never_sent"]),
        unended=int(drained["unended"]),
        out_of_room=int(drained["out_of_room"]),
        wrong=int(drained["wrong"]),
        notes=tuple((str(text), int(count)) for text, count in drained["notes"]),
        cpu_share=float(drained["cpu_share"]),
        stall_ms_max=float(drained["stall_ms_max"]),
    )


def mean_ms(histogram: Histogram) -> float | None:
    """The exact mean; None without values."""
    return histogram.sum_us / histogram.count / 1000.0 if histogram.counts else None


def _merged_json(texts: Iterable[Mapping[str, object]]) -> Histogram:
    return merged(Histogram.of_json(text) for text in texts)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
