"""The verdict of a run, as `verdict.json` holds it (schema `holdfast.verdict/v1`).

Times are unix seconds, latencies milliseconds. A verdict cannot be built or read that its own parts contradict: every
part that did not pass implies a reason, and the reasons alone decide the verdict.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from holdfast_slo.documents import Strict
from holdfast_slo.reasons import REASONS, Code, VerdictWord, conclude

SCHEMA: Final = "holdfast.verdict/v1"

FaultWord = Literal["EFFECTIVE", "INEFFECTIVE", "UNPROVEN"]
Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


def _known(code: str) -> str:
    if code not in Code.__members__:
        raise ValueError(f"expected one of the reason codes ({', '.join(Code)}), got {code!r}")
    return code


class Reason(Strict):
    """Why the verdict is what it is; `subject` names the objective, fault, check or part it is about."""

    code: Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": [*Code]})]
    subject: str
    message: str


class ExperimentRef(Strict):
    """Which experiment ran: its name, seed and the SHA-256 of the file (overrides applied)."""

    name: str
    seed: int
    sha256: str


class PhaseCount(Strict):
    """An objective's events in one phase."""

    phase: str
    good: Count
    total: Count


class ObjectiveResult(Strict):
    """An objective judged: `ci_low` and `ci_high` are the one-sided 95 % Clopper-Pearson bounds that decide it.

    `observed`, bounds and `budget_consumed` (share of the error budget of the calls made, above 1 when spent) are null
    without data. `good`, `total` and the verdict pool the phases by events.
    """

    name: str
    target: Ratio
    observed: Ratio | None
    ci_low: Ratio | None
    ci_high: Ratio | None
    good: Count
    total: Count
    budget_consumed: Annotated[float, Field(ge=0)] | None
    verdict: VerdictWord
    source: str
    query: str
    phase: str
    display_name: str = ""
    by_phase: tuple[PhaseCount, ...] = ()
    resets: Count = 0
    samples_needed: Count | None = None
    detail: str = ""

    @model_validator(mode="after")
    def _proven(self) -> Self:
        if self.good > self.total:
            raise ValueError(f"{self.good} good of {self.total} events cannot be")
        if self.verdict == "PASS" and (self.total == 0 or self.ci_low is None or self.ci_low < self.target):
            raise ValueError(
                f"PASS needs a lower bound of at least {self.target}, got {self.ci_low} of {self.total} events"
            )
        return self


class FaultResult(Strict):
    """A fault injected: what was asked, what was measured, and the sentence that says so."""

    id: str
    kind: str
    requested: dict[str, Any]
    observed: dict[str, Any]
    proof: str
    verdict: FaultWord
    injected_at: float | None
    healed_at: float | None

    @model_validator(mode="after")
    def _injected(self) -> Self:
        if self.verdict == "EFFECTIVE" and self.injected_at is None:
            raise ValueError(f"the fault {self.id!r} cannot be EFFECTIVE: it was never injected")
        return self


class LatencySummary(Strict):
    """Latency over the whole run, errors included, from when each call was due; null without calls. All in ms."""

    p50: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float | None


class CallCount(Strict):
    """How many calls of a method ended with a code in a phase."""

    phase: str
    method: str
    code: str
    count: Count


class LoadResult(Strict):
    """What the load generator did; `errors` are calls that ended otherwise than their step expects."""

    engine: str
    requested_rps: float | None
    achieved_rps: float
    sent: Count
    ok: Count
    errors: Count
    schedule_lag_ms_p99: float | None
    latency_ms: LatencySummary
    calls: tuple[CallCount, ...] = ()


class CheckResult(Strict):
    """A correctness check over the recorded calls."""

    name: str
    verdict: VerdictWord
    violations: tuple[str, ...]
    detail: str = ""


class RecoveryResult(Strict):
    """From the last heal to the start of the first 5 s after which every indicator holds; null where it never came."""

    seconds: float | None
    limit_seconds: float | None
    verdict: VerdictWord

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.verdict == "PASS" and self.limit_seconds is not None and not self._in_time(self.limit_seconds):
            raise ValueError(f"PASS needs a recovery within {self.limit_seconds} s, got {self.seconds}")
        return self

    def _in_time(self, limit_s: float) -> bool:
        return self.seconds is not None and self.seconds <= limit_s


