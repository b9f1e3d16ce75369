"""The frame of a plot over time: its axes, and a labelled band for each phase, so that all plots of a run line up."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, floor, log10
from typing import Final

from markupsafe import Markup

from holdfast_slo.phases import FAULT_PREFIX, PhaseWindow
from holdfast_slo.report.timeline import Timeline
from holdfast_slo.report.words import phase

WIDE: Final = 960
NARROW: Final = 350
_LEFT, _RIGHT, _BOTTOM = 58, 14, 34
_LABEL_ROW: Final = 16
_LABEL_ROWS_MAX: Final = 4
_LETTER: Final = 7
"""Width of a letter of a label, about."""

_TIME_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_PHASE_LABELLED_FROM: Final = 60

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Frame:
    """The drawing area of a plot over time; x runs from the run's start."""

    width: int
    height: int
    start_s: float
    end_s: float
    phases: Sequence[PhaseWindow] = ()
    labels: Sequence["_Label"] = field(default=())

    @classmethod
    def of(cls, timeline: Timeline, width: int, height: int) -> "Frame":
        """That of a run; its first and last moment are those of its phases and buckets."""
        edges = [window.start_s for window in timeline.phases] + [point.t_s for point in timeline.points]
        ends = [window.end_s for window in timeline.phases] + [
            point.t_s + timeline.bucket_s for point in timeline.points
        ]
        bare = cls(width, height, min(edges), max(ends), timeline.phases)
        return replace(bare, labels=_labels(bare))

    @property
    def left(self) -> int:
        """Where the plot begins."""
        return _LEFT

    @property
    def right(self) -> int:
        """Where it ends."""
        return self.width - _RIGHT

    @property
    def top(self) -> int:
        """Below the labels."""
        return 8 + _LABEL_ROW * (1 + max((label.row for label in self.labels), default=0))

    @property
    def bottom(self) -> int:
        """Above the axis of time."""
        return self.height - _BOTTOM

    def x(self, at_s: float) -> float:
        """Where a moment is."""
        share = (at_s - self.start_s) / max(1e-9, self.end_s - self.start_s)
        return _LEFT + min(1.0, max(0.0, share)) * (self.right - _LEFT)

    def svg(self, title: str, content: Sequence[Markup], name: str) -> Markup:
        """The plot: bands and axis of time below its content."""
        size = "wide" if self.width > 500 else "narrow"
        head = Markup(
            '<svg class="plot {} {}" role="img" viewBox="0 0 {} {}" width="{}" height="{}"><title>{}</title>'
        ).format(name, size, self.width, self.height, self.width, self.height, title)
        return head + Markup("").join([*_bands(self), *_time_axis(self), *content]) + Markup("</svg>")


@dataclass(frozen=True, slots=True)
class _Label:
    """What stands above a band, and in which row."""

    text: str
    middle: float
    row: int
    kind: str

    @property
    def edges(self) -> tuple[float, float]:
        half = len(self.text) * _LETTER / 2 + 4
        return self.middle - half, self.middle + half


def log_scale(low: float, high: float, frame: Frame) -> tuple[Scale, list[float]]:
    """Where a value is on a logarithmic axis from `low` to `high`, and its ticks."""
    first, last = floor(log10(low)), max(ceil(log10(high)), floor(log10(low)) + 1)

    def y(value: float) -> float:
        share = (log10(max(value, 10.0**first)) - first) / (last - first)
        return frame.bottom - share * (frame.bottom - frame.top)

    return y, [10.0**power for power in range(first, last + 1)]


def linear_scale(high: float, frame: Frame) -> tuple[Scale, list[float]]:
    """Where a value is on an axis from 0 to `high`, and its ticks."""
    magnitude = 10.0 ** floor(log10(high / 4))
    step = min((factor * magnitude for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(high / step - 4))
    top = ceil(high / step - 1e-9) * step

    def y(value: float) -> float:
        return frame.bottom - min(value, top) / top * (frame.bottom - frame.top)

    return y, [step * index for index in range(round(top / step) + 1)]


def _labels(frame: Frame) -> list[_Label]:
    """Each fault's, in the first row where it stands clear of the others; other phases' where there is room beside."""
    placed: list[_Label] = []
    for window in sorted(frame.phases, key=lambda each: not each.name.startswith(FAULT_PREFIX)):
        is_fault = window.name.startswith(FAULT_PREFIX)
        left, right = frame.x(window.start_s), frame.x(window.end_s)
        if not is_fault and (frame.width != WIDE or right - left <= _PHASE_LABELLED_FROM):
            continue
        text = phase(window.name)
        half = len(text) * _LETTER / 2
        middle = min(max((left + right) / 2, _LEFT + half), frame.right - half)
        rows = range(_LABEL_ROWS_MAX) if is_fault else range(1)
        tried = [_Label(text, middle, row, "of-fault" if is_fault else "of-phase") for row in rows]
        clear = [label for label in tried if not any(_overlap(label, other) for other in placed)]
        if clear or is_fault:
            placed.append((clear or tried[-1:])[0])
    return placed


def _overlap(one: _Label, other: _Label) -> bool:
    return one.row == other.row and one.edges[0] < other.edges[1] and other.edges[0] < one.edges[1]


def _bands(frame: Frame) -> Iterable[Markup]:
    """A band per phase; faults are shaded and labelled above the plot, in rows where it is narrow."""
    for window in frame.phases:
        yield _band(frame, window, "fault" if window.name.startswith(FAULT_PREFIX) else "phase")
    for label in frame.labels:
        yield Markup('<text class="band-label {}" x="{:.1f}" y="{}">{}</text>').format(
            label.kind, label.middle, 18 + label.row * _LABEL_ROW, label.text
        )


def _band(frame: Frame, window: PhaseWindow, kind: str) -> Markup:
    left, right = frame.x(window.start_s), frame.x(window.end_s)
    return Markup(
        '<rect class="band {kind}" data-{kind}="{name}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}">'
        "<title>{name}: {start:.1f} s to {end:.1f} s</title></rect>"
    ).format(
        kind=kind,
        name=phase(window.name),
        x=left,
        y=frame.top,
        width=max(1.0, right - left),
        height=frame.bottom - frame.top,
        start=window.start_s - frame.start_s,
        end=window.end_s - frame.start_s,
    )


def _time_axis(frame: Frame) -> Iterable[Markup]:
    span = frame.end_s - frame.start_s
    wanted = 8 if frame.width > 500 else 4
    step = next(
        (step for step in _TIME_STEPS_S if span / step <= wanted),
        ceil(span / wanted),
    )
    for index in range(int(span / step) + 1):
        at = frame.start_s + index * step
        yield Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{} s</text>').format(
            frame.x(at), frame.bottom + 16, index * step
        )
    yield Markup('<text class="tick" x="{}" y="{}" text-anchor="end">since the run began</text>').format(
        frame.width - _RIGHT, frame.bottom + 31
    )


def tick(frame: Frame, y: float, label: str) -> Markup:
    """A line across at a value, with its label."""
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(_LEFT, frame.width - _RIGHT, y, y, _LEFT - 6, y + 4, label)
