"""Whatever a load, a command line or a table holds: it is read, or refused with words that name the place."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.cli import InputError
from holdfast_loadtests import spec as load_spec
from holdfast_loadtests.assertions import parse_assertion
from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.commands.load import load as load_command
from holdfast_loadtests.draws import KINDS, Draws
from holdfast_loadtests.messages import MisfitError
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.tables import load_table
from holdfast_loadtests.templates import Scope
from support.echo_server_descriptors import registry_descriptors

REGISTRY = "holdfast.registry.v1.AgentRegistryService"
TABLES = {"agents": [{"id": "a", "tier": "AGENT_TIER_1_CORE"}, {"id": "\ud800", "tier": "5"}]}
DESCRIPTORS = registry_descriptors()

NUMBERS = st.sampled_from(["0", "1", "-1", "3.5", "1e9", "1e400", "nan", "inf", "9" * 400, "9" * 5000, "٣", "", " "])
PLAIN = st.text(max_size=12) | st.text("{}() ,.:%'\"\\\n", max_size=12)
FUNCTIONS = st.builds(
    lambda name, arguments: f"{{{{{name}({', '.join(arguments)})}}}}",
    st.sampled_from([*KINDS, "uuid", "nothing"]).filter(lambda name: name != "zipf"),
    st.lists(NUMBERS | st.text("ab(), ", max_size=4), max_size=3),
)
NAMES = st.sampled_from(["{{agents.id}}", "{{agents.tier}}", "{{agents.none}}", "{{fence}}", "{{uuid}}", "{{counter}}"])
TEXTS = st.lists(PLAIN | FUNCTIONS | NAMES, max_size=3).map("".join)
"""What a text of a request may be: plain, with holes, and with what looks like one."""

KEYS = (
    st.sampled_from(
        ["parent", "agent_id", "agentId", "agent", "ttl", "request_id", "labels", "capabilities", "id", "tags", "tier",
         "update_mask", "create_time", "fence", "max_concurrency", "status"]
    )
    | st.text(max_size=4)
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=5)


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"agent": found}
    return found


def attempt(do: Callable[[], Any], refusal: type[Exception] = InputError) -> tuple[Any, str]:
    """What comes of it, and the words of its refusal; nothing else may be raised."""
    try:
        return do(), ""
    except refusal as error:
        return None, str(error) or repr(error)


def refusal_of(step: dict[str, Any]) -> str:
    """Reads a step as a run does, and sends it as far as to bytes. Returns its refusal."""
    try:
        spec = LoadSpec.model_validate({"users": 1, "scenarios": [{"name": "fuzz", "steps": [step]}]})
    except ValidationError as error:  # which the document that it comes from turns into an error with a line
        return ".".join(str(part) for part in ("load", *error.errors()[0]["loc"]))
    _, words = attempt(lambda: load_spec.check(spec, TABLES))
    compiled, why = (None, words) if words else attempt(lambda: compile_calls(spec, DESCRIPTORS, TABLES)["fuzz"])
    for ordinal, row in enumerate(TABLES["agents"] if compiled else ()):
        scope = Scope(row, {}, ordinal, Draws(1, ordinal, 0))
        bodies, misfit = attempt(lambda scope=scope: compiled[0].bodies(scope), MisfitError)
        assert misfit or all(isinstance(body, bytes) for body in bodies)
    return why


@settings(max_examples=300)
@given(BODIES)
@example({"parent": "{{int(0, " + "9" * 400 + ")}}"})
@example({"parent": "\ud800"})
@example({"agent": {"\ud800": 1}})
@example({"agent": {"labels": {"\ud800": "x"}}})
@example({"agent": {"labels": {"a": "{{agents.id}}"}}})
@example({"ttl": []})
def test_any_body_gives_bytes_or_an_error_that_names_its_place(body):
    refusal = refusal_of({"call": f"{REGISTRY}/RegisterAgent", "request": body})
    assert refusal == "" or "load.scenarios.0.steps.0.request" in refusal, refusal


@pytest.mark.parametrize("depth", [90, 99, 100, 101, 400, 2_000])
def test_a_body_nested_too_deep_is_refused_by_its_place(depth):
    refusal = refusal_of({"call": f"{REGISTRY}/RegisterAgent", "request": nested(depth)})
    assert "load.scenarios.0.steps.0.request" in refusal


@settings(max_examples=200)
@given(st.text("agents.0123456789 _xfence", max_size=20) | PLAIN)
@example("agent.capabilities." + "9" * 5000)
@example("agent.capabilities.0.tags.0")
@example("agent.labels.x")
@example("agent..")
def test_any_path_of_a_capture_and_of_an_assertion_leads_to_a_field_or_is_refused_by_its_place(text):
    for key in ("capture", "assert"):
        part = {"capture": {"found": text}, "assert": {text: 1}}[key]
        refusal = refusal_of({"call": f"{REGISTRY}/GetAgent", key: part})
        assert refusal == "" or f"load.scenarios.0.steps.0.{key}" in refusal, refusal


LIMITS = NUMBERS.flatmap(lambda number: st.sampled_from([number, f"{number}ms", f"{number}h", f"{number}%"]))
ASSERTIONS = st.builds(
    "{} {} {}".format,
    st.sampled_from(["p99", "mean", "rps", "errors", "p5"]),
    st.sampled_from(["<", "<=", "=="]),
    LIMITS,
)


@given(st.text(max_size=30) | ASSERTIONS)
@example("p99 < " + "9" * 5000 + "h")
@example("p99 < 99999999999999h")
def test_any_assertion_is_one_or_is_refused_as_such(text):
    found, words = attempt(lambda: parse_assertion(text))
    assert found or "--assert" in words


CONTENTS = st.binary(max_size=200) | st.text("ab,\"'\n\r {}[]:1", max_size=60).map(str.encode)


@given(CONTENTS, st.sampled_from(["csv", "jsonl"]))
@example(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "jsonl")
@example(b'{"a": NaN}', "jsonl")
@example(b'{"a": ' + b"9" * 5000 + b"}", "jsonl")
def test_any_file_is_a_table_or_is_refused_by_its_name(tmp_path_factory, content, kind):
    path = tmp_path_factory.mktemp("table") / f"t.{kind}"
    path.write_bytes(content)
    rows, words = attempt(lambda: load_table(path))
    assert rows or f"t.{kind}" in words
    assert all(isinstance(value, str) for row in rows or () for value in row.values())


@settings(max_examples=60)
@given(st.text(max_size=40) | BODIES.map(json.dumps))
@example("[" * 100_000)
@example('{"a": ' + "[" * 900 + "]" * 900 + "}")
@example('{"parent": "\\ud800"}')
@example('{"a": ' + "9" * 5000 + "}")
@example("@/\0")
@example("@" + "x" * 5000)
def test_any_data_on_the_command_line_is_refused_with_words_where_it_is_none(text):
    with pytest.raises(InputError) as refused:  # where it is good, nothing listens at the address
        load_command.main(
            ["127.0.0.1:1", f"{REGISTRY}/RegisterAgent", "--users", "1", "--for", "1s", "-d", text],
            standalone_mode=False,
        )
    assert refused.value.message


def test_what_is_compiled_is_what_protobuf_reads():
    """The fuzz above is of no use where nothing gets through."""
    spec = LoadSpec.model_validate(
        {"users": 1, "mix": [{"call": f"{REGISTRY}/RegisterAgent", "request": {"agent_id": "{{agents.id}}"}}]}
    )
    [ready] = compile_calls(spec, DESCRIPTORS, {"agents": [{"id": "x"}]})["RegisterAgent"]
    [body] = ready.bodies(Scope({"id": "x"}, {}, 0, Draws(1, 0, 0)))
    assert ready.method.request_class.FromString(body).agent_id == "x"  # type: ignore[attr-defined]
