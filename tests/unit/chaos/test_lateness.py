"""A stall of the generator does not pass for a slow server, nor for an excuse."""

import pytest

from holdfast_chaos.lateness import LATENCIES, lateness_reasons
from holdfast_loadtests.records import Call
from holdfast_slo.verdict import ObjectiveResult, PhaseCount


def calls(late: int, phase: str = "baseline", lag_ms: float = 80.0) -> list[Call]:
    return [
        Call(
            ordinal=number, step=0, attempt=1, phase=phase, scenario="s", row=0, service="a.B", method="C",
            type="unary", due_s=0.0, sent_s=0.08, done_s=0.09, lag_ms=lag_ms, code="OK", outcome="ok", expected=True,
            connection=0, error_class="", request="", note="",
        )
        for number in range(late)
    ]  # fmt: skip


def missed(good: int, total: int = 10_000, query: str = f'{LATENCIES}{{le="0.05"}}') -> ObjectiveResult:
    return ObjectiveResult(
        name="p99", target=0.99, observed=good / total, ci_low=0.9, ci_high=0.98, good=good, total=total,
        budget_consumed=2.0, verdict="FAIL", source="prometheus", query=query, phase="baseline",
        by_phase=(PhaseCount(phase="baseline", good=good, total=total),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("good", "late", "blamed"),
    [
        (9_850, 80, True),
        (9_850, 0, False),
        (9_500, 80, False),  # far beyond what the late ones make
    ],
)
def test_an_objective_that_only_late_calls_miss_says_nothing(good: int, late: int, blamed: bool) -> None:
    reasons = lateness_reasons([missed(good)], calls(late))
    assert bool(reasons) is blamed
    if blamed:
        assert reasons[0].code == "GENERATOR_SATURATED"
        assert "the 80 calls that the generator sent over 50 ms late" in reasons[0].message


def test_lateness_elsewhere_or_of_little_is_no_excuse() -> None:
    assert lateness_reasons([missed(9_850)], calls(80, phase="recovery")) == []
    assert lateness_reasons([missed(9_850)], calls(80, lag_ms=40.0)) == []
    assert lateness_reasons([missed(9_850, query="grpc_client_handled_total")], calls(80)) == []
