"""`summary.md`: the verdict as a comment on a pull request."""

import re

from holdfast_slo.report.words import MARKS, count, facts, headline, moment, percent
from holdfast_slo.verdict import Verdict

_REASONS_MAX = 10


def render(verdict: Verdict) -> str:
    """The text, short enough for a comment; user text cannot break out of its cell."""
    lines = [
        f"## {MARKS[verdict.verdict]} {verdict.verdict} · {_cell(verdict.experiment.name)}",
        "",
        f"**{headline(verdict)}** {_sentence(verdict)}",
        "",
    ]
    lines += [
        f"- `{reason.code}` {_cell(reason.subject)}: {_cell(reason.message)}"
        for reason in verdict.reasons[:_REASONS_MAX]
    ]
    if len(verdict.reasons) > _REASONS_MAX:
        lines.append(f"- and {len(verdict.reasons) - _REASONS_MAX} more, in report.html")
    lines += [*([""] if verdict.reasons else []), *_objectives(verdict), *_faults(verdict)]
    lines.append(f"Seed {verdict.experiment.seed} · {moment(verdict.started_at)} · exit code {verdict.exit_code}")
    return "\n".join(lines) + "\n"


def _sentence(verdict: Verdict) -> str:
    text = "; ".join(facts(verdict))
    return f"{text[:1].upper()}{text[1:]}."


def _objectives(verdict: Verdict) -> list[str]:
    if not verdict.objectives:
        return []
    rows = [
        f"| {MARKS[one.verdict]} {_cell(one.display_name or one.name)} | {percent(one.target)} "
        f"| {percent(one.observed)} "
        f"| {percent(one.ci_low)} to {percent(one.ci_high)} | {count(one.total)} | {_cell(one.phase)} |"
        for one in verdict.objectives
    ]
    return ["| Objective | Target | Observed | 95 % bounds | Calls | Phases |", "|---|---|---|---|---|---|", *rows, ""]


def _faults(verdict: Verdict) -> list[str]:
    if not verdict.faults:
        return []
    rows = [
        f"| {MARKS[one.verdict]} {_cell(one.id)} | {_cell(one.kind)} | {one.verdict} | {_cell(one.proof)} |"
        for one in verdict.faults
    ]
    return ["| Fault | Kind | Effect | Proof |", "|---|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    flat = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#@])", r"\\\1", flat)
