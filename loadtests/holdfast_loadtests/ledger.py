"""What a load has found, in a form that adds up: of one generator, of several, or of the time between two reports.

Everything is a count, a sum or a bucket, so that adding parts gives exactly the whole, in any order.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from holdfast_loadtests.histogram import Histogram, merged
from holdfast_loadtests.results import Results
from holdfast_loadtests.tally import Tally

NOTES_MAX: Final = 500
"""Different wrong answers kept in words when many generators' are added; all are counted."""

Series = tuple[str, str]
"""`service/method` and the code."""


@dataclass
class Ledger:
    """Calls that ended, by (`service/method`, code), from when they were due; `failed` those of them that were wrong.

    `lag` is how late the generator sent calls, `never_sent` counts by method those that it never did. `notes` are
    wrong answers in words, by method.
    """

    latency: dict[Series, Histogram] = field(default_factory=dict)
    failed: dict[str, Histogram] = field(default_factory=dict)
    never_sent: Counter[str] = field(default_factory=Counter)
    lag: Histogram = field(default_factory=Histogram)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def of_tally(cls, tally: Tally, notes: Mapping[tuple[str, str], int]) -> Self:
        """A copy of an engine's totals, its phases added up."""
        found = cls(
            wrong=tally.wrong,
            notes=Counter(notes),
            outcomes=Counter({str(name): count for name, count in tally.outcomes.items()}),
        )
        for labels, lane in tally.lanes.items():
            method = f"{labels.service}/{labels.method}"
            for code, series in lane.by_code.items():
                found.latency.setdefault((method, code), Histogram()).add(series.histogram)
            if lane.wrong.counts:
                found.failed.setdefault(method, Histogram()).add(lane.wrong)
            if lane.never_sent:
                found.never_sent[method] += lane.never_sent
        found.lag = merged(lags.histogram for lags in tally.lags.values())
        return found

    def record(self, method: str, code: str, outcome: str, latency_s: float, lag_s: float, wrong: str) -> None:
        """Adds one call that has ended; `wrong` says why it failed, `""` where it did not."""
        self.latency.setdefault((method, code), Histogram()).record_s(latency_s)
        self.lag.record_s(lag_s)
        self.outcomes[outcome] += 1
        if wrong:
            self.failed.setdefault(method, Histogram()).record_s(latency_s)
            self.wrong += outcome in ("ok", "definite")
            self._note(method, f"{code}: {wrong}"[:300], 1)

    def add(self, other: "Ledger") -> None:
        """Takes another's in."""
        for series, histogram in other.latency.items():
            self.latency.setdefault(series, Histogram()).add(histogram)
        for method, histogram in other.failed.items():
            self.failed.setdefault(method, Histogram()).add(histogram)
        self.never_sent.update(other.never_sent)
        self.lag.add(other.lag)
        self.outcomes.update(other.outcomes)
        self.wrong += other.wrong
        for (method, text), count in other.notes.items():
            self._note(method, text, count)

    def since(self, earlier: "Ledger") -> "Ledger":
        """What came after an earlier copy of the same ledger."""
        none = Histogram()
        return Ledger(
            latency={
                key: more
                for key, one in self.latency.items()
                if (more := one.since(earlier.latency.get(key, none))).counts
            },
            failed={
                key: more
                for key, one in self.failed.items()
                if (more := one.since(earlier.failed.get(key, none))).counts
            },
            never_sent=self.never_sent - earlier.never_sent,
            lag=self.lag.since(earlier.lag),
            outcomes=self.outcomes - earlier.outcomes,
            wrong=self.wrong - earlier.wrong,
            notes=self.notes - earlier.notes,
        )

    def _note(self, method: str, text: str, count: int) -> None:
        if (method, text) in self.notes or len(self.notes) < NOTES_MAX:
            self.notes[method, text] += count

    @property
    def ended(self) -> int:
        """Calls that were sent and have ended."""
        return sum(histogram.count for histogram in self.latency.values())

    @property
    def methods(self) -> list[str]:
        """Every method that was called, or should have been, sorted."""
        return sorted({*(method for method, _ in self.latency), *self.never_sent})

    def latency_of(self, method: str) -> Histogram:
        """All latencies of a method, whatever the code."""
        return merged(one for (name, _), one in self.latency.items() if name == method)

    def all_latency(self) -> Histogram:
        """Every latency."""
        return merged(self.latency.values())

    def results(
        self, seconds: float, ended_by_stop: int, unended: int, out_of_room: int, cpu_share: float, stall_ms_max: float
    ) -> Results:
        """In the form that assertions and the JSON of `holdfast load` have."""
        return Results(
            seconds=seconds,
            ended_by_stop=ended_by_stop,
            latency=self.all_latency(),
            failed=merged(self.failed.values()),
            lag=self.lag,
            codes={series: histogram.count for series, histogram in self.latency.items()},
            outcomes=dict(self.outcomes),
            never_sent=self.never_sent.total(),
            unended=unended,
            out_of_room=out_of_room,
            wrong=self.wrong,
            notes=tuple(
                (f"{method.rpartition('/')[2]} {text}", count) for (method, text), count in self.notes.most_common()
            ),
            cpu_share=cpu_share,
            stall_ms_max=stall_ms_max,
        )

    def as_json(self) -> dict[str, Any]:
        """For other processes; exact."""
        return {
            "latency": [[*series, one.as_json()] for series, one in self.latency.items()],
            "failed": [[method, one.as_json()] for method, one in self.failed.items()],
            "never_sent": dict(self.never_sent),
            "lag": self.lag.as_json(),
            "outcomes": dict(self.outcomes),
            "wrong": self.wrong,
            "notes": [[method, text, count] for (method, text), count in self.notes.items()],
        }

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """The ledger that `as_json` wrote.

        Raises:
            ValueError: a histogram in it is none.
        """
        return cls(
            latency={(method, code): Histogram.of_json(one) for method, code, one in found["latency"]},
            failed={method: Histogram.of_json(one) for method, one in found["failed"]},
            never_sent=Counter(found["never_sent"]),
            lag=Histogram.of_json(found["lag"]),
            outcomes=Counter(found["outcomes"]),
            wrong=int(found["wrong"]),
            notes=Counter({(method, text): count for method, text, count in found["notes"]}),
        )
