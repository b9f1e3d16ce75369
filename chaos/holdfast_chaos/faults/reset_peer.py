"""reset_peer: connections to the target are reset (TCP RST), those dialled anew too, for as long as it lasts.

A connection is reset `after` its first byte from the target. With the default of 0 a client never gets as far as
HTTP/2's settings, so it dials, is reset and backs off, again and again. Limits: connections that were open when it
began are closed, not reset (Toxiproxy sets SO_LINGER only on those made later); what a connection receives within
`after` is lost, not delivered.
"""

from datetime import timedelta
from typing import Any

from pydantic import model_validator

from holdfast_chaos.faults.toxic import ToxicFault, ToxicSpec, whole_ms
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, Resets, resets
from holdfast_slo.durations import Duration, format_duration

RESETS_MIN = 3
"""Fewer happen by themselves, when a peer drops an idle connection."""

BASELINE_RATIO_MIN = 5.0
"""Resets must come at least so many times as often as in the baseline, which should have none."""

CALLS_MIN = 20
"""Calls in the window needed to say that there were no resets."""


AFTER_MAX = timedelta(seconds=5)
"""Toxiproxy cannot take the toxic off a connection that waits to be reset, so a heal may take this long."""


class ResetPeerSpec(ToxicSpec):
    """`reset_peer: {}`, or with the time a connection is left standing: `reset_peer: {after: 200ms}`."""

    after: Duration = timedelta()

    @model_validator(mode="after")
    def _heals_in_time(self) -> "ResetPeerSpec":
        if self.after > AFTER_MAX:
            raise ValueError(f"`after` at most {format_duration(AFTER_MAX)}: a heal waits for it")
        return self


class ResetPeerFault(ToxicFault[ResetPeerSpec]):
    """Resets connections to the target."""

    kind = "reset_peer"
    model = ResetPeerSpec

    def attributes(self) -> dict[str, int]:
        """In ms."""
        return {"timeout": whole_ms(self.spec.after)}

    def prove_on(self, evidence: Evidence) -> Proof:
        """EFFECTIVE if the load's connections were reset, the control path's not, the baseline's hardly ever."""
        found = resets(evidence)
        verdict, why = _decide(found)
        requested: dict[str, Any] = {"after_ms": whole_ms(self.spec.after), "toxicity": self.spec.toxicity}
        observed = {
            "resets": found.count,
            "connections": found.connections,
            "baseline_resets": found.baseline_count,
            "control_errors": found.control_errors,
            "calls": found.calls,
        }
        sentence = (
            f"{found.count} resets on {found.connections} connections in {evidence.window.length_s:.1f} s "
            f"({found.baseline_count} in the baseline), {found.control_errors} errors on the untouched path{why}"
        )
        return Proof(verdict, sentence, requested, observed)


def _decide(found: Resets) -> tuple[ProofVerdict, str]:
    if found.control_calls == 0:
        return ProofVerdict.UNPROVEN, ": the untouched path was not measured"
    if found.count == 0:
        if found.calls < CALLS_MIN:
            return ProofVerdict.UNPROVEN, f": only {found.calls} calls were made meanwhile, {CALLS_MIN} are needed"
        return ProofVerdict.INEFFECTIVE, ""
    if found.control_errors:
        return ProofVerdict.UNPROVEN, ": the untouched path failed too, so something else may have reset them"
    if found.rate < BASELINE_RATIO_MIN * found.baseline_rate:
        return ProofVerdict.INEFFECTIVE, ": hardly more often than without the fault"
    if found.count < RESETS_MIN:
        return ProofVerdict.UNPROVEN, f": fewer than {RESETS_MIN} may have come by themselves"
    return ProofVerdict.EFFECTIVE, ""
