"""What the parts of a verdict say follows from calls and times alone."""

from collections.abc import Iterable

import pytest

from holdfast_chaos.experiment import JudgedObjective, load_experiment
from holdfast_chaos.faults.latency import LatencyFault, LatencySpec
from holdfast_chaos.judgement import Readings, answers_check, conclude, fault_results, reconciliation, recovery_result
from holdfast_chaos.probe import ProbeSample
from holdfast_chaos.runner import Evidence, FaultRecord
from holdfast_loadtests.records import Call
from holdfast_loadtests.summary import summarize
from holdfast_slo.openslo import load_objective, packaged_objectives
from holdfast_slo.phases import PhaseWindow

AVAILABILITY = JudgedObjective(load_objective(packaged_objectives()["availability.yaml"]), ("baseline", "recovery"))
LIMIT_S = 10.0


def call(due_s: float = 0.0, code: str = "OK", **changes: object) -> Call:
    whole = Call(
        ordinal=0, step=0, attempt=1, phase="baseline", scenario="life", row=0, service="a.B", method="C", type="unary",
        due_s=due_s, sent_s=due_s, done_s=due_s + 0.01, lag_ms=0.0, code=code, outcome="ok", expected=True,
        connection=0, error_class="", request="", note="",
    )  # fmt: skip
    return whole._replace(**changes)


def calls(end_s: float, bad: Iterable[tuple[float, float]] = ()) -> list[Call]:
    """A hundred calls a second; those due within `bad` find the server unavailable."""
    times = [n / 100 for n in range(int(end_s * 100))]
    down = [(start_s, stop_s) for start_s, stop_s in bad]
    return [call(t, "Unavailable" if any(a <= t < b for a, b in down) else "OK") for t in times]


def evidence(*faults: tuple[float | None, float | None], end_s: float) -> Evidence:
    spec = LatencySpec.model_validate({"delay": "100ms"})
    records = [
        FaultRecord(LatencyFault(f"f{number}", spec), injected_s, healed_s)
        for number, (injected_s, healed_s) in enumerate(faults)
    ]
    return Evidence(started_s=0.0, windows=[PhaseWindow("recovery", 0.0, end_s)], faults=records)


def recovery(found: Evidence, seen: list[Call]) -> tuple[str, float | None]:
    result = recovery_result([AVAILABILITY], found, seen, LIMIT_S)
    return result.verdict, result.seconds


def test_a_service_that_comes_back_in_time_has_recovered() -> None:
    verdict, seconds = recovery(evidence((10, 20), end_s=60), calls(60, [(10, 23)]))
    assert verdict == "PASS"
    assert seconds == pytest.approx(3, abs=0.2)


def test_a_service_that_comes_back_late_has_failed() -> None:
    assert recovery(evidence((10, 20), end_s=60), calls(60, [(10, 33)]))[0] == "FAIL"


def test_a_service_that_stays_down_has_failed() -> None:
    assert recovery(evidence((10, 20), end_s=60), calls(60, [(10, 60)])) == ("FAIL", None)


def test_a_run_that_ends_before_recovery_could_be_seen_decides_nothing() -> None:
    assert recovery(evidence((10, 20), end_s=24), calls(24, [(10, 21)])) == ("INCONCLUSIVE", None)


def test_a_heal_soon_followed_by_another_fault_is_judged_with_that_one() -> None:
    verdict, seconds = recovery(evidence((10, 20), (23, 25), end_s=60), calls(60, [(10, 22), (23, 27)]))
    assert verdict == "PASS"
    assert seconds == pytest.approx(2, abs=0.2)


def test_a_heal_long_before_the_next_fault_must_be_kept_too() -> None:
    assert recovery(evidence((10, 20), (50, 52), end_s=90), calls(90, [(10, 45), (50, 52)]))[0] == "FAIL"


def test_a_fault_that_never_came_leaves_recovery_undecided() -> None:
    assert recovery(evidence((10, 20), (None, None), end_s=60), calls(60, [(10, 20)]))[0] == "INCONCLUSIVE"


def test_without_faults_there_is_nothing_to_recover_from() -> None:
    assert recovery(evidence(end_s=60), calls(60)) == ("PASS", 0.0)


def test_clients_and_prometheus_must_agree_to_the_call() -> None:
    seen = [call(), call(code="Unavailable"), call(code="NeverSent")]
    assert reconciliation(Readings(handled=2), seen).verdict == "PASS"
    assert reconciliation(Readings(handled=1), seen).verdict == "INCONCLUSIVE"
    assert reconciliation(Readings(handled=None), seen) is None


def test_a_wrong_answer_is_a_violation_only_where_the_step_states_its_answers() -> None:
    load = load_experiment("fleet-under-fire").experiment.load
    lost = {
        "scenario": "agent-life",
        "code": "NotFound",
        "outcome": "definite",
        "expected": False,
        "method": "GetAgent",
    }
    stated, silent = call(step=2, **lost), call(step=4, **lost)
    assert answers_check(load, [stated]).verdict == "FAIL"
    assert answers_check(load, [stated, silent]).violations == ("GetAgent answered NotFound in baseline (1 times)",)


def test_a_call_that_was_never_answered_is_no_wrong_answer_but_no_proof_either() -> None:
    load = load_experiment("fleet-under-fire").experiment.load
    cut = call(step=2, scenario="agent-life", code="Unavailable", outcome="indefinite", expected=False)
    assert answers_check(load, [cut]).verdict == "INCONCLUSIVE"
    assert answers_check(load, [cut, call(step=2, scenario="agent-life")]).verdict == "PASS"


def test_calls_that_were_never_sent_keep_a_service_from_having_recovered() -> None:
    never = [one._replace(code="NeverSent") if 10 <= one.due_s < 60 else one for one in calls(60)]
    assert recovery(evidence((10, 20), end_s=60), never)[0] == "FAIL"


def test_a_fault_that_was_never_healed_is_judged_until_the_end_of_the_run() -> None:
    found = evidence((20, None), end_s=40)
    found.windows.insert(0, PhaseWindow("baseline", 0.0, 15.0))
    slowed = [one._replace(done_s=one.sent_s + 0.11) if one.sent_s >= 20 else one for one in calls(40)]
    found.control = [ProbeSample(n / 20, 2.0) for n in range(800)]
    (result,) = fault_results(found, slowed, {})
    assert result.verdict == "EFFECTIVE", result.proof


@pytest.mark.parametrize(("unended", "told"), [(0, False), (3, True)])
def test_calls_without_an_end_are_a_reason_not_to_pass(unended: int, told: bool) -> None:
    found = evidence((10, 20), end_s=60)
    seen = calls(60)
    found.load = summarize(seen, started_s=0.0, stopped_s=60.0, cpu_share=0.1, unended=unended)
    verdict = conclude(load_experiment("fleet-under-fire"), found, Readings(), seen, {}, "holdfast run", 61.0)
    assert ("CALLS_UNENDED" in {reason.code for reason in verdict.reasons}) is told
    assert verdict.exit_code == 2
