"""`junit.xml`, which every CI server shows: a test case per objective, fault, check, recovery and reconciliation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from holdfast_slo.report.words import percent, seconds
from holdfast_slo.verdict import Verdict

Outcome = Literal["passed", "failure", "error"]

_OUTCOMES: Final[dict[str, Outcome]] = {
    "PASS": "passed",
    "EFFECTIVE": "passed",
    "FAIL": "failure",
    "INCONCLUSIVE": "error",
    "INEFFECTIVE": "error",
    "UNPROVEN": "error",
}
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Case:
    part: str
    name: str
    outcome: Outcome
    message: str


def render(verdict: Verdict) -> str:
    """The document's text: FAIL is a failure, anything undecided an error, and the verdict itself is the last case."""
    cases = list(_cases(verdict))
    duration = f"{verdict.ended_at - verdict.started_at:.3f}"
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": str(sum(case.outcome == "error" for case in cases)),
        "time": duration,
    }
    root = Element("testsuites", {"name": "holdfast", **counts})
    suite = SubElement(root, "testsuite", {"name": _clean(verdict.experiment.name), **counts})
    for case in cases:
        names = {"classname": f"{_clean(verdict.experiment.name)}.{case.part}", "name": _clean(case.name), "time": "0"}
        element = SubElement(suite, "testcase", names)
        if case.outcome == "passed":
            SubElement(element, "system-out").text = _clean(case.message)
        else:
            SubElement(element, case.outcome, {"message": _clean(case.message)}).text = _clean(case.message)
    indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + tostring(root, encoding="unicode") + "\n"


def _cases(verdict: Verdict) -> Iterator[_Case]:
    for result in verdict.objectives:
        bounds = f"bounds {percent(result.ci_low)} to {percent(result.ci_high)}, target {percent(result.target)}"
        message = f"{result.good} of {result.total} good in {result.phase}; {bounds}"
        detail = f"; {result.detail}" if result.detail else ""
        yield _Case("objective", result.name, _OUTCOMES[result.verdict], message + detail)
    for fault in verdict.faults:
        yield _Case("fault", fault.id, _OUTCOMES[fault.verdict], f"{fault.verdict}: {fault.proof}")
    for check in verdict.checks:
        message = "\n".join(check.violations) or check.detail or check.verdict
        yield _Case("check", check.name, _OUTCOMES[check.verdict], message)
    if recovery := verdict.recovery:
        message = f"{seconds(recovery.seconds)}, allowed {seconds(recovery.limit_seconds)}"
        yield _Case("recovery", "recovery", _OUTCOMES[recovery.verdict], message)
    if pair := verdict.reconciliation:
        message = f"clients {pair.client}, Prometheus {pair.prometheus}, allowed {pair.allowed:g} apart"
        yield _Case("reconciliation", "reconciliation", _OUTCOMES[pair.verdict], message)
    reasons = "\n".join(f"{reason.code} {reason.subject}: {reason.message}" for reason in verdict.reasons)
    yield _Case("verdict", "verdict", _OUTCOMES[verdict.verdict], reasons or verdict.verdict)


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
