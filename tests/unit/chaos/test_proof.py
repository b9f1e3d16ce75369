"""Proofs are decided by traffic: what only the load saw is the fault's, what the control path saw too is not."""

from dataclasses import dataclass, field
from random import Random

import pytest

from holdfast_chaos.faults import KINDS
from holdfast_chaos.probe import ProbeSample
from holdfast_chaos.processes import ProcessIdentity, ProcessLife
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, Window, resets, silence

BASELINE = Window(0.0, 10.0)
WINDOW = Window(10.0, 20.0)


@dataclass(frozen=True)
class Call:
    sent_s: float
    done_s: float
    code: str = "OK"
    error_class: str = ""
    connection: int = 0
    method: str = "Get"
    type: str = "unary"


@dataclass
class Scene:
    """Traffic through `WINDOW`, made of medians in ms."""

    load_ms: float = 4.0
    faulted_ms: float = 104.0
    control_ms: float = 3.0
    control_faulted_ms: float = 3.0
    calls: int = 200
    control_error: str = ""
    extra: list[Call] = field(default_factory=list)

    def evidence(self, lives: dict[str, list[ProcessLife]] | None = None) -> Evidence:
        noise = Random(7)
        load = [
            Call(at, at + noise.gauss(ms, ms / 10) / 1000)
            for window, ms in ((BASELINE, self.load_ms), (WINDOW, self.faulted_ms))
            for at in spread(window, self.calls)
        ]
        control = [
            ProbeSample(at, None if error else noise.gauss(ms, ms / 10), error)
            for window, ms, error in (
                (BASELINE, self.control_ms, ""),
                (WINDOW, self.control_faulted_ms, self.control_error),
            )
            for at in spread(window, 100)
        ]
        return Evidence(WINDOW, BASELINE, [*load, *self.extra], control, lives or {})


def spread(window: Window, count: int) -> list[float]:
    return [window.start_s + window.length_s * index / count for index in range(count)]


def prove(kind: str, evidence: Evidence, **settings: object) -> Proof:
    return KINDS[kind]("f", KINDS[kind].model.model_validate(settings)).prove(evidence)


def reset(at: float, connection: int = 0) -> Call:
    return Call(at, at, "Unavailable", "reset", connection)


def test_a_delay_that_only_the_load_saw_is_effective_at_its_dose() -> None:
    proof = prove("latency", Scene().evidence(), delay="100ms")
    assert proof.verdict is ProofVerdict.EFFECTIVE
    assert proof.observed["shift_ms"] == pytest.approx(100, abs=4)
    assert proof.observed["shift_ms_low"] < proof.observed["shift_ms"] < proof.observed["shift_ms_high"]
    assert proof.sentence.startswith("asked 100 ms, observed 9") or proof.sentence.startswith(
        "asked 100 ms, observed 10"
    )


@pytest.mark.parametrize(
    ("scene", "delay", "verdict", "because"),
    [
        (Scene(faulted_ms=4), "100ms", ProofVerdict.INEFFECTIVE, "less than 60%"),
        (Scene(faulted_ms=44), "100ms", ProofVerdict.INEFFECTIVE, "less than 60%"),
        (Scene(), "0s", ProofVerdict.INEFFECTIVE, "a delay of nothing"),
        (Scene(faulted_ms=204, control_faulted_ms=103), "100ms", ProofVerdict.UNPROVEN, "untouched path slowed"),
        (Scene(calls=15), "100ms", ProofVerdict.UNPROVEN, "only 15 calls"),
        (Scene(control_error="UNAVAILABLE"), "100ms", ProofVerdict.UNPROVEN, "only 0 control probes"),
    ],
)
def test_a_delay_without_the_evidence_is_never_effective(
    scene: Scene, delay: str, verdict: ProofVerdict, because: str
) -> None:
    proof = prove("latency", scene.evidence(), delay=delay)
    assert proof.verdict is verdict
    assert because in proof.sentence


def test_a_stall_of_the_whole_machine_is_taken_off_the_dose() -> None:
    """Both paths 20 ms slower, and a fault of 100 ms on top: the dose is 100, not 120."""
    proof = prove("latency", Scene(faulted_ms=124, control_faulted_ms=23).evidence(), delay="100ms")
    assert proof.verdict is ProofVerdict.EFFECTIVE
    assert proof.observed["shift_ms"] == pytest.approx(100, abs=6)


def test_a_change_in_the_mix_of_methods_is_not_latency() -> None:
    """Counterexample to comparing medians of everything: a slow method called only during the window."""
    slow = [Call(at, at + 0.08, method="Slow") for window in (BASELINE, WINDOW) for at in spread(window, 30)]
    slow += [Call(at, at + 0.08, method="Slow") for at in spread(WINDOW, 1000)]
    proof = prove("latency", Scene(faulted_ms=4, extra=slow).evidence(), delay="80ms")
    assert proof.verdict is ProofVerdict.INEFFECTIVE


