"""What a load found, computed from the record of its calls; pure."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from holdfast_loadtests.records import Call
from holdfast_loadtests.room import LESS_AT_A_TIME
from holdfast_loadtests.tally import at_quantile
from holdfast_slo.phases import BASELINE, RECOVERY

JUDGED_PHASES: Final = (BASELINE, RECOVERY)
"""The generator is judged where nothing is broken: under a fault, calls that end together make the next ones late."""

LAG_P99_MAX_MS: Final = 50.0
SENT_SHARE_MIN: Final = 0.95
CPU_SHARE_MAX: Final = 0.95
LESS_LOAD: Final = "ask for a lower rate, or give the load a core of its own"
MORE_USERS: Final = "ask for a lower rate, or raise `concurrency` if the target may have more calls at a time"
WRONG_ANSWERS_MAX: Final = 1_000
"""Wrong answers kept one by one; their number is exact beyond it."""


@dataclass(frozen=True)
class Latencies:
    """Exact quantiles (nearest rank) in ms, from due to done, errors included; 0 where there were no calls."""

    count: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True)
class LoadSummary:
    """A load in numbers; times in unix seconds.

    `counts` is by (phase, method, code), with the code NeverSent for calls that were due and not sent. `errors` are
    calls whose answer is not one that their step expects, never sent ones included; `wrong` of them were definite
    answers, the first of which are in `wrong_answers`. `unended` calls were under way when the load stopped waiting:
    they are recorded as Cancelled, indefinite. `lag_p99_ms` is over baseline and recovery. `saturated` says why
    the generator's numbers cannot be trusted, `""` where they can.
    """

    started_s: float
    stopped_s: float
    due: int
    sent: int
    ok: int
    errors: int
    never_sent: int
    unended: int
    wrong: int
    requested_rps: float
    achieved_rps: float
    lag_p99_ms: float
    cpu_share: float
    latency: Latencies
    latency_by_phase: dict[str, Latencies]
    counts: dict[tuple[str, str, str], int]
    outcomes: dict[str, int]
    wrong_answers: tuple[Call, ...]
    saturated: str
    calls: tuple[Call, ...] = field(repr=False)


def summarize(
    calls: Iterable[Call],
    started_s: float,
    stopped_s: float,
    cpu_share: float,
    unended: int = 0,
    out_of_room: int = 0,
    judged_phases: Sequence[str] = JUDGED_PHASES,
) -> LoadSummary:
    """Adds a record up.

    Args:
        calls: the record.
        started_s: when the first call could be due.
        stopped_s: when calls ceased to fall due.
        cpu_share: CPU seconds of the generator for each second of load.
        unended: calls that were under way when the load stopped waiting.
        out_of_room: calls that the generator ended because of what all answers held together.
        judged_phases: where the generator's lateness is judged.
    """
    every = tuple(calls)
    sent = [call for call in every if call.sent]
    wrong = [call for call in sent if not call.expected and call.outcome in ("ok", "definite")]
    judged = [call for call in every if call.phase in judged_phases]
    lag_p99_ms = at_quantile(sorted(call.lag_ms for call in judged if call.sent), 0.99)
    length_s = max(stopped_s - started_s, 1e-9)
    by_phase: defaultdict[str, list[Call]] = defaultdict(list)
    for call in every:
        by_phase[call.phase].append(call)
    return LoadSummary(
        started_s=started_s,
        stopped_s=stopped_s,
        due=len(every),
        sent=len(sent),
        ok=sum(call.code == "OK" for call in sent),
        errors=sum(not call.expected for call in every),
        never_sent=len(every) - len(sent),
        unended=unended,
        wrong=len(wrong),
        requested_rps=len(every) / length_s,
        achieved_rps=sum(call.sent_s <= stopped_s for call in sent) / length_s,  # a backlog sent later is no rate
        lag_p99_ms=lag_p99_ms,
        cpu_share=cpu_share,
        latency=latencies(every),
        latency_by_phase={phase: latencies(found) for phase, found in by_phase.items()},
        counts=dict(Counter((call.phase, call.method, call.code) for call in every)),
        outcomes=dict(Counter(call.outcome for call in every)),
        wrong_answers=tuple(wrong[:WRONG_ANSWERS_MAX]),
        saturated=out_of_room_text(out_of_room) or saturated(judged, lag_p99_ms, cpu_share),
        calls=every,
    )


def saturated(judged: Sequence[Call], lag_p99_ms: float, cpu_share: float) -> str:
    """Why the generator, not the server, may have made calls late; `""` where it did not.

    Three signs, each enough: 1 % of the calls in the judged phases left over 50 ms later than they could have; less
    than 95 % of those due were sent at all; the process used over 95 % of a core, of which it has one.
    """
    sent = sum(call.sent for call in judged)
    if judged and sent < SENT_SHARE_MIN * len(judged):
        found = f"only {sent} of {len(judged)} calls that were due were sent (at least {SENT_SHARE_MIN:.0%} must be)"
        return f"{found}: {MORE_USERS}"
    if lag_p99_ms > LAG_P99_MAX_MS:
        found = f"calls left {lag_p99_ms:.0f} ms late at the 99th percentile (at most {LAG_P99_MAX_MS:g} ms)"
        return f"{found}: {LESS_LOAD}"
    if cpu_share > CPU_SHARE_MAX:
        return f"the load used {cpu_share:.0%} of its one core (at most {CPU_SHARE_MAX:.0%}): {LESS_LOAD}"
    return ""


def out_of_room_text(count: int) -> str:
    """What calls that the generator ended for want of room mean, and what to do; `""` for none."""
    found = f"{count} calls were ended because the answers under way held more than one generator may"
    return f"{found}: {LESS_AT_A_TIME}" if count else ""


def unended_text(count: int) -> str:
    """What calls without an end mean, and what to do."""
    return (
        f"{count} calls were still under way when the load stopped waiting, past their deadlines: nobody knows what "
        "came of them. Look for a generator that was stopped or starved, then run again"
    )


def latencies(calls: Iterable[Call]) -> Latencies:
    """Quantiles of the calls' latencies, however they ended."""
    ordered = sorted(call.latency_ms for call in calls)
    if not ordered:
        return Latencies()
    p50_ms, p95_ms, p99_ms, p999_ms = (at_quantile(ordered, q) for q in (0.5, 0.95, 0.99, 0.999))
    return Latencies(len(ordered), p50_ms, p95_ms, p99_ms, p999_ms, ordered[-1])


