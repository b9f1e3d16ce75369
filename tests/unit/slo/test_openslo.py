"""Objectives from OpenSLO files, and the counters that a gate can judge."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli import InputError
from holdfast_slo.documents import read_document
from holdfast_slo.openslo import load_objective, packaged_objectives, read_objective
from holdfast_slo.selectors import Matcher, Selector, parse_selector

GOOD = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: availability, displayName: Calls answered}
spec:
  indicator:
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: Prometheus, spec: {query: 'handled{code="Internal"}'}}}
        total: {metricSource: {type: Prometheus, spec: {query: sum(handled)}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.999}]
"""


def test_an_slo_becomes_an_objective():
    objective = read_objective(read_document(GOOD, "a.yaml"))
    assert (objective.name, objective.display_name, objective.target) == ("availability", "Calls answered", 0.999)
    assert (objective.good, str(objective.bad), str(objective.total)) == (None, 'handled{code="Internal"}', "handled")


def test_a_percentage_is_the_same_target_exactly():
    text = GOOD.replace("target: 0.999", "targetPercent: 99.9")
    assert read_objective(read_document(text, "a.yaml")).target == 0.999


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("kind: SLO", "kind: SLI", ["a.yaml:2", "kind is 'SLI'", "SLO"]),
        ("openslo/v1", "openslo/v2", ["a.yaml:1", "apiVersion"]),
        ("Occurrences", "Timeslices", ["a.yaml:12", "budgetingMethod is 'Timeslices'", "Occurrences"]),
        ("counter: true", "counter: false", ["a.yaml:8", "counter is False"]),
        ("target: 0.999", "target: 1", ["a.yaml:13", "less than 1"]),
        ("target: 0.999", "target: 0.9, targetPercent: 90", ["a.yaml:13", "exactly one of"]),
        ("target: 0.999", "goal: 0.9", ["a.yaml:13", "goal is an unknown key"]),
        ("[{target: 0.999}]", "[]", ["a.yaml:13", "at least 1"]),
        ("sum(handled)", "'rate(handled[5m])'", ["a.yaml:10", "extrapolate", "rate(handled[5m])"]),
        ("type: Prometheus", "type: Datadog", ["type is 'Datadog'"]),
        (
            "        bad:",
            "        good: {metricSource: {spec: {query: x}}}\n        bad:",
            ["a.yaml:7", "exactly one of"],
        ),
    ],
)
def test_what_a_gate_cannot_judge_is_refused_by_name_and_line(old, new, parts):
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        read_objective(read_document(GOOD.replace(old, new), "a.yaml"))
    assert [part for part in parts if part not in caught.value.message] == []


def test_packaged_objectives_are_the_shipped_promises():
    targets = {name: load_objective(path).target for name, path in packaged_objectives().items()}
    assert targets == {
        "activation-success.yaml": 0.995,
        "availability.yaml": 0.999,
        "consensus-time.yaml": 0.95,
        "latency-p95.yaml": 0.95,
        "registration-success.yaml": 0.99,
    }
    assert all(load_objective(path).source.startswith("holdfast_slo/") for path in packaged_objectives().values())


def test_a_fast_failure_does_not_count_as_fast():
    good = load_objective(packaged_objectives()["latency-p95.yaml"]).good
    excluded = next(matcher for matcher in good.matchers if matcher.label == "grpc_code")
    assert excluded.operator == "!~"
    assert "Unavailable" in excluded.value.split("|")


@pytest.mark.parametrize(
    "query",
    [
        "rate(x[5m])",
        "x[5m]",
        "sum by (a) (x)",
        "x / y",
        "x offset 5m",
        "x{",
        "x{a=b}",
        "x{a='b'",
        'x{a="b" c="d"}',
        "",
        "1",
        "x" * 20_000,
    ],
)
def test_anything_but_a_counter_is_refused(query):
    with pytest.raises(ValueError, match="plain counter"):
        parse_selector(query)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "le", "_x1"]), st.sampled_from(["=", "!=", "=~", "!~"]), st.text()), max_size=4
    )
)
def test_a_selector_is_read_back_from_its_own_text(matchers):
    selector = Selector("m:total", tuple(Matcher(*matcher) for matcher in matchers))
    assert parse_selector(str(selector)) == selector
    assert parse_selector(f" sum( {selector} ) ") == selector
