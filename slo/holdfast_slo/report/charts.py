"""The report's plots as SVG text: no script, no request, colours from the page's style sheet.

Every plot is drawn twice, for a wide page and for a phone, since one scaled to fit both would have illegible labels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

from markupsafe import Markup

from holdfast_slo.phases import FAULT_PREFIX, PhaseWindow
from holdfast_slo.report.timeline import Timeline, TimelinePoint
from holdfast_slo.report.words import milliseconds, percent, phase
from holdfast_slo.verdict import ObjectiveResult

WIDE: Final = 960
NARROW: Final = 350
_LEFT, _RIGHT, _BOTTOM = 58, 14, 34
_LABEL_ROW: Final = 16
_LOG_FROM_RATIO: Final = 20
"""A plot whose largest value is this much above its smallest is logarithmic, so that 3 ms and 2 s are both legible."""

_TIME_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_PHASE_LABELLED_FROM: Final = 60

Scale = Callable[[float], float]
Draw = Callable[[int], Markup]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The drawing area of a plot over time; x runs from the run's start."""

    width: int
    height: int
    top: int
    start_s: float
    end_s: float

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    def x(self, at_s: float) -> float:
        share = (at_s - self.start_s) / max(1e-9, self.end_s - self.start_s)
        return _LEFT + min(1.0, max(0.0, share)) * (self.width - _LEFT - _RIGHT)


def latency_chart(timeline: Timeline, width: int, limit_ms: float | None) -> Markup:
    """p50, p95 and p99 over time with a labelled band for each fault; `limit_ms` is drawn as a line."""
    values = [value for point in timeline.points for value in _latencies(point) if value is not None and value > 0]
    if not values:
        return Markup('<p class="empty">No call was recorded, so there is nothing to plot.</p>')
    low, high = min(values), max(*values, limit_ms or 0.0)
    frame = _frame(timeline, width, 320 if width > 500 else 300)
    logarithmic = high / low > _LOG_FROM_RATIO
    y, ticks = _log_scale(low, high, frame) if logarithmic else _linear_scale(high, frame)
    lines = [
        _line(timeline, frame, y, name, lambda point, name=name: getattr(point, f"{name}_ms"))  # type: ignore[misc]
        for name in ("control_p50", "p50", "p95", "p99")
    ]
    limit = [_limit(frame, y(limit_ms), limit_ms)] if limit_ms else []
    scale = "logarithmic" if logarithmic else "linear"
    title = f"Latency over time, {scale} scale, {milliseconds(low)} to {milliseconds(high)}"
    grid = [_tick(frame, y(tick), milliseconds(tick)) for tick in ticks]
    return _svg(frame, title, [*_bands(timeline, frame), *grid, *_time_axis(frame), *lines, *limit], "latency")


def _limit(frame: _Frame, y: float, limit_ms: float) -> Markup:
    right = frame.width - _RIGHT
    return Markup(
        '<g class="limit"><line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}">limit {}</text></g>'
    ).format(_LEFT, right, y, y, right - 2, y - 4, milliseconds(limit_ms))


def error_chart(timeline: Timeline, width: int) -> Markup:
    """The share of calls that failed, a bar per bucket."""
    ratios = [(point.t_s, point.errors / point.calls) for point in timeline.points if point.calls]
    if not ratios:
        return Markup("")
    frame = _frame(timeline, width, 210)
    highest = max(0.01, *(ratio for _, ratio in ratios))
    y, ticks = _linear_scale(min(1.0, highest), frame)
    bar = max(1.0, frame.x(timeline.points[0].t_s + timeline.bucket_s) - frame.x(timeline.points[0].t_s) - 1)
    bars = [
        Markup(
            '<rect class="error" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
            "<title>{} failed at {:.0f} s</title></rect>"
        ).format(frame.x(at), y(ratio), bar, frame.bottom - y(ratio), percent(ratio, 1), at - frame.start_s)
        for at, ratio in ratios
        if ratio
    ]
    grid = [_tick(frame, y(tick), percent(tick, 2)) for tick in ticks]
    title = f"Share of calls that failed over time, at most {percent(highest, 1)}" if bars else "No call failed"
    return _svg(frame, title, [*_bands(timeline, frame), *grid, *_time_axis(frame), *bars], "errors")


