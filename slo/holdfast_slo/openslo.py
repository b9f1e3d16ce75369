"""Objectives from OpenSLO v1 files (https://github.com/OpenSLO/OpenSLO), the one source of what a service promises.

Read is what a gate can judge exactly: `kind: SLO` with an inline ratio of counters, budgeted by Occurrences. All else
is refused by name and line rather than half understood.
"""

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from holdfast.cli import InputError
from holdfast_slo.documents import Document, Strict, load_document
from holdfast_slo.selectors import Selector, parse_selector


@dataclass(frozen=True, slots=True)
class Objective:
    """A ratio of events with its target; exactly one of `good` and `bad` is given. `source` is the file."""

    name: str
    display_name: str
    target: float
    good: Selector | None
    bad: Selector | None
    total: Selector
    source: str
    description: str = ""


def _selectable(query: str) -> str:
    parse_selector(query)
    return query


class _Metadata(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    display_name: Annotated[str, Field(alias="displayName")] = ""
    labels: dict[str, Any] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class _QuerySpec(Strict):
    query: Annotated[str, AfterValidator(_selectable)]


class _MetricSource(Strict):
    ref: Annotated[str, Field(alias="metricSourceRef")] = ""
    type: Annotated[str, Field(pattern="(?i)^prometheus$")] = "Prometheus"
    spec: _QuerySpec


class _Metric(Strict):
    source: Annotated[_MetricSource, Field(alias="metricSource")]

    @property
    def selector(self) -> Selector:
        return parse_selector(self.source.spec.query)


class _RatioMetric(Strict):
    counter: Literal[True]
    good: _Metric | None = None
    bad: _Metric | None = None
    total: _Metric


class _IndicatorSpec(Strict):
    description: str = ""
    ratio: Annotated[_RatioMetric, Field(alias="ratioMetric")]


class _Indicator(Strict):
    metadata: _Metadata | None = None
    spec: _IndicatorSpec


class _TimeWindow(Strict):
    duration: Annotated[str, Field(pattern=r"^[1-9][0-9]*[mhdwMQY]$")]
    is_rolling: Annotated[bool, Field(alias="isRolling")] = True


class _Objective(Strict):
    display_name: Annotated[str, Field(alias="displayName")] = ""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    target_percent: Annotated[float | None, Field(alias="targetPercent", gt=0, lt=100)] = None


class _Spec(Strict):
    description: str = ""
    service: str = ""
    indicator: _Indicator
    window: Annotated[tuple[_TimeWindow, ...], Field(alias="timeWindow", max_length=1)] = ()
    budgeting: Annotated[Literal["Occurrences"], Field(alias="budgetingMethod")]
    objectives: Annotated[list[_Objective], Field(min_length=1, max_length=1)]
    alert_policies: Annotated[tuple[Any, ...], Field(alias="alertPolicies")] = ()


class _Slo(Strict):
    api_version: Annotated[Literal["openslo/v1"], Field(alias="apiVersion")]
    kind: Literal["SLO"]
    metadata: _Metadata
    spec: _Spec


_PACKAGED: Final = "objectives"


def packaged_objectives() -> dict[str, Traversable]:
    """The objective files that come with Holdfast, by file name."""
    folder = resources.files("holdfast_slo") / _PACKAGED
    return {entry.name: entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_objective(path: Path | Traversable) -> Objective:
    """Reads an objective from an OpenSLO file; a packaged one is called `holdfast_slo/objectives/…`, wherever it lies.

    Raises:
        InputError: the file cannot be read or is no SLO that a gate can judge; says where, and what to write instead.
    """
    packaged = packaged_objectives().get(path.name)
    name = f"holdfast_slo/{_PACKAGED}/{path.name}" if path == packaged else None
    return read_objective(load_document(path, name))


def read_objective(document: Document) -> Objective:
    """As `load_objective`, of a document already read."""
    slo = document.parse(_Slo)
    ratio = slo.spec.indicator.spec.ratio
    loc = ("spec", "indicator", "spec", "ratioMetric")
    if (ratio.good is None) == (ratio.bad is None):
        raise document.error(loc, "exactly one of 'good' and 'bad' beside 'total'", "keep the one you can count")
    return Objective(
        name=slo.metadata.name,
        display_name=slo.metadata.display_name or slo.spec.objectives[0].display_name or slo.metadata.name,
        target=_target(document, slo.spec.objectives[0]),
        good=ratio.good.selector if ratio.good else None,
        bad=ratio.bad.selector if ratio.bad else None,
        total=ratio.total.selector,
        source=document.name,
        description=slo.spec.description.strip(),
    )


def _target(document: Document, objective: _Objective) -> float:
    if (objective.target is None) == (objective.target_percent is None):
        raise _one_target(document)
    if objective.target is not None:
        return objective.target
    assert objective.target_percent is not None
    return float(f"{objective.target_percent / 100:.15g}")


def _one_target(document: Document) -> InputError:
    return document.error(
        ("spec", "objectives", 0), "exactly one of 'target' and 'targetPercent'", "as in target: 0.999"
    )
