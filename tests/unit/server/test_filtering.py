"""Filters: what each operator makes of each kind of field, and refusals that say where and why."""

import re
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, Reason
from holdfast.filtering import compile_filter
from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentStatus, AgentTier, Capability
from holdfast.registry.v1.lease_service_pb2 import Lease

AGENT = Agent(
    name="namespaces/test/agents/a-1",
    display_name='Reviewer "two"',
    tier=AgentTier.AGENT_TIER_2_SPECIALIST,
    domain="code*review",
    capabilities=[Capability(id="review", version="2", tags=["fast", "cheap"]), Capability(id="test")],
    coordination_priority=70,
    status=AgentStatus.AGENT_STATUS_ACTIVE,
    admin_state=AdminState.ADMIN_STATE_ENABLED,
    fence=1 << 40,
    labels={"team": "core", "a.b/c": "x y", "empty": ""},
    create_time=Timestamp(seconds=1_767_225_600, nanos=500_000_000),  # 2026-01-01T00:00:00.5Z
)


def matches(text: str, agent: Agent = AGENT) -> bool:
    return compile_filter(text, Agent.DESCRIPTOR).matches(agent)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "domain = 'code\\*review'",
        "domain = code*",
        "domain = *review",
        "domain = *ode*",
        "domain:de",
        "domain != x",
        "domain > a",
        "domain >= code",
        "display_name = 'Reviewer \"two\"'",
        'display_name = "Reviewer \\"two\\""',
        "tier = 2_SPECIALIST",
        "tier = AGENT_TIER_2_SPECIALIST",
        "tier != 1_CORE",
        "coordination_priority = 70",
        "coordination_priority >= 70 coordination_priority < 71",
        "coordination_priority != -1",
        "fence = 1099511627776",
        "status = ACTIVE AND admin_state = ENABLED",
        "labels:team",
        "labels.team = core",
        "labels.a.b/c = 'x y'",
        'labels."a.b/c" = "x y"',
        "labels:empty",
        "labels.empty = ''",
        "labels:*",
        "NOT labels:other",
        "-labels.team = other",
        "capabilities:review",
        "capabilities:rev*",
        "capabilities.id = test",
        "capabilities.version = 2",
        "capabilities.tags:fast",
        "capabilities.id != other",
        "capabilities:*",
        "create_time > 2026-01-01T00:00:00Z",
        "create_time = 2026-01-01T00:00:00.5Z",
        "create_time < 2026-01-01T01:00:00+00:30",
        "create_time:*",
        "domain = x OR tier = 2_SPECIALIST",
        "(domain = x OR labels:team) capabilities:test",
        "NOT (domain = x AND labels:team)",
        " ".join(["labels.team = core"] * 200),
        " ".join(["capabilities:test"] * 160),
        " ".join(["capabilities.tags:fast"] * 20),
    ],
)
def test_what_holds_matches(text: str) -> None:
    """Each of these says something true of the agent; its negation does not match."""
    assert matches(text)
    if text.strip():
        assert not matches(f"NOT ({text})")