def test_streams_and_calls_that_failed_at_once_are_no_evidence_of_latency() -> None:
    streams = [Call(at, at + 5, type="bidi_stream") for at in spread(WINDOW, 1000)]
    refused = [reset(at) for at in spread(WINDOW, 1000)]
    plain = prove("latency", Scene().evidence(), delay="100ms")
    mixed = prove("latency", Scene(extra=streams + refused).evidence(), delay="100ms")
    assert mixed.observed["shift_ms"] == plain.observed["shift_ms"]


def test_calls_that_ran_into_their_deadline_count_as_slow() -> None:
    timed_out = [Call(at, at + 2, "DeadlineExceeded", "deadline") for at in spread(WINDOW, 200)]
    scene = Scene(extra=timed_out, faulted_ms=4)
    evidence = scene.evidence()
    fast = [call for call in evidence.load if call.code == "DeadlineExceeded" or call.sent_s < WINDOW.start_s]
    proof = prove("latency", Evidence(WINDOW, BASELINE, fast, evidence.control), delay="2s")
    assert proof.verdict is ProofVerdict.EFFECTIVE


def test_failures_of_one_connection_within_its_redial_wait_are_one_reset() -> None:
    burst = [reset(11.0 + index * 0.02) for index in range(20)]
    assert resets(Scene(extra=burst).evidence()).count == 1


def test_a_chain_of_failures_longer_than_the_wait_is_more_than_one_reset() -> None:
    chain = [reset(11.0 + index * 0.02) for index in range(100)]
    assert resets(Scene(extra=chain).evidence()).count == 4


def test_each_connection_is_counted_by_itself() -> None:
    found = resets(Scene(extra=[reset(11.0, connection) for connection in range(7)]).evidence())
    assert (found.count, found.connections) == (7, 7)


@pytest.mark.parametrize(
    ("extra", "control_error", "verdict"),
    [
        ([reset(11.0, n) for n in range(5)], "", ProofVerdict.EFFECTIVE),
        ([], "", ProofVerdict.INEFFECTIVE),
        ([reset(11.0)], "", ProofVerdict.UNPROVEN),
        ([reset(11.0, n) for n in range(5)], "UNAVAILABLE", ProofVerdict.UNPROVEN),
        ([reset(at, n) for n in range(5) for at in (5.0, 11.0)], "", ProofVerdict.INEFFECTIVE),
    ],
    ids=["resets", "none", "one", "control-failed-too", "as-many-in-the-baseline"],
)
def test_resets_count_only_where_the_fault_made_them(
    extra: list[Call], control_error: str, verdict: ProofVerdict
) -> None:
    scene = Scene(extra=extra, control_error=control_error)
    assert prove("reset_peer", scene.evidence()).verdict is verdict


def test_no_calls_prove_nothing_about_resets() -> None:
    assert prove("reset_peer", Scene(calls=5).evidence()).verdict is ProofVerdict.UNPROVEN


FIRST = ProcessLife(ProcessIdentity(100, 1.0), 1.0, 2.0, 11.0, -9)
SECOND = ProcessLife(ProcessIdentity(101, 12.0), 12.0, 12.5)


@pytest.mark.parametrize(
    ("lives", "control_error", "extra", "verdict"),
    [
        ([FIRST, SECOND], "UNAVAILABLE", [reset(11.5)], ProofVerdict.EFFECTIVE),
        ([FIRST], "UNAVAILABLE", [reset(11.5)], ProofVerdict.UNPROVEN),
        ([FIRST, SECOND], "", [reset(11.5)], ProofVerdict.UNPROVEN),
        ([FIRST, SECOND], "UNAVAILABLE", [], ProofVerdict.UNPROVEN),
        ([SECOND], "UNAVAILABLE", [reset(11.5)], ProofVerdict.INEFFECTIVE),
        ([], "UNAVAILABLE", [reset(11.5)], ProofVerdict.INEFFECTIVE),
        (
            [ProcessLife(FIRST.identity, 1.0, 2.0, 11.0, 0), SECOND],
            "UNAVAILABLE",
            [reset(11.5)],
            ProofVerdict.INEFFECTIVE,
        ),
        (
            [ProcessLife(FIRST.identity, 1.0, 2.0, 5.0, -9), SECOND],
            "UNAVAILABLE",
            [reset(11.5)],
            ProofVerdict.INEFFECTIVE,
        ),
    ],
    ids=[
        "died",
        "no-successor",
        "control-saw-nothing",
        "load-saw-nothing",
        "lived",
        "no-process",
        "by-exit",
        "earlier",
    ],
)
def test_a_kill_is_proven_by_the_system_the_control_path_and_the_load_together(
    lives: list[ProcessLife], control_error: str, extra: list[Call], verdict: ProofVerdict
) -> None:
    scene = Scene(control_error=control_error, extra=extra)
    assert prove("kill", scene.evidence({"server": lives})).verdict is verdict


def test_calls_that_were_never_sent_are_not_taken_for_answered():
    sent = Call(12.0, 12.1)
    never = Call(13.0, 13.0, code="NeverSent")
    found = silence(Evidence(WINDOW, BASELINE, [sent, never], []))
    assert (found.calls, found.answered) == (2, 1)
