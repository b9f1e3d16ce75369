"""Numbers and verdicts in the words of the report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor, log10

from holdfast_slo.phases import FAULT_PREFIX
from holdfast_slo.verdict import FaultResult, ObjectiveResult, Verdict

_UNITS = frozenset({"ms", "s", "bytes"})

MARKS = {
    "PASS": "✓",
    "EFFECTIVE": "✓",
    "FAIL": "✕",
    "INEFFECTIVE": "✕",
    "INCONCLUSIVE": "?",
    "UNPROVEN": "?",
}


def percent(ratio: float | None, decimals: int = 4) -> str:
    """`99.95 %`: cut, never rounded up, so that 99.99999 % is not shown as 100 %."""
    if ratio is None:
        return "—"
    scale = 10**decimals
    cut = floor(ratio * 100 * scale + 1e-6) / scale
    if cut >= 100 and ratio < 1:
        cut = 100 - 1 / scale
    if cut == 0 < ratio:
        return f"under {1 / scale:.{decimals}f} %"
    return f"{cut:.{decimals}f}".rstrip("0").rstrip(".") + " %"


def milliseconds(value_ms: float | None) -> str:
    """`3.2 ms`, `250 ms`, `2.05 s`: three figures are what a reader uses."""
    if value_ms is None:
        return "—"
    value, unit = (value_ms / 1000, "s") if value_ms >= 1000 else (value_ms, "ms")
    decimals = 0 if value == 0 else max(0, 2 - floor(log10(value)))
    text = f"{value:.{min(decimals, 3)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + f" {unit}"


def seconds(value_s: float | None) -> str:
    """`1.8 s`, or a dash."""
    return "—" if value_s is None else f"{value_s:.1f} s"


def count(number: int | None) -> str:
    """`12 345`, with a thin space that does not break."""
    return "—" if number is None else f"{number:,}".replace(",", "\u202f")


def moment(unix_s: float) -> str:
    """`2026-01-31 12:00:05 UTC`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: object) -> str:
    """A fault's dose or observation in a few words: `delay 100ms · jitter 20ms`."""
    if isinstance(value, dict):
        return " · ".join(_named(str(key), inner) for key, inner in value.items()) or "—"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "—"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _named(key: str, value: object) -> str:
    """`added_ms: 101.4` as `added 101.4 ms`."""
    words = key.split("_")
    unit = words.pop() if len(words) > 1 and words[-1] in _UNITS and isinstance(value, int | float) else ""
    return f"{' '.join(words)} {plain(value)} {unit}".rstrip()


def phase(name: str) -> str:
    """A phase's name as a reader calls it."""
    return name.removeprefix(FAULT_PREFIX)


def headline(verdict: Verdict) -> str:
    """The verdict as one sentence for someone who reads no further."""
    if verdict.exit_code == 4:
        return "Clean-up failed: a fault may still be in place."
    if verdict.verdict == "PASS":
        return "The service kept its promises" + (" under fire." if verdict.faults else ".")
    if verdict.verdict == "FAIL":
        return "The service broke a promise."
    return "This run cannot say: what it measured supports no claim."


def facts(verdict: Verdict) -> list[str]:
    """What the verdict rests on, a short phrase each."""
    return [
        _objectives(verdict.objectives),
        *([_faults(verdict.faults)] if verdict.faults else ["no fault was injected"]),
        *_recovery(verdict),
        *([_checks(verdict)] if verdict.checks else []),
        *([f"{count(verdict.load.sent)} calls made"] if verdict.load else []),
    ]


def _objectives(objectives: Sequence[ObjectiveResult]) -> str:
    met = sum(result.verdict == "PASS" for result in objectives)
    missed = sum(result.verdict == "FAIL" for result in objectives)
    text = f"{met} of {len(objectives)} objectives met"
    return f"{text}, {missed} missed" if missed else text


def _faults(faults: Sequence[FaultResult]) -> str:
    bit = sum(fault.verdict == "EFFECTIVE" for fault in faults)
    return f"{bit} of {len(faults)} faults proven to bite"


def _recovery(verdict: Verdict) -> list[str]:
    recovery = verdict.recovery
    if recovery is None:
        return []
    limit = f" (limit {recovery.limit_seconds:g} s)" if recovery.limit_seconds is not None else ""
    return [
        f"recovered in {seconds(recovery.seconds)}{limit}"
        if recovery.seconds is not None
        else f"no recovery seen{limit}"
    ]


def _checks(verdict: Verdict) -> str:
    passed = sum(check.verdict == "PASS" for check in verdict.checks)
    return f"{passed} of {len(verdict.checks)} checks passed"
