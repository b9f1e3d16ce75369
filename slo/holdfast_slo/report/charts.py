"""The report's plots as SVG text: no script, no request, colours from the page's style sheet.

Every plot is drawn twice, for a wide page and for a phone, since one scaled to fit both would have illegible labels.
"""

from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup

from holdfast_slo.report.frame import NARROW, WIDE, Frame, Scale, linear_scale, log_scale, tick
from holdfast_slo.report.timeline import FleetPoint, Timeline, TimelinePoint
from holdfast_slo.report.words import milliseconds, percent
from holdfast_slo.verdict import ObjectiveResult

__all__ = ["NARROW", "WIDE", "Draw", "error_chart", "fleet_chart", "interval_chart", "latency_chart", "work_chart"]

_LOG_FROM_RATIO: Final = 20
"""A plot whose largest value is this much above its smallest is logarithmic, so that 3 ms and 2 s are both legible."""

Draw = Callable[[int], Markup]


def latency_chart(timeline: Timeline, width: int, limit_ms: float | None) -> Markup:
    """p50, p95 and p99 over time with a labelled band for each fault; `limit_ms` is drawn as a line."""
    values = [value for point in timeline.points for value in _latencies(point) if value is not None and value > 0]
    if not values:
        return Markup('<p class="empty">No call was recorded, so there is nothing to plot.</p>')
    low, high = min(values), max(*values, limit_ms or 0.0)
    frame = Frame.of(timeline, width, 320 if width > 500 else 300)
    logarithmic = high / low > _LOG_FROM_RATIO
    y, ticks = log_scale(low, high, frame) if logarithmic else linear_scale(high, frame)
    lines = [
        _line(timeline, frame, y, name, lambda point, name=name: getattr(point, f"{name}_ms"))  # type: ignore[misc]
        for name in ("control_p50", "p50", "p95", "p99")
    ]
    limit = [_limit(frame, y(limit_ms), limit_ms)] if limit_ms else []
    scale = "logarithmic" if logarithmic else "linear"
    title = f"Latency over time, {scale} scale, {milliseconds(low)} to {milliseconds(high)}"
    grid = [tick(frame, y(value), milliseconds(value)) for value in ticks]
    return frame.svg(title, [*grid, *lines, *limit], "latency")


def _limit(frame: Frame, y: float, limit_ms: float) -> Markup:
    right = frame.right
    return Markup(
        '<g class="limit"><line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}">limit {}</text></g>'
    ).format(frame.left, right, y, y, right - 2, y - 4, milliseconds(limit_ms))


def error_chart(timeline: Timeline, width: int) -> Markup:
    """The share of calls that failed, a bar per bucket."""
    ratios = [(point.t_s, point.errors / point.calls) for point in timeline.points if point.calls]
    if not ratios:
        return Markup("")
    frame = Frame.of(timeline, width, 210)
    highest = max(0.01, *(ratio for _, ratio in ratios))
    y, ticks = linear_scale(min(1.0, highest), frame)
    bar = max(1.0, frame.x(timeline.points[0].t_s + timeline.bucket_s) - frame.x(timeline.points[0].t_s) - 1)
    bars = [
        Markup(
            '<rect class="error" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
            "<title>{} failed at {:.0f} s</title></rect>"
        ).format(frame.x(at), y(ratio), bar, frame.bottom - y(ratio), percent(ratio, 1), at - frame.start_s)
        for at, ratio in ratios
        if ratio
    ]
    grid = [tick(frame, y(value), percent(value, 2)) for value in ticks]
    title = f"Share of calls that failed over time, at most {percent(highest, 1)}" if bars else "No call failed"
    return frame.svg(title, [*grid, *bars], "errors")


def work_chart(timeline: Timeline, width: int) -> Markup:
    """What callers saw end in each bucket: what went well, and on top of it what did not."""
    points = timeline.fleet
    if not points:
        return Markup("")
    frame = Frame.of(timeline, width, 210)
    y, ticks = linear_scale(max(1, *(point.ended_well + point.ended_otherwise for point in points)), frame)
    bars = [
        _bar(frame, y, kind, point, base, count)
        for point in points
        for kind, base, count in (
            ("good", 0, point.ended_well),
            ("error", point.ended_well, point.ended_otherwise),
        )
        if count
    ]
    well, otherwise = sum(each.ended_well for each in points), sum(each.ended_otherwise for each in points)
    grid = [tick(frame, y(value), f"{value:g}") for value in ticks]
    return frame.svg(f"What ended, a second: {well} well, {otherwise} otherwise", [*grid, *bars], "work")


def _bar(frame: Frame, y: Scale, kind: str, point: FleetPoint, base: int, count: int) -> Markup:
    left, right = frame.x(point.t_s), frame.x(point.t_s + point.length_s)
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{} at {:.0f} s</title></rect>'
    ).format(
        kind,
        left,
        y(base + count),
        max(1.0, right - left - 1),
        y(base) - y(base + count),
        count,
        point.t_s - frame.start_s,
    )


def fleet_chart(timeline: Timeline, width: int) -> Markup:
    """How many of the agents were heard from."""
    points = timeline.fleet
    if not points:
        return Markup("")
    frame = Frame.of(timeline, width, 190)
    most = max(1, *(point.agents for point in points))
    y, ticks = linear_scale(most, frame)
    line = _path(frame, y, "p50", [(point.t_s + point.length_s / 2, float(point.agents)) for point in points])
    grid = [tick(frame, y(value), f"{value:g}") for value in ticks]
    return frame.svg(f"Agents heard from, {most} at most", [*grid, line], "fleet")


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


def _line(
    timeline: Timeline, frame: Frame, y: Scale, name: str, value: Callable[[TimelinePoint], float | None]
) -> Markup:
    """A path with a gap where there were no calls, and a dot where a bucket stands alone."""
    middle_s = timeline.bucket_s / 2
    return _path(frame, y, name, [(point.t_s + middle_s, value(point)) for point in timeline.points])


def _path(frame: Frame, y: Scale, name: str, values: Sequence[tuple[float, float | None]]) -> Markup:
    runs: list[list[tuple[float, float]]] = [[]]
    for at_s, value in values:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((frame.x(at_s), y(value)))
    parts = [
        "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in (run if len(run) > 1 else [*run, *run]))
        for run in runs
        if run
    ]
    return Markup('<path class="series {}" d="{}"/>').format(name, " ".join(parts)) if parts else Markup("")
