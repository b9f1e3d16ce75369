"""The report tells each reader the same, and nothing of a run can break out of it."""

import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from holdfast_slo.commands.report import report
from holdfast_slo.report import Timeline, html, junit, read_bundle, summary, write_bundle
from holdfast_slo.report.table import render
from holdfast_slo.report.words import milliseconds, percent
from holdfast_slo.verdict import Verdict
from support import verdicts

NAMES = ["passing", "failing", "undecided", "unclean"]
EVIL = "<script>alert(1)</script>\x00\"'|`@x\n&\x1b[31m]]>"


def evil():
    named = verdicts.objective(name=EVIL, display_name=EVIL, good=9_000, query=EVIL)
    fault = verdicts.fault(EVIL, EVIL, proof=EVIL, requested={EVIL: EVIL})
    return Verdict.build(**verdicts.parts(objectives=(named,), faults=(fault,), command=EVIL, tools={EVIL: EVIL}))


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "srcset"}]


@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_is_complete_and_read_back(tmp_path, name):
    verdict, timeline = getattr(verdicts, name)(), verdicts.timeline()
    write_bundle(tmp_path / "a" / "b", verdict, timeline)
    files = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert files == ["junit.xml", "report.html", "summary.md", "timeline.json", "verdict.json"]
    assert read_bundle(tmp_path / "a" / "b") == (verdict, timeline)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_needs_nothing_but_itself(name):
    page = Page(html.render(getattr(verdicts, name)(), verdicts.timeline()))
    assert "script" not in page.tags
    assert page.addresses == ["data:,"]
    assert page.tags.count("svg") >= 5


def test_nothing_of_a_run_breaks_out_of_any_view():
    verdict = evil()
    page = Page(html.render(verdict, verdicts.timeline()))
    assert "script" not in page.tags
    assert "<script" not in summary.render(verdict)
    ElementTree.fromstring(junit.render(verdict).encode())
    assert Verdict.model_validate_json(verdict.to_json()) == verdict


def test_junit_holds_a_case_per_part_with_its_outcome():
    root = ElementTree.fromstring(junit.render(verdicts.failing()).encode())
    cases = {(case.get("classname"), case.get("name")): [child.tag for child in case] for case in root.iter("testcase")}
    assert cases["fleet-under-fire.objective", "availability"] == ["failure"]
    assert cases["fleet-under-fire.objective", "latency-p95"] == ["system-out"]
    assert cases["fleet-under-fire.check", "no registration is lost"] == ["failure"]
    assert len(cases) == 3 + 3 + 1 + 1 + 1 + 1
    assert (root.get("failures"), root.get("errors")) == ("3", "0")
    undecided = ElementTree.fromstring(junit.render(verdicts.undecided()).encode())
    assert (undecided.get("failures"), undecided.get("errors")) == ("0", "3")


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_begins_with_the_verdict_and_fits_a_comment(name):
    verdict = getattr(verdicts, name)()
    text = summary.render(verdict)
    assert verdict.verdict in text.splitlines()[0]
    assert len(text) < 4_000


@pytest.mark.parametrize("name", NAMES)
def test_the_table_names_every_part_and_respects_no_color(name, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    verdict = getattr(verdicts, name)()
    console = Console(width=160, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(render(verdict))
    text = capture.get()
    assert "\x1b[32m" not in text
    assert "\x1b[31m" not in text
    assert all(fault.id in text for fault in verdict.faults)
    assert all(reason.code in text for reason in verdict.reasons)


def test_a_run_that_recorded_nothing_still_has_a_report():
    bare = {"objectives": (), "faults": (), "load": None, "checks": (), "recovery": None, "reconciliation": None}
    verdict = Verdict.build(**verdicts.parts(**bare, phases=[]))
    text = html.render(verdict, Timeline(points=(), bucket_s=1, phases=()))
    assert "nothing to plot" in text
    assert "No objective was judged" in text


def test_the_command_renders_again_and_judges_nothing(tmp_path):
    write_bundle(tmp_path, verdicts.failing(), verdicts.timeline())
    before = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    result = CliRunner().invoke(report, [str(tmp_path)])
    assert result.exit_code == 0
    assert "FAIL" in result.output
    assert (tmp_path / "report.html").read_text() == before


def spoil(data, change):
    return json.dumps(change(json.loads(data)))


@pytest.mark.parametrize(
    ("file", "change", "part"),
    [
        ("verdict.json", None, "cannot read"),
        ("timeline.json", None, "cannot read"),
        ("verdict.json", lambda text: text[:-20], "not JSON"),
        ("verdict.json", lambda text: spoil(text, lambda data: data | {"verdict": "PASS"}), "the reasons give"),
        ("verdict.json", lambda text: spoil(text, lambda data: data | {"schema": "holdfast.verdict/v9"}), "schema"),
        ("timeline.json", lambda text: spoil(text, lambda data: data | {"bucket_s": 0}), "bucket_s"),
        ("verdict.json", lambda _: "[" * 100_000, "JSON"),
    ],
)
def test_a_damaged_bundle_is_wrong_input(tmp_path, file, change, part):
    write_bundle(tmp_path, verdicts.failing(), verdicts.timeline())
    text = (tmp_path / file).read_text()
    (tmp_path / file).unlink()
    if change:
        (tmp_path / file).write_text(change(text))
    result = CliRunner().invoke(report, [str(tmp_path)])
    assert result.exit_code == 3
    assert file in result.output
    assert part in result.output


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_ratio_below_one_is_never_shown_as_all(ratio):
    assert percent(ratio) != "100 %"


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (None, "—"),
        (0, "0 ms"),
        (2.44, "2.44 ms"),
        (118.2, "118 ms"),
        (1_999, "2 s"),
        (2_150, "2.15 s"),
        (100, "100 ms"),
    ],
)
def test_latencies_are_shown_with_their_unit(value_ms, text):
    assert milliseconds(value_ms) == text
