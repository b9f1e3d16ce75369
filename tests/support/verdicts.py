"""Sample verdicts for tests of the report: a run of 55 s with three faults, in four ways of ending."""

from math import sin

from holdfast_slo.phases import PhaseWindow
from holdfast_slo.reasons import Code
from holdfast_slo.report import FleetPoint, Timeline, TimelinePoint
from holdfast_slo.statistics import clopper_pearson_lower, clopper_pearson_upper, decide_ratio, samples_needed
from holdfast_slo.verdict import (
    CallCount,
    CheckResult,
    ExperimentRef,
    FaultResult,
    LatencySummary,
    LoadResult,
    ObjectiveResult,
    Phase,
    PhaseCount,
    Reason,
    Reconciliation,
    RecoveryResult,
    TargetRef,
    Verdict,
)

START_S = 1_780_000_000.0
PHASES = (
    ("baseline", 0, 15),
    ("fault:slow-net", 15, 25),
    ("settle", 25, 27),
    ("fault:reset", 27, 32),
    ("settle", 32, 34),
    ("fault:crash", 34, 36),
    ("settle", 36, 40),
    ("recovery", 40, 55),
)
FAULT_IDS = ("slow-net", "reset", "crash")


def objective(name="availability", good=9_996, total=10_000, target=0.999, display_name="Calls answered", **more):
    decision = decide_ratio(good, total, target)
    half = PhaseCount(phase="baseline", good=good // 2, total=total // 2)
    rest = PhaseCount(phase="recovery", good=good - half.good, total=total - half.total)
    fields = {
        "name": name,
        "display_name": display_name,
        "target": target,
        "observed": good / total if total else None,
        "ci_low": clopper_pearson_lower(good, total) if total else None,
        "ci_high": clopper_pearson_upper(good, total) if total else None,
        "good": good,
        "total": total,
        "budget_consumed": (total - good) / total / (1 - target) if total else None,
        "verdict": decision.value,
        "source": f"holdfast_slo/objectives/{name}.yaml",
        "query": 'sum(grpc_client_handled_total{grpc_code="OK"}) / sum(grpc_client_handled_total)',
        "phase": "baseline, recovery",
        "by_phase": (half, rest),
        "samples_needed": samples_needed(target, total - good) if decision.value == "INCONCLUSIVE" else None,
    }
    return ObjectiveResult(**{**fields, **more})


def fault(name="slow-net", kind="latency", verdict="EFFECTIVE", at=15.0, until=25.0, **more):
    fields = {
        "id": name,
        "kind": kind,
        "requested": {"delay": "100ms", "jitter": "20ms"},
        "observed": {"added_ms": 101.4, "control_p50_ms": 2.1, "faulted_p50_ms": 103.5},
        "proof": "Asked for 100 ms, calls through the proxy took 101.4 ± 2 ms longer than those beside it.",
        "verdict": verdict,
        "injected_at": START_S + at,
        "healed_at": START_S + until,
    }
    return FaultResult(**{**fields, **more})


def faults():
    reset = fault(
        "reset",
        "reset_peer",
        at=27.0,
        until=32.0,
        requested={"timeout": "0ms"},
        observed={"connections_reset": 148},
        proof="148 connections were reset; the calls on them failed, those beside the proxy did not.",
    )
    crash = fault(
        "crash",
        "kill",
        at=34.0,
        until=36.0,
        requested={"target": "server", "restart_after": "1s"},
        observed={"exit_signal": "SIGKILL", "refused": 61},
        proof="The server's process ended by SIGKILL, a new one served 1.4 s later; 61 calls were refused.",
    )
    return (fault(), reset, crash)


def load(**more):
    fields = {
        "engine": "locust 2.43",
        "requested_rps": 200.0,
        "achieved_rps": 199.7,
        "sent": 11_000,
        "ok": 10_812,
        "errors": 188,
        "schedule_lag_ms_p99": 3.1,
        "latency_ms": LatencySummary(p50=2.4, p95=118.0, p99=410.0, p999=1900.0, max=2210.0),
        "calls": (
            CallCount(phase="baseline", method="GetAgent", code="OK", count=5_000),
            CallCount(phase="fault:crash", method="GetAgent", code="Unavailable", count=188),
        ),
    }
    return LoadResult(**{**fields, **more})


def parts(**more):
    """The parts of a run that passes; any may be replaced."""
    fields = {
        "experiment": ExperimentRef(name="fleet-under-fire", seed=7, sha256="ab" * 32),
        "target": TargetRef(address="127.0.0.1:50051", command=("holdfast", "serve"), version="0.1.0"),
        "started_at": START_S,
        "ended_at": START_S + 57.3,
        "phases": [Phase(name=name, start=START_S + start, end=START_S + end) for name, start, end in PHASES],
        "objectives": (
            objective(),
            objective("latency-p95", 9_950, 10_000, 0.95, "95 % of calls within 2 s",
                      query='sum(handling_seconds_bucket{le="2.0"}) / sum(handling_seconds_count)'),
            objective("registration-success", 612, 612, 0.99, "Registrations that succeed"),
        ),
        "faults": faults(),
        "load": load(),
        "checks": (CheckResult(name="all agents are listed", verdict="PASS", violations=(), detail="105 of 105"),),
        "recovery": RecoveryResult(seconds=1.8, limit_seconds=10, verdict="PASS"),
        "reconciliation": Reconciliation(client=11_000, prometheus=11_000, difference=0, allowed=0, verdict="PASS"),
        "tools": {"holdfast": "0.1.0", "prometheus": "2.53.3", "toxiproxy": "2.12.0"},
        "command": "holdfast run fleet-under-fire --seed 7 --out out/demo",
    }  # fmt: skip
    return {**fields, **more}


def passing():
    return Verdict.build(**parts())


def failing():
    missed = objective(good=9_800)
    check = CheckResult(
        name="no registration is lost",
        verdict="FAIL",
        violations=("agent namespaces/default/agents/tester was acknowledged at 34.01 s and is missing at 41.20 s",),
    )
    return Verdict.build(**parts(objectives=(missed, *parts()["objectives"][1:]), checks=(check,)))


def undecided():
    tame = fault(
        "slow-net",
        verdict="INEFFECTIVE",
        observed={"added_ms": 0.1},
        proof="Asked for 100 ms, calls took 0.1 ± 0.3 ms longer than those beside the proxy.",
    )
    few = objective(good=400, total=400)
    return Verdict.build(**parts(objectives=(few, *parts()["objectives"][1:]), faults=(tame, *faults()[1:])))


def unclean():
    reason = Reason(
        code=Code.CLEANUP_FAILED, subject="slow-net", message="the toxic 'slow-net' is still on the proxy 'grpc'"
    )
    return Verdict.build(**parts(reasons=[reason]))


def timeline(bucket_s=0.5, fleet=()):
    """Calls of 3 ms at rest, 100 ms slow in the first fault, and up to 2 s while the server is gone."""
    points = []
    for index in range(110):
        at = index * bucket_s
        base = 2.4 + 0.6 * sin(index)
        slow = 100 if 15 <= at < 25 else 0
        down = 34 <= at < 36
        points.append(
            TimelinePoint(
                t_s=START_S + at,
                calls=100,
                errors=70 if down else (12 if 27 <= at < 32 else 0),
                p50_ms=base + slow + (900 if down else 0),
                p95_ms=base * 2.2 + slow * 1.2 + (1700 if down else 0) + (40 if 27 <= at < 32 else 0),
                p99_ms=base * 4 + slow * 1.3 + (2150 if down else 0) + (90 if 27 <= at < 32 else 0),
                control_p50_ms=base if not down else None,
            )
        )
    windows = tuple(PhaseWindow(name, START_S + start, START_S + end) for name, start, end in PHASES)
    return Timeline(points=tuple(points), bucket_s=bucket_s, phases=windows, fleet=tuple(fleet))


def fleet():
    """Fifty agents, of which ten fall silent in the first fault, and work of which little then ends well."""
    return [
        FleetPoint(
            t_s=START_S + at,
            length_s=1.0,
            ended_well=20 if not 15 <= at < 25 else 12,
            ended_otherwise=0 if not 15 <= at < 25 else 3,
            agents=50 if not 15 <= at < 25 else 40,
        )
        for at in range(55)
    ]
