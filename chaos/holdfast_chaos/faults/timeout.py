"""timeout: nothing passes in either direction for as long as it lasts, and nothing is closed: a cut cable.

Whoever is cut off learns of it only by waiting. What was sent meanwhile is lost, so each connection is closed when it
heals, as those who wait for an answer on it would wait for ever. Limits: Toxiproxy itself still accepts new
connections, so that a dial does not fail but hangs.
"""

from holdfast_chaos.faults import crowd
from holdfast_chaos.faults.toxic import EVERYONE, PathSpec, ToxicFault
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, Silence, silence

SILENT_MIN = 5
"""Calls without an answer needed to say that nothing passed."""

CONTROL_ANSWERED_MIN = 0.9
"""Share of calls along the untouched path that must be answered, or the fault is not what silenced the others."""

BASELINE_ANSWERED_MIN = 0.5
"""The same along the path itself before: it was a way at all. How busy the machine is shows the untouched one."""


class TimeoutSpec(PathSpec):
    """`timeout: {}`, or `timeout: {target: agents, share: 0.2}`."""


class TimeoutFault(ToxicFault[TimeoutSpec]):
    """Cuts connections off without closing them."""

    kind = "timeout"
    model = TimeoutSpec
    streams = ("upstream", "downstream")
    reads = (crowd.LEASES_LOST,)

    def attributes(self) -> dict[str, int]:
        """0: the connection is not closed by itself."""
        return {"timeout": 0}

    def prove(self, evidence: Evidence) -> Proof:
        """As `prove_on` says; of processes cut off the target must have noticed, too, by leases that expired."""
        proof = super().prove(evidence)
        if self.spec.target == EVERYONE or proof.verdict is not ProofVerdict.EFFECTIVE:
            return proof
        return crowd.noticed(proof.sentence, evidence, proof.requested, proof.observed)

    def prove_on(self, evidence: Evidence) -> Proof:
        """EFFECTIVE if no call was answered while those beside it were."""
        found = silence(evidence)
        verdict, why = _decide(found)
        observed = {
            "calls": found.calls,
            "answered": found.answered,
            "baseline_answered": round(found.baseline_share, 3),
            "control_calls": found.control_calls,
            "control_answered": found.control_answered,
        }
        sentence = (
            f"{found.answered} of {found.calls} calls were answered meanwhile, "
            f"{found.control_answered} of {found.control_calls} beside it{why}"
        )
        return Proof(verdict, sentence, {}, observed)


def _decide(found: Silence) -> tuple[ProofVerdict, str]:
    if not found.control_calls or found.control_answered < CONTROL_ANSWERED_MIN * found.control_calls:
        return ProofVerdict.UNPROVEN, ": the untouched path was silent too, or not measured"
    if found.answered:
        return ProofVerdict.INEFFECTIVE, ": some came through"
    if found.calls < SILENT_MIN:
        return ProofVerdict.UNPROVEN, f": {SILENT_MIN} are needed to say that nothing passed"
    if found.baseline_share < BASELINE_ANSWERED_MIN:
        return ProofVerdict.UNPROVEN, ": it was silent in the baseline already"
    return ProofVerdict.EFFECTIVE, ""
