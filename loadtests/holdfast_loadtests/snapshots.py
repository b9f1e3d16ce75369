"""What a load says of itself while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Snapshot:
    """The load at a moment.

    Rate and quantiles are of the last three seconds, counts of the whole run. `errors` are calls whose answer is not
    one that their step expects, never sent ones included.
    """

    t_s: float = 0.0
    phase: str = ""
    sent: int = 0
    ok: int = 0
    errors: int = 0
    never_sent: int = 0
    rps: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    lag_p99_ms: float = 0.0
    in_flight: int = 0
    counts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
