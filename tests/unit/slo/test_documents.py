"""Files of users: every misfit is named by place, key, value, expectation and remedy."""

from contextlib import suppress
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from holdfast.cli import InputError
from holdfast_slo.documents import Strict, apply_overrides, load_document, read_document
from holdfast_slo.durations import Duration


class Arrival(Strict):
    rate: int
    length: Annotated[Duration | None, Field(alias="for")] = None


class Fault(Strict):
    id: str
    at: Duration


class Named(Strict):
    name: str
    phases: tuple[str, ...] = ()


class Plan(Strict):
    seed: int = 1
    arrivals: tuple[Arrival, ...] = ()
    faults: tuple[Fault, ...] = ()
    objectives: tuple[str | Named, ...] = ()


GOOD = """\
seed: 3
arrivals:
  - {rate: 3, for: 1m30s}
faults:
  - id: slow
    at: 3s
objectives: [a.yaml, {name: b}]
"""


def refused(text, overrides=()):
    with pytest.raises(InputError) as caught:
        apply_overrides(read_document(text, "exp.yaml"), overrides).parse(Plan)
    assert caught.value.exit_code == 3
    return caught.value.message


def test_a_good_file_becomes_its_model():
    plan = read_document(GOOD, "exp.yaml").parse(Plan)
    assert plan.seed == 3
    assert plan.arrivals[0].length.total_seconds() == 90
    assert plan.objectives == ("a.yaml", Named(name="b"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sead: 3", ["exp.yaml:1", "sead", "3", "did you mean 'seed'?"]),
        ("seed: fast", ["exp.yaml:1", "seed is 'fast'", "integer"]),
        ("\narrivals:\n - for: 3s", ["exp.yaml:3", "arrivals.0.rate is missing"]),
        ("arrivals:\n - rate: 1\n   for: -3s", ["exp.yaml:3", "arrivals.0.for is '-3s'", "negative"]),
        ("arrivals:\n - rate: 1\n   length: 3s", ["exp.yaml:3", "arrivals.0.length is an unknown key", "for, rate"]),
        ("faults:\n - id: a\n   at: 90", ["exp.yaml:3", "faults.0.at is 90", "'90s'"]),
        ("objectives:\n - {name: x, phase: y}", ["exp.yaml:2", "objectives.0.phase", "did you mean 'phases'?"]),
        ("seed: 1\nseed: 2", ["exp.yaml:2", "'seed' is given twice", "exp.yaml:1"]),
        ("seed: .inf", ["exp.yaml:1", "seed is inf"]),
        ("seed: !!python/object/apply:os.system [x]", ["exp.yaml:1", "tag", "not supported"]),
        ("seed: [", ["exp.yaml:1", "expected the node content"]),
        ("- a", ["exp.yaml:1", "mapping"]),
        ("seed: *x", ["exp.yaml:1", "'*x'"]),
        ("a: &x {b: 1}\nc: {<<: *x}", ["exp.yaml:2", "merge key"]),
        ("seed: 1\n---\nseed: 2", ["exp.yaml:2", "second document"]),
        ("[" * 2_000, ["deeper than"]),
        ("seed: \x00", ["not allow"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_place_key_value_and_remedy(text, parts):
    message = refused(text)
    assert [part for part in parts if part not in message] == []


def test_every_misfit_is_listed_at_once():
    message = refused("seed: x\narrivals:\n - rate: y\nfaults:\n - at: 3")
    assert message.startswith("4 things are wrong")
    assert all(line in message for line in ("exp.yaml:1", "exp.yaml:3", "exp.yaml:5"))


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 100000 values" in refused("\n".join(lines))


def test_text_that_only_looks_like_another_type_stays_text():
    data = read_document("on: no\nat: 1:30\nid: '007'\ndate: 2024-01-01\nx: 0x1F\ny: 1e3\nz: ~\n", "f").data
    assert data == {"on": "no", "at": "1:30", "id": "007", "date": "2024-01-01", "x": 31, "y": 1000.0, "z": None}


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    with suppress(InputError):
        assert read_document(text, "f").name == "f"


def test_overrides_reach_keys_indices_and_named_items():
    document = apply_overrides(
        read_document(GOOD, "e"), ["seed=9", "arrivals.0.rate=7", "faults.slow.at=5s", "faults.0.id=x"]
    )
    plan = document.parse(Plan)
    assert (plan.seed, plan.arrivals[0].rate, plan.faults[0].at.total_seconds(), plan.faults[0].id) == (9, 7, 5, "x")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed", ["--set seed", "key=value"]),
        ("sed=1", ["--set sed=1", "did you mean 'seed'?"]),
        ("arivals.0.rate=1", ["'arivals'", "did you mean 'arrivals'?"]),
        ("arrivals.5.rate=1", ["'5'", "1 items"]),
        ("faults.slw.at=1s", ["'slw'", "slow"]),
        ("seed.x=1", ["plain value"]),
        ("seed=[", ["no YAML"]),
        ("arrivals.0.rate=x", ["arrivals.0.rate is 'x'"]),
    ],
)
def test_a_wrong_override_is_refused_by_name(override, parts):
    message = refused(GOOD, [override])
    assert [part for part in parts if part not in message] == []


def test_callers_errors_name_the_place_and_value():
    error = read_document(GOOD, "e").error(("faults", 0, "at"), "a time within the run", "make it smaller")
    assert error.message == "e:6: faults.0.at is '3s': expected a time within the run\n    make it smaller"
    assert "e:4" in read_document(GOOD, "e").error(("faults",), "x", "").message


@pytest.mark.parametrize(
    ("content", "part"), [(None, "cannot read"), (b"\xff\xfe\x00", "UTF-8"), (b"#" * (1 << 20) + b"##", "larger")]
)
def test_an_unreadable_file_is_refused(tmp_path, content, part):
    path = tmp_path / "exp.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=part):
        load_document(path)