class Reconciliation(Strict):
    """Calls as the clients recorded them beside Prometheus's count; further apart than allowed is no PASS."""

    client: Count
    prometheus: Count | None
    difference: float | None
    allowed: float
    verdict: VerdictWord

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.verdict == "PASS" and (self.difference is None or abs(self.difference) > self.allowed):
            raise ValueError(f"PASS needs a difference within {self.allowed}, got {self.difference}")
        return self


class Phase(Strict):
    """A phase of the run as it really took place."""

    name: str
    start: float
    end: float


class TargetRef(Strict):
    """What was tested: the address dialled and, for a process the run started, its command."""

    address: str
    command: tuple[str, ...] = ()
    version: str = ""


class Verdict(Strict):
    """The whole verdict."""

    schema_: Annotated[Literal["holdfast.verdict/v1"], Field(alias="schema")] = SCHEMA
    verdict: VerdictWord
    exit_code: Literal[0, 1, 2, 4]
    reasons: tuple[Reason, ...]
    experiment: ExperimentRef
    target: TargetRef
    started_at: float
    ended_at: float
    phases: tuple[Phase, ...]
    objectives: tuple[ObjectiveResult, ...]
    faults: tuple[FaultResult, ...]
    load: LoadResult | None
    checks: tuple[CheckResult, ...]
    recovery: RecoveryResult | None
    reconciliation: Reconciliation | None
    tools: dict[str, str]
    command: str = ""

    @classmethod
    def build(
        cls,
        *,
        experiment: ExperimentRef,
        target: TargetRef,
        started_at: float,
        ended_at: float,
        phases: Sequence[Phase] = (),
        objectives: Sequence[ObjectiveResult] = (),
        faults: Sequence[FaultResult] = (),
        load: LoadResult | None = None,
        checks: Sequence[CheckResult] = (),
        recovery: RecoveryResult | None = None,
        reconciliation: Reconciliation | None = None,
        tools: Mapping[str, str] | None = None,
        reasons: Iterable[Reason] = (),
        command: str = "",
    ) -> "Verdict":
        """Concludes from the parts and from what else the run found (`reasons`); `command` reproduces the run."""
        implied = _implied(objectives, faults, load, checks, recovery, reconciliation)
        every = _ordered([*reasons, *_unanswered(implied, list(reasons))])
        word, exit_code = conclude(every)
        return cls(
            verdict=word,
            exit_code=exit_code,  # type: ignore[arg-type]  # conclude gives one of the four
            reasons=tuple(every),
            experiment=experiment,
            target=target,
            started_at=started_at,
            ended_at=ended_at,
            phases=tuple(phases),
            objectives=tuple(objectives),
            faults=tuple(faults),
            load=load,
            checks=tuple(checks),
            recovery=recovery,
            reconciliation=reconciliation,
            tools=dict(tools or {}),
            command=command,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        implied = _implied(self.objectives, self.faults, self.load, self.checks, self.recovery, self.reconciliation)
        if missing := list(_unanswered(implied, self.reasons)):
            raise ValueError(f"the reasons leave out {missing[0].code} of {missing[0].subject!r}: {missing[0].message}")
        if (self.verdict, self.exit_code) != (expected := conclude(self.reasons)):
            raise ValueError(f"the reasons give {expected}, not {(self.verdict, self.exit_code)}")
        return self

    def to_json(self) -> str:
        """The text of `verdict.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @classmethod
    def json_schema(cls) -> str:
        """The text of the published JSON Schema of `verdict.json`."""
        schema = cls.model_json_schema(by_alias=True, mode="serialization")
        return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _implied(
    objectives: Sequence[ObjectiveResult],
    faults: Sequence[FaultResult],
    load: LoadResult | None,
    checks: Sequence[CheckResult],
    recovery: RecoveryResult | None,
    reconciliation: Reconciliation | None,
) -> list[Reason]:
    return [
        *_of_objectives(objectives),
        *_of_faults(faults),
        *_of_checks(checks),
        *_of_load(load),
        *_of_recovery(recovery, bool(faults)),
        *_of_reconciliation(reconciliation),
    ]


def _of_objectives(objectives: Sequence[ObjectiveResult]) -> Iterator[Reason]:
    if not objectives:
        yield Reason(code=Code.NO_OBJECTIVES, subject="objectives", message="the experiment was judged by no objective")
    for result in objectives:
        counted = f"{result.good} of {result.total} good in {result.phase}, target {result.target:.10g}"
        if result.verdict == "FAIL":
            yield Reason(code=Code.OBJECTIVE_VIOLATED, subject=result.name, message=counted)
        elif result.verdict == "INCONCLUSIVE":
            needed = f"; {result.samples_needed} needed" if result.samples_needed else ""
            yield Reason(code=Code.TOO_FEW_SAMPLES, subject=result.name, message=f"{counted}{needed}")


def _of_faults(faults: Sequence[FaultResult]) -> Iterator[Reason]:
    codes = {"INEFFECTIVE": Code.FAULT_INEFFECTIVE, "UNPROVEN": Code.FAULT_UNPROVEN}
    for fault in faults:
        if code := codes.get(fault.verdict):
            yield Reason(code=code, subject=fault.id, message=fault.proof)


def _of_checks(checks: Sequence[CheckResult]) -> Iterator[Reason]:
    for check in checks:
        if check.verdict == "FAIL":
            first = check.violations[0] if check.violations else check.detail
            yield Reason(code=Code.CHECK_VIOLATED, subject=check.name, message=first)
        elif check.verdict == "INCONCLUSIVE":
            yield Reason(code=Code.CHECK_UNDECIDED, subject=check.name, message=check.detail or "not decided")


def _of_load(load: LoadResult | None) -> Iterator[Reason]:
    if load is None or load.sent == 0:
        yield Reason(code=Code.NO_TRAFFIC, subject="load", message="no call was made")


def _of_recovery(recovery: RecoveryResult | None, faults: bool) -> Iterator[Reason]:
    if recovery is None:
        if faults:
            yield Reason(code=Code.RECOVERY_UNDECIDED, subject="recovery", message="recovery was not measured")
    elif recovery.verdict == "FAIL":
        took = f"took {recovery.seconds:.1f} s" if recovery.seconds is not None else "was not seen"
        message = f"recovery {took}, allowed {recovery.limit_seconds} s"
        yield Reason(code=Code.RECOVERY_TOO_SLOW, subject="recovery", message=message)
    elif recovery.verdict == "INCONCLUSIVE":
        yield Reason(code=Code.RECOVERY_UNDECIDED, subject="recovery", message="too little traffic to see recovery")


def _of_reconciliation(reconciliation: Reconciliation | None) -> Iterator[Reason]:
    if reconciliation is None:
        message = "Prometheus was not compared with the clients"
        yield Reason(code=Code.NOT_RECONCILED, subject="reconciliation", message=message)
    elif reconciliation.verdict != "PASS":
        saw = "nothing" if reconciliation.prometheus is None else reconciliation.prometheus
        message = (
            f"{reconciliation.client} calls by the clients, {saw} in Prometheus; allowed: {reconciliation.allowed:g}"
        )
        yield Reason(code=Code.METRICS_CONTRADICT_CLIENTS, subject="reconciliation", message=message)


def _unanswered(implied: Iterable[Reason], given: Sequence[Reason]) -> Iterator[Reason]:
    """What the parts imply and the run has not said itself, as precisely or more: about the same subject, as grave."""
    for reason in implied:
        grave = REASONS[Code(reason.code)].kind
        if not any(
            said.subject == reason.subject
            and REASONS[Code(said.code)].kind <= grave
            and said.code != Code.CLEANUP_FAILED
            for said in given
        ):
            yield reason


def _ordered(reasons: Iterable[Reason]) -> list[Reason]:
    """The gravest first, otherwise as found; each once."""
    unique = dict.fromkeys(reasons)
    return sorted(unique, key=lambda reason: REASONS[Code(reason.code)].kind)
