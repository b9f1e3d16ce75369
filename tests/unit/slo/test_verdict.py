"""A verdict follows from its reasons, and its reasons from its parts."""

import json
from importlib import resources
from itertools import combinations

import jsonschema
import pytest
from pydantic import ValidationError

from holdfast_slo.reasons import REASONS, Code, ReasonClass, conclude
from holdfast_slo.verdict import CheckResult, Reason, Reconciliation, RecoveryResult, Verdict
from support import verdicts


def reason(code):
    return Reason(code=code, subject="x", message="y")


def codes(verdict):
    return {one.code for one in verdict.reasons}


def test_every_code_has_its_row():
    assert set(REASONS) == set(Code)
    assert all(row.meaning and row.what_to_do for row in REASONS.values())


def test_no_reason_is_a_pass_and_only_that():
    assert conclude([]) == ("PASS", 0)
    assert all(conclude([reason(code)])[0] != "PASS" for code in Code)


def test_the_gravest_class_decides_whatever_stands_beside_it():
    exits = {ReasonClass.CLEANUP: 4, ReasonClass.UNTRUSTED: 2, ReasonClass.VIOLATION: 1, ReasonClass.UNDECIDED: 2}
    for one, other in combinations(Code, 2):
        gravest = min(REASONS[one].kind, REASONS[other].kind)
        assert conclude([reason(one), reason(other)])[1] == exits[gravest]
        assert conclude([reason(other), reason(one)])[1] == exits[gravest]


def test_sound_parts_pass():
    verdict = verdicts.passing()
    assert (verdict.verdict, verdict.exit_code, verdict.reasons) == ("PASS", 0, ())


CONTRADICTIONS = {
    "no objective": ({"objectives": ()}, "NO_OBJECTIVES", 2),
    "an objective missed": ({"objectives": (verdicts.objective(good=9_000),)}, "OBJECTIVE_VIOLATED", 1),
    "too few samples": ({"objectives": (verdicts.objective(good=10, total=10),)}, "TOO_FEW_SAMPLES", 2),
    "no samples": ({"objectives": (verdicts.objective(good=0, total=0),)}, "TOO_FEW_SAMPLES", 2),
    "a fault without effect": ({"faults": (verdicts.fault(verdict="INEFFECTIVE"),)}, "FAULT_INEFFECTIVE", 2),
    "a fault without proof": ({"faults": (verdicts.fault(verdict="UNPROVEN"),)}, "FAULT_UNPROVEN", 2),
    "a check violated": ({"checks": (CheckResult(name="c", verdict="FAIL", violations=("v",)),)}, "CHECK_VIOLATED", 1),
    "a check undecided": (
        {"checks": (CheckResult(name="c", verdict="INCONCLUSIVE", violations=()),)},
        "CHECK_UNDECIDED",
        2,
    ),
    "a slow recovery": (
        {"recovery": RecoveryResult(seconds=11, limit_seconds=10, verdict="FAIL")},
        "RECOVERY_TOO_SLOW",
        1,
    ),
    "no recovery": ({"recovery": None}, "RECOVERY_UNDECIDED", 2),
    "no traffic": ({"load": verdicts.load(sent=0)}, "NO_TRAFFIC", 2),
    "no load": ({"load": None}, "NO_TRAFFIC", 2),
    "not reconciled": ({"reconciliation": None}, "NOT_RECONCILED", 2),
    "contradicting counts": (
        {"reconciliation": Reconciliation(client=9, prometheus=5, difference=4, allowed=0, verdict="INCONCLUSIVE")},
        "METRICS_CONTRADICT_CLIENTS",
        2,
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_part_that_did_not_pass_is_never_a_pass(name):
    changed, code, exit_code = CONTRADICTIONS[name]
    verdict = Verdict.build(**verdicts.parts(**changed))
    assert codes(verdict) == {code}
    assert verdict.exit_code == exit_code


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_file_that_hides_a_reason_is_refused(name):
    changed, _, _ = CONTRADICTIONS[name]
    data = json.loads(Verdict.build(**verdicts.parts(**changed)).to_json())
    forged = data | {"verdict": "PASS", "exit_code": 0, "reasons": []}
    with pytest.raises(ValidationError, match="leave out"):
        Verdict.model_validate(forged, by_alias=True, by_name=False)


def test_what_the_run_said_itself_is_not_said_twice():
    said = Reason(code=Code.METRICS_MISSING, subject="availability", message="no samples of it")
    verdict = Verdict.build(**verdicts.parts(objectives=(verdicts.objective(good=0, total=0),), reasons=[said]))
    assert verdict.reasons == (said,)


def test_untrusted_data_outranks_a_violation_and_cleanup_outranks_all():
    violated = {"objectives": (verdicts.objective(good=9_000),)}
    untrusted = Verdict.build(**verdicts.parts(**violated, reasons=[reason(Code.GENERATOR_SATURATED)]))
    assert (untrusted.verdict, untrusted.exit_code) == ("INCONCLUSIVE", 2)
    unclean = Verdict.build(**verdicts.parts(**violated, reasons=[reason(Code.CLEANUP_FAILED)]))
    assert (unclean.verdict, unclean.exit_code) == ("INCONCLUSIVE", 4)
    assert unclean.reasons[0].code == "CLEANUP_FAILED"


@pytest.mark.parametrize(
    "make",
    [
        lambda: verdicts.objective(good=10, total=10, verdict="PASS"),
        lambda: verdicts.objective(good=0, total=0, verdict="PASS"),
        lambda: verdicts.fault(injected_at=None),
        lambda: RecoveryResult(seconds=None, limit_seconds=10, verdict="PASS"),
        lambda: RecoveryResult(seconds=10.1, limit_seconds=10, verdict="PASS"),
        lambda: Reconciliation(client=9, prometheus=5, difference=4, allowed=3, verdict="PASS"),
        lambda: Reconciliation(client=9, prometheus=None, difference=None, allowed=3, verdict="PASS"),
        lambda: reason("NOT_A_CODE"),
        lambda: verdicts.objective(observed=float("nan")),
    ],
)
def test_a_part_cannot_claim_what_its_numbers_deny(make):
    with pytest.raises(ValidationError):
        make()


@pytest.mark.parametrize("name", ["passing", "failing", "undecided", "unclean"])
def test_a_verdict_is_read_back_as_written_and_fits_the_published_schema(name):
    verdict = getattr(verdicts, name)()
    data = json.loads(verdict.to_json())
    assert Verdict.model_validate(data, by_alias=True, by_name=False) == verdict
    jsonschema.validate(data, json.loads(Verdict.json_schema()))
    assert data["schema"] == "holdfast.verdict/v1"


def test_the_published_schema_is_in_step_with_the_models():
    published = resources.files("holdfast_slo") / "schemas" / "verdict.schema.json"
    assert published.read_text(encoding="utf-8") == Verdict.json_schema()
