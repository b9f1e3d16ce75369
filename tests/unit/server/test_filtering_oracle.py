"""Filters against an evaluator that is as naive as it can be, over every operator on every kind of field."""

import operator as operators
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError
from holdfast.filtering import compile_filter
from holdfast.filtering.parser import parse
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import WatchAgentsRequest
from holdfast.registry.v1.lease_service_pb2 import Lease

TEXTS = st.text(alphabet="ab*", max_size=3)
NUMBERS = st.integers(0, 3)
TIERS = ("UNSPECIFIED", "1_CORE", "2_SPECIALIST")
TIMES = st.builds(lambda seconds, half: seconds + half / 2, st.integers(0, 2), st.integers(0, 1))

ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


@dataclass(frozen=True)
class Facts:
    """An agent as plain values."""

    domain: str
    priority: int
    tier: str
    labels: dict[str, str]
    capabilities: list[tuple[str, str, list[str]]]
    created_s: float | None

    def agent(self) -> Agent:
        agent = Agent(domain=self.domain, coordination_priority=self.priority, labels=self.labels)
        agent.tier = f"AGENT_TIER_{self.tier}"  # type: ignore[assignment]
        for capability_id, version, tags in self.capabilities:
            agent.capabilities.add(id=capability_id, version=version, tags=tags)
        if self.created_s is not None:
            agent.create_time.FromMilliseconds(int(self.created_s * 1000))
        return agent


FACTS = st.builds(
    Facts,
    domain=TEXTS,
    priority=NUMBERS,
    tier=st.sampled_from(TIERS),
    labels=st.dictionaries(st.sampled_from(["a", "b/c.d"]), TEXTS),
    capabilities=st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=2)), max_size=3),
    created_s=st.none() | TIMES,
)


@dataclass(frozen=True)
class Pattern:
    """A text with or without stars at its ends."""

    text: str
    before: bool
    after: bool

    def fits(self, value: str) -> bool:
        return bool(re.fullmatch(".*" * self.before + re.escape(self.text) + ".*" * self.after, value))

    def __str__(self) -> str:
        escaped = "".join("\\" + each if each == "*" else each for each in self.text)
        return f'"{"*" * self.before}{escaped}{"*" * self.after}"'


PATTERNS = st.builds(Pattern, TEXTS, st.booleans(), st.booleans()).filter(lambda pattern: pattern.text)
PLAIN = st.builds(Pattern, TEXTS, st.just(value=False), st.just(value=False))
Truth = Callable[[Facts], bool]
Asked = tuple[str, Truth]


def compared(operator: str, value: str, pattern: Pattern) -> bool:
    """A text compared by any operator but `:`."""
    if operator in ("=", "!="):
        return pattern.fits(value) == (operator == "=")
    return ORDER[operator](value, pattern.text)


def one_of(operator: str, values: Sequence[str], pattern: Pattern) -> bool:
    """Texts of elements: one is enough, but `!=` wants that none is equal, and `:` is `=`."""
    if operator == "!=":
        return not any(pattern.fits(value) for value in values)
    return any(compared("=" if operator == ":" else operator, value, pattern) for value in values)


def ordered(operator: str, value: float | None, wanted: float) -> bool:
    return value is not None and ORDER["=" if operator == ":" else operator](value, wanted)


def about_text(operator: str, pattern: Pattern) -> st.SearchStrategy[Asked]:
    """Comparisons of each field that holds texts."""

    def over(path: str, texts: Callable[[Facts], Sequence[str]]) -> Asked:
        return f"{path} {operator} {pattern}", lambda facts: one_of(operator, texts(facts), pattern)

    def single(path: str, value: Callable[[Facts], str | None]) -> Asked:
        def holds(facts: Facts) -> bool:
            found = value(facts)
            if found is None:
                return False
            return pattern.text in found if operator == ":" else compared(operator, found, pattern)

        return f"{path} {operator} {pattern}", holds

    return st.sampled_from(
        [
            single("domain", lambda facts: facts.domain),
            single("labels.a", lambda facts: facts.labels.get("a")),
            single("labels.b/c.d", lambda facts: facts.labels.get("b/c.d")),
            single('labels."b/c.d"', lambda facts: facts.labels.get("b/c.d")),
            over("capabilities.id", lambda facts: [each[0] for each in facts.capabilities]),
            over("capabilities.version", lambda facts: [each[1] for each in facts.capabilities]),
            over("capabilities.tags", lambda facts: [tag for each in facts.capabilities for tag in each[2]]),
        ]
    )


def about_number(operator: str, number: int) -> Asked:
    return f"coordination_priority{operator}{number}", lambda facts: ordered(operator, facts.priority, number)


def about_time(operator: str, moment: float) -> Asked:
    text = f"1970-01-01T01:00:{moment:04.1f}+01:00"
    return f"create_time {operator} {text}", lambda facts: ordered(operator, facts.created_s, moment)


def about_tier(operator: str, tier: str, prefix: str) -> Asked:
    return f"tier {operator} {prefix}{tier}", lambda facts: (facts.tier == tier) == (operator != "!=")


def having(pattern: Pattern) -> st.SearchStrategy[Asked]:
    return st.sampled_from(
        [
            (f"labels:{pattern}", lambda facts: any(pattern.fits(key) for key in facts.labels)),
            (f"capabilities:{pattern}", lambda facts: any(pattern.fits(each[0]) for each in facts.capabilities)),
        ]
    )