def interval_chart(result: ObjectiveResult, width: int = 320) -> Markup:
    """The observed ratio, its deciding bounds and the target: to pass, the whole bar is right of the target's line."""
    if result.observed is None or result.ci_low is None or result.ci_high is None:
        return Markup('<span class="empty">no data to draw</span>')
    low = min(result.ci_low, result.target)
    low = max(0.0, low - 0.25 * max(1e-6, 1 - low))
    left, right, middle = 8, width - 8, 20

    def x(ratio: float) -> float:
        return left + (ratio - low) / (1 - low) * (right - left)

    title = (
        f"{percent(result.observed)} observed, true ratio between {percent(result.ci_low)} and "
        f"{percent(result.ci_high)}, target {percent(result.target)}"
    )
    return Markup(
        '<svg class="interval {word}" role="img" viewBox="0 0 {width} 50" width="{width}" height="50">'
        "<title>{title}</title>"
        '<line class="axis" x1="{left}" x2="{right}" y1="{middle}" y2="{middle}"/>'
        '<rect class="bounds" x="{a:.1f}" y="{bar}" width="{w:.1f}" height="12" rx="3"/>'
        '<line class="target" x1="{t:.1f}" x2="{t:.1f}" y1="4" y2="34"/>'
        '<circle class="observed" cx="{o:.1f}" cy="{middle}" r="4"/>'
        '<text x="{label:.1f}" y="45" text-anchor="{anchor}">target {target}</text>'
        '<text x="{right}" y="45" text-anchor="end" class="end">100 %</text></svg>'
    ).format(
        word=result.verdict.lower(),
        width=width,
        title=title,
        left=left,
        right=right,
        middle=middle,
        bar=middle - 6,
        a=x(result.ci_low),
        w=max(2.0, x(result.ci_high) - x(result.ci_low)),
        t=x(result.target),
        o=x(result.observed),
        label=max(left, min(x(result.target), right - 60)),
        anchor="middle"
        if left + 60 < x(result.target) < right - 110
        else ("start" if x(result.target) < width / 2 else "end"),
        target=percent(result.target),
    )


def _latencies(point: TimelinePoint) -> tuple[float | None, ...]:
    return point.p50_ms, point.p95_ms, point.p99_ms, point.control_p50_ms


def _frame(timeline: Timeline, width: int, height: int) -> _Frame:
    edges = [window.start_s for window in timeline.phases] + [point.t_s for point in timeline.points]
    ends = [window.end_s for window in timeline.phases] + [point.t_s + timeline.bucket_s for point in timeline.points]
    faults = sum(window.name.startswith(FAULT_PREFIX) for window in timeline.phases)
    rows = 1 if width > 500 else max(1, min(faults, 3))
    return _Frame(width, height, 8 + rows * _LABEL_ROW, min(edges), max(ends))


def _log_scale(low: float, high: float, frame: _Frame) -> tuple[Scale, list[float]]:
    first, last = floor(log10(low)), max(ceil(log10(high)), floor(log10(low)) + 1)

    def y(value: float) -> float:
        share = (log10(max(value, 10.0**first)) - first) / (last - first)
        return frame.bottom - share * (frame.bottom - frame.top)

    return y, [10.0**power for power in range(first, last + 1)]


def _linear_scale(high: float, frame: _Frame) -> tuple[Scale, list[float]]:
    magnitude = 10.0 ** floor(log10(high / 4))
    step = min((factor * magnitude for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(high / step - 4))
    top = ceil(high / step - 1e-9) * step

    def y(value: float) -> float:
        return frame.bottom - min(value, top) / top * (frame.bottom - frame.top)

    return y, [step * index for index in range(round(top / step) + 1)]


def _bands(timeline: Timeline, frame: _Frame) -> Iterable[Markup]:
    """A band per phase; faults are shaded and labelled above the plot, in rows where it is narrow."""
    rows = (frame.top - 8) // _LABEL_ROW
    faults = 0
    for window in timeline.phases:
        fault = window.name.startswith(FAULT_PREFIX)
        left, right = frame.x(window.start_s), frame.x(window.end_s)
        yield _band(frame, window, "fault" if fault else "phase")
        if fault or (frame.width == WIDE and right - left > _PHASE_LABELLED_FROM):
            row = faults % rows if fault else 0
            middle = min(max((left + right) / 2, _LEFT + 30), frame.width - _RIGHT - 30)
            yield Markup('<text class="band-label {}" x="{:.1f}" y="{}">{}</text>').format(
                "of-fault" if fault else "of-phase", middle, 18 + row * _LABEL_ROW, phase(window.name)
            )
        faults += fault


def _band(frame: _Frame, window: PhaseWindow, kind: str) -> Markup:
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


def _time_axis(frame: _Frame) -> Iterable[Markup]:
    span = frame.end_s - frame.start_s
    wanted = 8 if frame.width > 500 else 4
    step = next(
        (step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600) if span / step <= wanted),
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


def _tick(frame: _Frame, y: float, label: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(_LEFT, frame.width - _RIGHT, y, y, _LEFT - 6, y + 4, label)


def _line(
    timeline: Timeline, frame: _Frame, y: Scale, name: str, value: Callable[[TimelinePoint], float | None]
) -> Markup:
    """A path with a gap where there were no calls, and a dot where a bucket stands alone."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in timeline.points:
        at = value(point)
        if at is None:
            runs.append([])
        else:
            runs[-1].append((frame.x(point.t_s + timeline.bucket_s / 2), y(at)))
    parts = [
        "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in (run if len(run) > 1 else [*run, *run]))
        for run in runs
        if run
    ]
    return Markup('<path class="series {}" d="{}"/>').format(name, " ".join(parts)) if parts else Markup("")


def _svg(frame: _Frame, title: str, content: Sequence[Markup], name: str) -> Markup:
    size = "wide" if frame.width > 500 else "narrow"
    head = Markup(
        '<svg class="plot {} {}" role="img" viewBox="0 0 {} {}" width="{}" height="{}"><title>{}</title>'
    ).format(name, size, frame.width, frame.height, frame.width, frame.height, title)
    return head + Markup("").join(content) + Markup("</svg>")