def distinct_rows(calls: Iterable[Call], method: str) -> set[int]:
    """Rows with an OK of a method, given as `Method` or `service/Method`."""
    service, _, name = method.rpartition("/")
    return {
        call.row
        for call in calls
        if call.code == "OK" and call.method == name and service in ("", call.service) and call.row >= 0
    }


class Bucket(NamedTuple):
    """Calls that were due within `bucket_s` from `start_s` (unix seconds); quantiles in ms, None without calls."""

    start_s: float
    calls: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def timeline(calls: Iterable[Call], bucket_s: float = 1.0) -> list[Bucket]:
    """The load over time, by when calls were due; without gaps from the first to the last bucket."""
    found: defaultdict[int, list[Call]] = defaultdict(list)
    for call in calls:
        found[math.floor(call.due_s / bucket_s)].append(call)
    if not found:
        return []
    return [_bucket(number * bucket_s, found.get(number, [])) for number in range(min(found), max(found) + 1)]


def _bucket(start_s: float, calls: Sequence[Call]) -> Bucket:
    ordered = sorted(call.latency_ms for call in calls)
    quantiles = [at_quantile(ordered, q) if ordered else None for q in (0.5, 0.95, 0.99)]
    return Bucket(start_s, len(calls), sum(not call.expected for call in calls), *quantiles)
