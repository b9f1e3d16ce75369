"""What a run looked like over time, as `timeline.json` holds it."""

from typing import Annotated, Final, Literal

from pydantic import Field

from holdfast_slo.documents import Strict
from holdfast_slo.phases import PhaseWindow

SCHEMA: Final = "holdfast.timeline/v1"

Latency = Annotated[float, Field(ge=0)] | None


class TimelinePoint(Strict):
    """One bucket of calls, by when they were due; `t_s` is its start in unix seconds.

    Latencies are null without calls, and errors stay inside them. `control_p50_ms` is the median of the calls on the
    untouched path, null without one.
    """

    t_s: float
    calls: Annotated[int, Field(ge=0)]
    errors: Annotated[int, Field(ge=0)]
    p50_ms: Latency
    p95_ms: Latency
    p99_ms: Latency
    control_p50_ms: Latency = None


class FleetPoint(Strict):
    """What a fleet of processes did in a stretch of time that begins at `t_s`, in unix seconds, from its histories.

    `ended_well` and `ended_otherwise` count what callers saw end; `agents` are those heard from by its end.
    """

    t_s: float
    length_s: Annotated[float, Field(gt=0)]
    ended_well: Annotated[int, Field(ge=0)]
    ended_otherwise: Annotated[int, Field(ge=0)]
    agents: Annotated[int, Field(ge=0)]


class Timeline(Strict):
    """The buckets of a run in order of time, and its phases; of runs with a fleet, what that did."""

    schema_: Annotated[Literal["holdfast.timeline/v1"], Field(alias="schema")] = SCHEMA
    points: tuple[TimelinePoint, ...]
    bucket_s: Annotated[float, Field(gt=0)]
    phases: tuple[PhaseWindow, ...]
    fleet: tuple[FleetPoint, ...] = ()

    def to_json(self) -> str:
        """The text of `timeline.json`."""
        return self.model_dump_json(by_alias=True) + "\n"
