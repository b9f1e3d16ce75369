"""What the master knows of a test: each worker's part, what all have found, and what that cannot support. Pure.

Parts are told apart by the number of the test, so that what a worker still says of an earlier one counts for nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.results import Results
from holdfast_loadtests.summary import unended_text

State = Literal["preparing", "ready", "finished", "failed", "lost"]

START_AGAIN: Final = "start the test again with every worker up"


@dataclass
class Part:
    """What one worker makes. `found` is all that it has reported, `since_reset` what it did since the last reset."""

    worker: str
    index: int
    count: int
    state: State = "preparing"
    why: str = ""
    drain_limit_s: float = 0.0
    begun_s: float | None = None
    found: Ledger = field(default_factory=Ledger)
    since_reset: Ledger = field(default_factory=Ledger)
    final: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"worker {self.worker} ({self.index + 1} of {self.count})"

    @property
    def is_awaited(self) -> bool:
        """Whether more is to come from it."""
        return self.state in ("preparing", "ready")

    @property
    def results(self) -> Results:
        """What it found, in numbers."""
        return _results([self])

    @property
    def doubt(self) -> str:
        """Why the test cannot rest on it, and what to do; `""` where it can."""
        if self.state in ("failed", "lost"):
            return f"{self.title} {self.why}"
        if self.state == "finished" and self.final["ended"] != self.found.ended:
            return (
                f"{self.title} made {self.final['ended']} calls, but its reports hold {self.found.ended}: reports were "
                f"lost on the way. Check the network between it and the master, and {START_AGAIN}"
            )
        if self.final.get("problem"):
            return f"{self.title} {self.final['problem']}"
        if self.final.get("unended"):
            return f"{self.title}: {unended_text(self.final['unended'])}"
        saturated = self.results.saturated
        return f"{self.title} could not keep up: {saturated}" if saturated else ""


class Board:
    """One test.

    Args:
        test: its number.
        workers: who takes part, in the order of their shares.
    """

    def __init__(self, test: int, workers: Sequence[str]) -> None:
        self.test = test
        self.parts = {worker: Part(worker, index, len(workers)) for index, worker in enumerate(workers)}
        self.late: list[str] = []
        self.wrong_input = ""

    def ready(self, worker: str, drain_limit_s: float) -> None:
        """A worker is connected to the target and waits for the start."""
        part = self.parts[worker]
        if part.state == "preparing":
            part.state, part.drain_limit_s = "ready", drain_limit_s

    def begun(self, worker: str, at_s: float) -> None:
        """A worker's load has begun, by the master's clock."""
        self.parts[worker].begun_s = at_s

    def is_past(self, length_s: float, now_s: float) -> bool:
        """Whether every worker that is still there has made a load of that length."""
        there = [part for part in self.parts.values() if part.is_awaited]
        return bool(there) and all(part.begun_s is not None and now_s > part.begun_s + length_s for part in there)

    def report(self, worker: str, news: Mapping[str, Any]) -> None:
        """A worker tells what it found since its last report; strangers and other tests do not count."""
        part = self.parts.get(worker)
        if part is not None and news["test"] == self.test:
            found = Ledger.of_json(news["found"])
            part.found.add(found)
            part.since_reset.add(found)

    def finish(self, worker: str, final: Mapping[str, Any]) -> None:
        """A worker has told all that it will."""
        part = self.parts.get(worker)
        if part is not None and final["test"] == self.test:
            self.report(worker, final)
            part.final = final
            if part.state != "failed":
                part.state = "finished"

    def fail(self, worker: str, why: str, is_input: bool) -> None:
        """A worker cannot make its part, or not go on with it."""
        part = self.parts[worker]
        part.state, part.why = "failed", why
        if is_input:
            self.wrong_input = self.wrong_input or why

    def lose(self, worker: str, at_s: float) -> None:
        """A worker has gone, so long into the test, before it told everything."""
        part = self.parts[worker]
        if part.is_awaited:
            part.state = "lost"
            part.why = (
                f"was lost {at_s:.0f} s into the test. From then on 1/{part.count} of the load was not made, or made "
                f"by others, and what it found after its last report is in no number: {START_AGAIN}"
            )

    def reset(self) -> None:
        """What is shown begins anew, as Locust's own table does; what is judged does not."""
        for part in self.parts.values():
            part.since_reset = Ledger()

    @property
    def is_ready(self) -> bool:
        """Whether every worker waits for the start."""
        return all(part.state == "ready" for part in self.parts.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return not any(part.is_awaited for part in self.parts.values())

    @property
    def shown(self) -> Ledger:
        """What all workers found since the last reset."""
        found = Ledger()
        for part in self.parts.values():
            found.add(part.since_reset)
        return found

    @property
    def results(self) -> Results:
        """What all workers found, in numbers."""
        return _results(list(self.parts.values()))

    def doubts(self) -> list[str]:
        """Why the test is INCONCLUSIVE, and what to do about each reason; none where its numbers can be used."""
        found = [part.doubt for part in self.parts.values() if part.doubt]
        found += [
            f"worker {worker} joined while the test ran: it made no calls, though Locust may have moved users to it. "
            f"Stop the test, and {START_AGAIN}"
            for worker in self.late
        ]
        results = self.results
        if not results.ended:
            found.append("no call was made: check the number of users, the rate, and how long the test ran")
        elif not results.outcomes.get("ok", 0) + results.outcomes.get("definite", 0):
            found.append("no call was answered: check that the target is up, and its address")
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file: the form of `holdfast load --json`, the workers, and the verdict on them."""
        doubts = self.doubts()
        return {
            **self.results.as_json(),
            "schema": "holdfast.locust/v1",
            "inconclusive": doubts,
            "by_method": {method: self._found.latency_of(method).as_json() for method in self._found.methods},
            "workers": [
                {
                    "worker": part.worker,
                    "share": f"{part.index + 1}/{part.count}",
                    "state": part.state,
                    "calls": part.found.ended,
                    "never_sent": part.found.never_sent.total(),
                    "lag_ms_p99": part.found.lag.quantiles_us([0.99])[0] / 1000.0,
                    "cpu_share": part.final.get("cpu_share"),
                    "doubt": part.doubt,
                    "histogram": part.found.all_latency().as_json(),
                }
                for part in self.parts.values()
            ],
        }

    @property
    def _found(self) -> Ledger:
        found = Ledger()
        for part in self.parts.values():
            found.add(part.found)
        return found


def _results(parts: Sequence[Part]) -> Results:
    found = Ledger()
    for part in parts:
        found.add(part.found)
    finals = [part.final for part in parts if part.final]
    return found.results(
        seconds=max((one["seconds"] for one in finals), default=0.0),
        ended_by_stop=sum(one["ended_by_stop"] for one in finals),
        unended=sum(one["unended"] for one in finals),
        out_of_room=sum(one["out_of_room"] for one in finals),
        cpu_share=max((one["cpu_share"] for one in finals), default=0.0),
        stall_ms_max=max((one["stall_ms_max"] for one in finals), default=0.0),
    )