SET: list[Asked] = [
    ("domain:*", lambda facts: bool(facts.domain)),
    ("coordination_priority:*", lambda facts: facts.priority != 0),
    ("tier:*", lambda facts: facts.tier != "UNSPECIFIED"),
    ("labels:*", lambda facts: bool(facts.labels)),
    ("labels.a:*", lambda facts: "a" in facts.labels),
    ("capabilities:*", lambda facts: bool(facts.capabilities)),
    ("capabilities.version:*", lambda facts: any(each[1] for each in facts.capabilities)),
    ("capabilities.tags:*", lambda facts: any(each[2] for each in facts.capabilities)),
    ("create_time:*", lambda facts: facts.created_s is not None),
]
COMPARISONS: st.SearchStrategy[Asked] = st.one_of(
    st.tuples(st.sampled_from(["=", "!="]), PATTERNS | PLAIN).flatmap(lambda pair: about_text(*pair)),
    st.tuples(st.sampled_from(["<", "<=", ">", ">=", ":"]), PLAIN).flatmap(lambda pair: about_text(*pair)),
    st.builds(about_number, st.sampled_from([*ORDER, ":"]), NUMBERS),
    st.builds(about_time, st.sampled_from([*ORDER, ":"]), TIMES),
    st.builds(
        about_tier, st.sampled_from(["=", "!=", ":"]), st.sampled_from(TIERS), st.sampled_from(["", "AGENT_TIER_"])
    ),
    (PATTERNS | PLAIN).flatmap(having),
    st.sampled_from(SET),
)


def joined(asked: Sequence[Asked], word: str) -> Asked:
    all_or_any = any if word == " OR " else all
    text = word.join(f"({each})" for each, _ in asked)
    return text, lambda facts: all_or_any(holds(facts) for _, holds in asked)


FILTERS: st.SearchStrategy[Asked] = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map(lambda asked: (f"NOT ({asked[0]})", lambda facts: not asked[1](facts))),
        st.builds(joined, st.lists(inner, min_size=2, max_size=3), st.sampled_from([" OR ", " AND ", " "])),
    ),
    max_leaves=5,
)


@given(facts=FACTS, asked=FILTERS)
@settings(max_examples=800, deadline=None)
def test_a_filter_finds_what_a_naive_reading_finds(facts: Facts, asked: Asked) -> None:
    """Every operator on every kind of field, alone and combined."""
    text, holds = asked
    assert compile_filter(text, Agent.DESCRIPTOR).matches(facts.agent()) is holds(facts)


@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from([*ORDER, ":"]))
def test_durations_and_doubles_have_an_order(value: int, wanted: int, operator: str) -> None:
    holds = ordered(operator, value / 2, wanted / 2)
    lease = Lease()
    lease.ttl.FromMilliseconds(value * 500)
    assert compile_filter(f"ttl {operator} {wanted / 2}s", Lease.DESCRIPTOR).matches(lease) is holds
    double = DoubleValue(value=value / 2)
    assert compile_filter(f"value {operator} {wanted / 2}e0", DoubleValue.DESCRIPTOR).matches(double) is holds


def test_booleans_are_equal_or_not_and_bytes_are_refused() -> None:
    request = WatchAgentsRequest(progress_notify=True)
    for text, holds in {
        "progress_notify = true": True,
        "progress_notify != true": False,
        "progress_notify:false": False,
        "progress_notify:*": True,
    }.items():
        assert compile_filter(text, WatchAgentsRequest.DESCRIPTOR).matches(request) is holds
    for text, told in {"progress_notify = yes": "true or false", "progress_notify > false": "no order"}.items():
        with pytest.raises(HoldfastError, match=told):
            compile_filter(text, WatchAgentsRequest.DESCRIPTOR)
    with pytest.raises(HoldfastError, match="cannot be filtered"):
        compile_filter("value = x", BytesValue.DESCRIPTOR)


def lines_run(text: str) -> int:
    """How many lines of code reading a filter runs, whether it is accepted or refused."""
    count = 0

    def tracing(_frame: FrameType, event: str, _value: object) -> Any:
        nonlocal count
        count += event == "line"
        return tracing

    before = sys.gettrace()
    sys.settrace(tracing)
    try:
        parse(text)
    except HoldfastError:
        pass
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "repeat",
    [
        lambda n: "(" * n,
        lambda n: ")" * n,
        lambda n: "-" * n,
        lambda n: "NOT " * n,
        lambda n: "a" * n,
        lambda n: "a." * n,
        lambda n: "labels." + "x." * n + "x = 1",
        lambda n: "a = b " * n,
        lambda n: "a=b OR " * n,
        lambda n: "a = " + "*" * n,
        lambda n: 'a = "' + "\\" * n,
        lambda n: 'a = "' + "\\*" * n + '"',
        lambda n: "a = b" + " " * n + "AND",
        lambda n: '"' * n,
        lambda n: "<" * n,
    ],
)
def test_reading_takes_steps_in_proportion_to_the_text(repeat: Callable[[int], str]) -> None:
    """Four times the text takes at most four times the steps: nothing is read again and again."""
    few, many = lines_run(repeat(1000)), lines_run(repeat(4000))
    assert many <= 4 * few + 100


def test_ten_thousand_parentheses_and_ten_megabytes_are_refused_at_once() -> None:
    """The first by its depth, in few steps; the second by its size, before anything is read."""
    assert lines_run("(" * 10_000) < 5_000
    assert lines_run("(" * 10_000_000) == lines_run("(" * 10_000)
    with pytest.raises(HoldfastError, match="4096 bytes"):
        compile_filter("(" * 10_000_000, Agent.DESCRIPTOR)
