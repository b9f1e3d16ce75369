"""Why a verdict is not PASS: one table of codes, which feeds the verdict, the report and the documentation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final, Literal, Protocol

VerdictWord = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class ReasonClass(IntEnum):
    """What a reason means for the verdict; the smallest one present decides it."""

    CLEANUP = 0
    UNTRUSTED = 1
    VIOLATION = 2
    UNDECIDED = 3


class Code(StrEnum):
    """Every reason a verdict can give."""

    CLEANUP_FAILED = "CLEANUP_FAILED"
    PROMETHEUS_UNREACHABLE = "PROMETHEUS_UNREACHABLE"
    METRICS_MISSING = "METRICS_MISSING"
    METRICS_CONTRADICT_CLIENTS = "METRICS_CONTRADICT_CLIENTS"
    GENERATOR_SATURATED = "GENERATOR_SATURATED"
    LOAD_FAILED = "LOAD_FAILED"
    RUN_FAILED = "RUN_FAILED"
    NO_TRAFFIC = "NO_TRAFFIC"
    OBJECTIVE_VIOLATED = "OBJECTIVE_VIOLATED"
    BASELINE_VIOLATED = "BASELINE_VIOLATED"
    RECOVERY_TOO_SLOW = "RECOVERY_TOO_SLOW"
    CHECK_VIOLATED = "CHECK_VIOLATED"
    TARGET_DIED = "TARGET_DIED"
    FAULT_INEFFECTIVE = "FAULT_INEFFECTIVE"
    FAULT_UNPROVEN = "FAULT_UNPROVEN"
    TOO_FEW_SAMPLES = "TOO_FEW_SAMPLES"
    CALLS_UNENDED = "CALLS_UNENDED"
    NO_OBJECTIVES = "NO_OBJECTIVES"
    BASELINE_UNDECIDED = "BASELINE_UNDECIDED"
    CHECK_UNDECIDED = "CHECK_UNDECIDED"
    RECOVERY_UNDECIDED = "RECOVERY_UNDECIDED"
    NOT_RECONCILED = "NOT_RECONCILED"
    INTERRUPTED = "INTERRUPTED"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class ReasonKind:
    """A row of the table."""

    kind: ReasonClass
    meaning: str
    what_to_do: str


_C, _T, _V, _U = ReasonClass.CLEANUP, ReasonClass.UNTRUSTED, ReasonClass.VIOLATION, ReasonClass.UNDECIDED

REASONS: Final[Mapping[Code, ReasonKind]] = MappingProxyType(
    {
        Code.CLEANUP_FAILED: ReasonKind(
            _C,
            "A fault may still be in place: undoing it failed.",
            "Run 'holdfast recover' and check what it says it undid.",
        ),
        Code.PROMETHEUS_UNREACHABLE: ReasonKind(
            _T,
            "Prometheus could not be asked for the samples.",
            "Check that it runs and answers at the address given, then run again.",
        ),
        Code.METRICS_MISSING: ReasonKind(
            _T,
            "Prometheus answered, but not with the samples that the objective needs.",
            "Run the objective's query in Prometheus; check the metric's name, its labels and that the scrape is up.",
        ),
        Code.METRICS_CONTRADICT_CLIENTS: ReasonKind(
            _T,
            "Prometheus counted other calls than the clients did.",
            "Look for a second client, a missed scrape or a series with the same labels.",
        ),
        Code.GENERATOR_SATURATED: ReasonKind(
            _T,
            "The load generator could not keep its own schedule, so its latencies are not the server's.",
            "Lower the rate, raise the concurrency or give the generator more CPU.",
        ),
        Code.LOAD_FAILED: ReasonKind(
            _T,
            "The load generator failed.",
            "Read its message in the run's output; the bundle holds what it recorded.",
        ),
        Code.RUN_FAILED: ReasonKind(
            _T,
            "The run broke off half-way by a failure of the harness or the machine, not of the target.",
            "Read the message: a full disk and a process that cannot be ended are the usual causes.",
        ),
        Code.NO_TRAFFIC: ReasonKind(
            _T,
            "No calls were made where calls were needed.",
            "Check the load's scenarios and the target's address.",
        ),
        Code.OBJECTIVE_VIOLATED: ReasonKind(
            _V,
            "An objective is proven to be missed.",
            "See the phase and the codes of the failed calls in the report.",
        ),
        Code.BASELINE_VIOLATED: ReasonKind(
            _V,
            "An objective is missed before any fault, so nothing was injected.",
            "Make the service meet its objectives at rest first.",
        ),
        Code.RECOVERY_TOO_SLOW: ReasonKind(
            _V,
            "The service took longer to recover than allowed.",
            "See the timeline after the last heal: reconnects, restarts and queues are the usual causes.",
        ),
        Code.CHECK_VIOLATED: ReasonKind(
            _V,
            "A correctness check found a violation.",
            "Read the violations: each names the calls that contradict each other.",
        ),
        Code.TARGET_DIED: ReasonKind(
            _V,
            "The target's process ended though no fault killed it.",
            "Read the target's log in the bundle.",
        ),
        Code.FAULT_INEFFECTIVE: ReasonKind(
            _U,
            "A fault was injected and measurably did nothing to the traffic.",
            "Check that the load goes through the faulted path, and the fault's dose.",
        ),
        Code.FAULT_UNPROVEN: ReasonKind(
            _U,
            "It could not be measured whether a fault had an effect.",
            "Make the fault longer, or give it more traffic.",
        ),
        Code.TOO_FEW_SAMPLES: ReasonKind(
            _U,
            "There are too few calls to decide an objective either way.",
            "Run longer or faster; 'holdfast plan' says how many calls are needed.",
        ),
        Code.CALLS_UNENDED: ReasonKind(
            _U,
            "Calls were still under way when the load stopped waiting, so their outcome is not known.",
            "See whether the load generator was stopped or starved at the end, then run again.",
        ),
        Code.NO_OBJECTIVES: ReasonKind(
            _U,
            "Nothing was asked of the service.",
            "List at least one objective in the experiment.",
        ),
        Code.BASELINE_UNDECIDED: ReasonKind(
            _U,
            "It could not be shown that the service was healthy before the faults, so nothing was injected.",
            "Make the baseline longer or the load faster.",
        ),
        Code.CHECK_UNDECIDED: ReasonKind(
            _U,
            "A correctness check could not be decided.",
            "Read the check's detail; calls with an unknown outcome are the usual cause.",
        ),
        Code.RECOVERY_UNDECIDED: ReasonKind(
            _U,
            "It could not be measured when the service recovered.",
            "Make the recovery phase longer, so that there is traffic to judge.",
        ),
        Code.NOT_RECONCILED: ReasonKind(
            _U,
            "The calls that Prometheus counted were not compared with the clients' own.",
            "See why the run ended before it could compare them.",
        ),
        Code.INTERRUPTED: ReasonKind(
            _U,
            "The run was ended by its user.",
            "Run again to the end.",
        ),
        Code.ABORTED: ReasonKind(
            _U,
            "An abort condition of the experiment was met, and the faults were healed early.",
            "See the condition and the timeline; soften the fault if the abort was right.",
        ),
    }
)

_OUTCOMES: Final[Mapping[ReasonClass, tuple[VerdictWord, int]]] = {
    ReasonClass.CLEANUP: ("INCONCLUSIVE", 4),
    ReasonClass.UNTRUSTED: ("INCONCLUSIVE", 2),
    ReasonClass.VIOLATION: ("FAIL", 1),
    ReasonClass.UNDECIDED: ("INCONCLUSIVE", 2),
}


class HasCode(Protocol):
    """Anything that names a reason."""

    @property
    def code(self) -> str:
        """A `Code`."""
        ...


def conclude(reasons: Iterable[HasCode]) -> tuple[VerdictWord, int]:
    """The verdict and exit code that follow from the reasons; PASS and 0 only where there is none.

    Raises:
        ValueError: a reason's code is not in the table.
    """
    classes = [REASONS[Code(reason.code)].kind for reason in reasons]
    return _OUTCOMES[min(classes)] if classes else ("PASS", 0)
