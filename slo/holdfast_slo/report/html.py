"""`report.html`: one offline file that a manager reads in ten seconds and an engineer can check."""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from holdfast_slo import statistics
from holdfast_slo.reasons import REASONS, Code
from holdfast_slo.report import charts, words
from holdfast_slo.report.timeline import Timeline
from holdfast_slo.verdict import ObjectiveResult, Verdict


def render(verdict: Verdict, timeline: Timeline) -> str:
    """The page's text; every value of the run is escaped."""
    limit_ms = _latency_limit_ms(verdict)
    return _template().render(
        verdict=verdict,
        headline=words.headline(verdict),
        facts=words.facts(verdict),
        advice={code.value: REASONS[code] for code in Code},
        latency=_both(lambda width: charts.latency_chart(timeline, width, limit_ms)),
        errors=_both(lambda width: charts.error_chart(timeline, width)),
        work=_both(lambda width: charts.work_chart(timeline, width)),
        fleet=_both(lambda width: charts.fleet_chart(timeline, width)),
        has_control=any(point.control_p50_ms is not None for point in timeline.points),
        bucket_s=timeline.bucket_s,
    )


def _both(draw: charts.Draw) -> Markup:
    wide = draw(charts.WIDE)
    return wide + draw(charts.NARROW) if wide.startswith("<svg") else wide


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("holdfast_slo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=words.percent,
        ms=words.milliseconds,
        seconds=words.seconds,
        count=words.count,
        moment=words.moment,
        plain=words.plain,
        phase=words.phase,
        mark=words.MARKS.__getitem__,
        interval=charts.interval_chart,
        wilson=_wilson,
    )
    return environment.get_template("report.html.j2")


def _wilson(result: ObjectiveResult) -> str:
    bounds = statistics.wilson(result.good, result.total)
    return f"{words.percent(bounds.low)} to {words.percent(bounds.high)}"


def _latency_limit_ms(verdict: Verdict) -> float | None:
    """The bound of the histogram bucket that an objective counts as fast enough, if there is one."""
    for result in verdict.objectives:
        if match := re.search(r'\ble="([0-9.]+)"', result.query):
            return float(match[1]) * 1000
    return None
