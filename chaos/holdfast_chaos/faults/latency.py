"""latency: every byte from the target to its clients comes later, by `delay` ± `jitter`.

Limits: the delay is on the way back only, so a call's latency grows by it once; a call of several chunks is not delayed
several times, since chunks wait side by side. It delays whole connections, not single calls.
"""

from datetime import timedelta
from typing import Any

from pydantic import model_validator

from holdfast_chaos.faults.toxic import ToxicFault, ToxicSpec, whole_ms
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, Shift, latency_shift
from holdfast_slo.durations import Duration, format_duration

SHARE_MIN = 0.6
"""Share of the delay that must be seen, at the interval's lower end. Below 1, as jitter and a loaded machine blur the
median; far above what noise alone gives, since noise is taken off by the control path and the baseline."""

CONTROL_SHARE_MAX = 0.25
"""The untouched path may slow down by at most this share of the delay, or the fault is not what slowed the load."""


class LatencySpec(ToxicSpec):
    """`latency: {delay: 100ms, jitter: 20ms}`, `latency: {target: agents, share: 0.2, delay: 1s}`."""

    delay: Duration
    jitter: Duration = timedelta()

    @model_validator(mode="after")
    def _jitter_below_delay(self) -> "LatencySpec":
        if self.jitter > self.delay:
            longest = format_duration(self.delay)
            raise ValueError(f"`jitter` at most as long as `delay` ({longest}): no delay is below zero")
        return self


class LatencyFault(ToxicFault[LatencySpec]):
    """Delays what the target answers."""

    kind = "latency"
    model = LatencySpec

    def attributes(self) -> dict[str, int]:
        """In ms."""
        return {"latency": whole_ms(self.spec.delay), "jitter": whole_ms(self.spec.jitter)}

    def prove_on(self, evidence: Evidence) -> Proof:
        """EFFECTIVE if the load's median grew by ≥ 60 % of the delay more than the control path's did."""
        asked_ms = float(whole_ms(self.spec.delay))
        requested: dict[str, Any] = {
            "delay_ms": asked_ms,
            "jitter_ms": float(whole_ms(self.spec.jitter)),
            "toxicity": self.spec.toxicity,
        }
        shift = latency_shift(evidence, tail_s=(self.spec.delay + self.spec.jitter).total_seconds())
        if isinstance(shift, str):
            return Proof(ProofVerdict.UNPROVEN, f"asked {asked_ms:g} ms: {shift}", requested, {})
        verdict, why = _decide(asked_ms, self.spec.toxicity, shift)
        observed = {
            "shift_ms": round(shift.value_ms, 3),
            "shift_ms_low": round(shift.low_ms, 3),
            "shift_ms_high": round(shift.high_ms, 3),
            "baseline_p50_ms": round(shift.baseline_p50_ms, 3),
            "control_p50_ms": round(shift.control_p50_ms, 3),
            "control_shift_ms": round(shift.control_shift_ms, 3),
            "calls": shift.calls,
        }
        return Proof(verdict, f"asked {asked_ms:g} ms, observed {shift.describe()}{why}", requested, observed)


def _decide(asked_ms: float, toxicity: float, shift: Shift) -> tuple[ProofVerdict, str]:
    if asked_ms <= 0:
        return ProofVerdict.INEFFECTIVE, ": a delay of nothing has no effect"
    needed_ms = SHARE_MIN * asked_ms
    if shift.high_ms < needed_ms:
        hint = "; at this toxicity most connections are left alone" if toxicity <= 0.5 else ""
        return ProofVerdict.INEFFECTIVE, f": less than {SHARE_MIN:.0%} of the dose{hint}"
    if shift.control_shift_ms > CONTROL_SHARE_MAX * asked_ms:
        return ProofVerdict.UNPROVEN, f": the untouched path slowed down too, by {shift.control_shift_ms:.1f} ms"
    if shift.low_ms < needed_ms:
        return ProofVerdict.UNPROVEN, f": too uncertain to say that it is {SHARE_MIN:.0%} of the dose"
    return ProofVerdict.EFFECTIVE, ""
