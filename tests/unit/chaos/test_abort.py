"""An abort rule follows the service: what fails by its fault, and for how long."""

import pytest

from holdfast_chaos.abort import AbortWatch
from holdfast_chaos.experiment import AbortRule
from holdfast_loadtests.codes import SERVER_FAULTS
from holdfast_loadtests.snapshots import Snapshot
from holdfast_slo.openslo import load_objective, packaged_objectives

RULE = AbortRule.model_validate({"when": "error_ratio > 0.5", "for": "3s"})


def aborts_at(code: str, share: float = 1.0, rule: AbortRule = RULE) -> int | None:
    """The second at which the rule ends a run of 10 s at 100 calls/s, of which a share ends with `code`."""
    watch = AbortWatch([rule])
    for second in range(10):
        calls = 100 * (second + 1)
        counts = {("p", "M", code): round(calls * share), ("p", "M", "OK"): calls - round(calls * share)}
        if watch.broken(Snapshot(sent=calls, errors=round(calls * share), counts=counts), float(second)):
            return second
    return None


def test_calls_that_fail_by_the_service_abort_after_the_rule_s_time() -> None:
    assert aborts_at("Unavailable") == 4  # no ratio before the second snapshot, then 3 s


def test_fewer_failures_than_the_limit_do_not_abort() -> None:
    assert aborts_at("Unavailable", share=0.4) is None


def test_at_least_counts_the_limit_itself_and_above_does_not() -> None:
    at_least, above = (AbortRule.model_validate({"when": f"error_ratio {sign} 1", "for": "3s"}) for sign in (">=", ">"))
    assert aborts_at("Unavailable", rule=at_least) == 4
    assert aborts_at("Unavailable", rule=above) is None


@pytest.mark.parametrize("code", ["NotFound", "AlreadyExists", "ResourceExhausted"])
def test_an_answer_is_no_error_though_no_step_expects_it(code: str) -> None:
    assert aborts_at(code) is None


def test_the_server_s_faults_are_those_of_the_availability_objective() -> None:
    objective = load_objective(packaged_objectives()["availability.yaml"])
    assert objective.bad is not None
    assert {*objective.bad.matchers[0].value.split("|")} == SERVER_FAULTS
