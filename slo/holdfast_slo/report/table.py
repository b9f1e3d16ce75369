"""The verdict at the end of a run in the terminal. `rich` leaves colours out where NO_COLOR is set or nobody looks."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast_slo.report.words import MARKS, count, facts, headline, percent, seconds
from holdfast_slo.verdict import Verdict

_STYLES = {"✓": "green", "✕": "red", "?": "yellow"}


def render(verdict: Verdict) -> RenderableType:
    """One table of every part judged, the verdict and its reasons below it."""
    table = Table(title=verdict.experiment.name, title_justify="left", expand=False)
    for name in ("", "Judged", "Asked", "Seen", "Proof"):
        table.add_column(name, overflow="fold")
    for word, *cells in _rows(verdict):
        table.add_row(_word(word), *(Text(cell) for cell in cells))
    style = f"bold {_STYLES[MARKS[verdict.verdict]]}"
    last = Text.assemble((f"{MARKS[verdict.verdict]} {verdict.verdict}", style), f"  {headline(verdict)}")
    return Group(table, last, Text("; ".join(facts(verdict))), *_reasons(verdict))


def _word(word: str) -> Text:
    return Text(f"{MARKS[word]} {word}", style=_STYLES[MARKS[word]])


def _rows(verdict: Verdict) -> Iterator[tuple[str, str, str, str, str]]:
    for one in verdict.objectives:
        bounds = f"{count(one.total)} calls, bounds {percent(one.ci_low)} to {percent(one.ci_high)}"
        proof = one.detail if one.observed is None else bounds
        judged = f"{one.display_name or one.name}, {one.phase}"
        yield one.verdict, judged, percent(one.target), percent(one.observed), proof
    for fault in verdict.faults:
        yield fault.verdict, fault.id, fault.kind, "—", fault.proof
    for check in verdict.checks:
        found = f"{len(check.violations)} found" if check.violations else "no violation"
        yield check.verdict, check.name, "no violation", found, check.detail
    if recovery := verdict.recovery:
        yield (
            recovery.verdict,
            "recovery",
            seconds(recovery.limit_seconds),
            seconds(recovery.seconds),
            "after the last heal",
        )
    if pair := verdict.reconciliation:
        seen = f"clients {count(pair.client)}, Prometheus {count(pair.prometheus)}"
        yield (
            pair.verdict,
            "metrics agree",
            f"within {pair.allowed:g}",
            "—" if pair.difference is None else f"{pair.difference:g}",
            seen,
        )


def _reasons(verdict: Verdict) -> Iterator[Text]:
    for reason in verdict.reasons:
        yield Text.assemble("  ", (reason.code, "bold"), f" {reason.subject}: {reason.message}")
