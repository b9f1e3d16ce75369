"""One run from its folder to its bundle: journal and watchdog around it, clean-up after it, verdict at the end."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from holdfast.cli import InputError
from holdfast_chaos import bundle, coordination_checks, fleet_course, judgement, stand
from holdfast_chaos.experiment import Resolved
from holdfast_chaos.faults import FaultError
from holdfast_chaos.interrupts import Interrupts, ended_by_the_user
from holdfast_chaos.journal import JournalError
from holdfast_chaos.judgement import Readings
from holdfast_chaos.ports import PortsExhaustedError
from holdfast_chaos.processes import ProcessError, ProcessLife
from holdfast_chaos.progress import Progress
from holdfast_chaos.runner import Evidence, Runner, Sources
from holdfast_chaos.runs import RunsError
from holdfast_chaos.toxiproxy import ToxiproxyError
from holdfast_chaos.watchdog import CleanupError, WatchdogError, guarded
from holdfast_loadtests.engine import LoadError
from holdfast_loadtests.fleet.history import HistoryError
from holdfast_loadtests.records import Call, RecordError, read_calls
from holdfast_slo.prometheus import Prometheus, PrometheusError
from holdfast_slo.reasons import Code
from holdfast_slo.report import FleetPoint, write_bundle
from holdfast_slo.verdict import Reason, Verdict

_COULD_NOT_START = (
    FaultError,
    JournalError,
    LoadError,
    PortsExhaustedError,
    ProcessError,
    RunsError,
    ToxiproxyError,
    WatchdogError,
)


class UnwrittenError(click.ClickException):
    """The bundle cannot be written: a verdict that nobody can check supports no claim, whatever it was."""

    def __init__(self, out: Path, verdict: Verdict, error: OSError) -> None:
        said = [f"{reason.code} {reason.subject}: {reason.message}" for reason in verdict.reasons]
        lost = "\n  ".join([f"The verdict that could not be kept: {verdict.verdict}", *said])
        super().__init__(f"{out}: cannot write the bundle: {error.strerror}. Is the disk full?\n{lost}")
        self.exit_code = 4 if verdict.exit_code == 4 else 2  # type: ignore[misc]  # click means it to be set by classes


@dataclass
class Findings:
    """Everything a finished run leaves to conclude from."""

    evidence: Evidence
    readings: Readings = field(default_factory=Readings)
    calls: Sequence[Call] = ()
    lives: dict[str, tuple[ProcessLife, ...]] = field(default_factory=dict)


def carry_out(
    resolved: Resolved, out: Path, progress: Progress, *, prometheus_url: str | None = None, command: str = ""
) -> Verdict:
    """Runs an experiment, judges it and writes its bundle.

    Args:
        resolved: the experiment, read and checked.
        out: the bundle's folder; an earlier bundle in it is removed.
        progress: where the run tells what it does.
        prometheus_url: a Prometheus that scrapes the target, for objectives on metrics the load does not expose itself.
        command: what reproduces the run, for the report.

    Raises:
        InputError: something needed is missing, wrong or did not start, found before the baseline; nothing is left
        behind.
        UnwrittenError: the run took place, but its bundle cannot be written.
    """
    given = _reachable(prometheus_url) if prometheus_url else None
    stand.require(resolved)
    out = bundle.prepare(out)
    with ended_by_the_user() as interrupts:
        findings = _guarded_run(resolved, out, progress, given, interrupts)
        return _conclude(resolved, findings, out, command)


def _guarded_run(
    resolved: Resolved, out: Path, progress: Progress, given: Prometheus | None, interrupts: Interrupts
) -> Findings:
    findings: list[Findings] = []
    try:
        with guarded(out) as guard, ExitStack() as stack:
            runner = Runner(resolved, out, guard.journal, progress, given)
            findings.append(Findings(runner.evidence))
            _run(runner, resolved, findings[0], stack, interrupts)
    except CleanupError as error:
        findings[0].evidence.reasons.extend(
            Reason(code=Code.CLEANUP_FAILED, subject="clean-up", message=failure) for failure in error.failures
        )
    except _COULD_NOT_START as error:
        if not (findings and findings[0].evidence.windows):
            raise InputError(f"the run could not start: {error}") from error
        findings[0].evidence.reasons.append(Reason(code=Code.RUN_FAILED, subject="run", message=str(error)))
    return findings[0]


def _reachable(url: str) -> Prometheus:
    client = Prometheus(url)
    try:
        client.version()
    except PrometheusError as error:
        raise InputError(f"--prometheus {url}: {error}") from error
    return client


def _run(runner: Runner, resolved: Resolved, findings: Findings, stack: ExitStack, interrupts: Interrupts) -> None:
    def gate(evidence: Evidence, sources: Sources) -> Sequence[Reason]:
        return judgement.baseline_reasons(resolved.objectives, evidence, sources, time.time())

    def judge(evidence: Evidence, sources: Sources) -> None:
        findings.readings = judgement.read(resolved.objectives, evidence, sources)
        findings.readings.counters = judgement.read_counters(resolved.faults, evidence, sources)

    try:
        with interrupts.interruptible():
            runner.run(stack, gate, judge)
    except KeyboardInterrupt:
        findings.evidence.reasons.append(
            Reason(code=Code.INTERRUPTED, subject="run", message="ended by the user before its last phase was over")
        )
    findings.lives = runner.lives()


def _conclude(resolved: Resolved, findings: Findings, out: Path, command: str) -> Verdict:
    evidence, readings = findings.evidence, findings.readings
    try:
        findings.calls = tuple(read_calls(out / bundle.CALLS)) if evidence.windows else ()
    except RecordError as error:
        evidence.reasons.append(Reason(code=Code.LOAD_FAILED, subject="load", message=str(error)))
    checks = coordination_checks.run(resolved.experiment.checks, out / bundle.HISTORY)
    verdict = judgement.conclude(
        resolved, evidence, readings, findings.calls, findings.lives, command, time.time(), checks
    )
    counters = {f"proofs/{selector}": read for selector, read in readings.counters.items()}
    series = {name: [asdict(item) for item in read] for name, read in {**readings.series, **counters}.items()}
    try:
        write_bundle(out, verdict, judgement.timeline_of(evidence, findings.calls, _fleet(out / bundle.HISTORY)))
        (out / bundle.SAMPLES).write_text(json.dumps(series), encoding="utf-8")
    except OSError as error:
        raise UnwrittenError(out, verdict, error) from error
    bundle.drop_scratch(out)
    return verdict


def _fleet(histories: Path) -> tuple[FleetPoint, ...]:
    """What the fleet did, for the report; nothing of histories that are damaged, which checks say."""
    try:
        return fleet_course.course(coordination_checks.load(histories), time.time() - time.monotonic())
    except (HistoryError, OSError, KeyError, TypeError):
        return ()
