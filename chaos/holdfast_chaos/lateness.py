"""Latency objectives that are missed only by calls that the load generator itself sent late.

A stall of the generator that makes one call in a hundred late saturates it, and the run supports no claim. A shorter
one may still decide an objective that is near its target: it is judged once more, with the late calls taken for good.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from holdfast_loadtests.records import Call
from holdfast_loadtests.summary import LAG_P99_MAX_MS, LESS_LOAD
from holdfast_slo.reasons import Code
from holdfast_slo.statistics import Decision, decide_ratio
from holdfast_slo.verdict import ObjectiveResult, Reason

LATENCIES: Final = "grpc_client_handling_seconds_bucket"
"""Only what the load measures itself grows by its own lateness: a server's metrics do not."""


def lateness_reasons(objectives: Iterable[ObjectiveResult], calls: Iterable[Call]) -> list[Reason]:
    """Why missed latency objectives say nothing of the server; nothing where they do."""
    late = Counter(call.phase for call in calls if call.sent and call.lag_ms > LAG_P99_MAX_MS)
    missed = [each for each in objectives if each.verdict == "FAIL" and LATENCIES in each.query]
    return [_reason(result, late) for result in missed if not _is_missed_without(result, late)]


def _is_missed_without(result: ObjectiveResult, late: Counter[str]) -> bool:
    counts = [(min(one.good + late[one.phase], one.total), one.total) for one in result.by_phase]
    pooled = (sum(good for good, _ in counts), sum(total for _, total in counts))
    return any(
        total > 0 and decide_ratio(good, total, result.target) is Decision.FAIL for good, total in [*counts, pooled]
    )


def _reason(result: ObjectiveResult, late: Counter[str]) -> Reason:
    count = sum(late[one.phase] for one in result.by_phase)
    late_calls = f"{count} calls that the generator sent over {LAG_P99_MAX_MS:g} ms late"
    message = f"it is proven to be missed only with the {late_calls}: {LESS_LOAD}"
    return Reason(code=Code.GENERATOR_SATURATED, subject=result.name, message=message)