@pytest.mark.parametrize(
    "text",
    [
        "domain = code",
        "domain = CODE*",
        "domain != code*",
        "tier = 1_CORE",
        "coordination_priority > 70",
        "labels.team = Core",
        "labels.other = x",
        "labels.other != x",
        "labels:nope",
        "capabilities:none",
        "capabilities.id != test",
        "update_time > 2020-01-01T00:00:00Z",
        "update_time != 2020-01-01T00:00:00Z",
        "update_time:*",
        "lease:*",
        "tier = 2_SPECIALIST domain = x",
        "domain = x OR domain = y",
        "tier = 1_CORE OR tier = 2_SPECIALIST AND domain = x",
    ],
)
def test_what_does_not_hold_does_not_match(text: str) -> None:
    """Each says something untrue, or compares what is not there."""
    assert not matches(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nope = 1", "no field 'nope'"),
        ("teir = 1_CORE", "tier"),
        ("domain", "stands alone"),
        ("domain =", "at 9: a value is missing"),
        ("= x", "at 1"),
        ("domain = x)", "at 11: ')' does not belong here"),
        ("(domain = x", "at 1: this parenthesis is never closed"),
        ("domain = 'x", "no end"),
        ("domain = a*b", "`*` inside"),
        ("domain > a*", "takes no `*`"),
        ("tier = CORE", "AGENT_TIER_1_CORE"),
        ("tier > 1_CORE", "no order"),
        ("coordination_priority = high", "whole number"),
        ("create_time > yesterday", "RFC 3339"),
        ("create_time > 2026-13-01T00:00:00Z", "RFC 3339"),
        ("labels = x", "labels:key"),
        ("capabilities = x", "capabilities.id"),
        ("domain.x = y", "domain"),
        ("domain = x AND", "missing"),
        ("OR domain = x", "missing"),
        ("NOT", "missing"),
        (" AND ".join(["domain = x"] * 201), "more than 200"),
        (" ".join(["capabilities:x"] * 161), "cost 1288, at most 1280"),
        (" ".join(["capabilities.tags:x"] * 21), "at 401: too many comparisons of repeated fields"),
        ("(" * 40 + "domain = x" + ")" * 40, "nested deeper than 32"),
        ("NOT " * 40 + "domain = x", "nested deeper than 32"),
        ("(" * 10_000, "4096 bytes"),
        ("x" * 10_000_000, "4096 bytes"),
    ],
)
def test_a_refusal_says_where_and_why_in_few_words(text: str, told: str) -> None:
    with pytest.raises(HoldfastError) as refused:
        compile_filter(text, Agent.DESCRIPTOR)
    assert refused.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refused.value.field_violations] == ["filter"]
    message = refused.value.field_violations[0].description
    assert told in message
    assert len(message) < 500


@given(st.text(alphabet="()'\"\\*<>=!:.-, \tANDORTabx019é\x00\U0001f600", max_size=200) | st.text(max_size=200))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    """No text does anything but compile, and then decide, or be refused as INVALID_FIELD."""
    reason = None
    try:
        assert matches(text) in (True, False)
    except HoldfastError as error:
        reason = error.reason
    assert reason in (None, Reason.INVALID_FIELD)


Tree = tuple[str, bool]  # a filter's text, and whether it holds of AGENT
LEAVES: list[Tree] = [
    ("labels:team", True),
    ("domain = x", False),
    ("coordination_priority > 50", True),
    ("capabilities:none", False),
]
TREES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(lambda tree: (f"NOT ({tree[0]})", not tree[1])),
        inner.map(lambda tree: (f"-({tree[0]})", not tree[1])),
        st.tuples(inner, inner).map(lambda pair: (f"({pair[0][0]}) AND ({pair[1][0]})", pair[0][1] and pair[1][1])),
        st.tuples(inner, inner).map(lambda pair: (f"({pair[0][0]}) ({pair[1][0]})", pair[0][1] and pair[1][1])),
        st.tuples(inner, inner).map(lambda pair: (f"({pair[0][0]}) OR ({pair[1][0]})", pair[0][1] or pair[1][1])),
    ),
    max_leaves=12,
)


@given(TREES)
def test_connectives_mean_what_logic_says(tree: Tree) -> None:
    text, holds = tree
    assert matches(text) is holds


@given(st.text(max_size=50))
def test_a_quoted_text_is_that_text(text: str) -> None:
    """Quoting with `\\` before quotes, backslashes and stars makes a value of any text."""
    quoted = "".join("\\" + each if each in '"\\*' else each for each in text)
    assert matches(f'domain = "{quoted}"', Agent(domain=text))
    assert not matches(f'domain = "{quoted}"', Agent(domain=text + "!"))


def test_leases_are_filtered_by_their_own_fields() -> None:
    lease = Lease(name="namespaces/test/leases/l", agents=["namespaces/test/agents/a"])
    lease.ttl.FromMilliseconds(30_500)
    for text in ("ttl = 30.5s", "ttl > 30s", "agents:namespaces/test/agents/a", "ttl < 1000s agents:*"):
        assert compile_filter(text, Lease.DESCRIPTOR).matches(lease)
    with pytest.raises(HoldfastError, match="ttl takes a duration"):
        compile_filter("ttl > soon", Lease.DESCRIPTOR)


def documented() -> list[str]:
    """The filters of the table in docs/filters.md."""
    text = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return [found for row in rows for found in re.findall(r"`([^`]+)`", row[2])]


@pytest.mark.parametrize("text", documented())
def test_what_the_docs_show_is_understood(text: str) -> None:
    compile_filter(text, Agent.DESCRIPTOR)


def test_the_docs_show_filters() -> None:
    assert len(documented()) > 10
