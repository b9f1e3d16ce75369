"""The phases of a run: `baseline`, `fault:<id>` for each fault, `settle` after a heal (not judged), `recovery`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

BASELINE = "baseline"
RECOVERY = "recovery"
SETTLE = "settle"
FAULT_PREFIX = "fault:"


@dataclass(frozen=True, slots=True)
class PhaseWindow:
    """When a phase was in force, in unix seconds; a phase may have several windows."""

    name: str
    start_s: float
    end_s: float


def matching(pattern: str, names: Iterable[str]) -> Sequence[str]:
    """The names that an objective's phase stands for, each once: itself, or all that fit a pattern like `fault:*`."""
    return list(dict.fromkeys(name for name in names if fnmatchcase(name, pattern)))
