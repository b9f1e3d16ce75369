import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import InputError
from holdfast_loadtests import spec as load_spec
from holdfast_loadtests.spec import LoadSpec
from holdfast_slo.documents import read_document

TABLES = {"agents": [{"id": "a", "tier": "1"}, {"id": "b", "tier": "2"}], "jobs": [{"id": "j"}]}


def parsed(text):
    return read_document(text, "exp.yaml").parse(LoadSpec)


def checked(**parts):
    spec = LoadSpec.model_validate({"arrivals": [{"rate": "10/s"}], **parts})
    load_spec.check(spec, TABLES)
    return spec


def one_step(**parts):
    return {"name": "one", "steps": [{"call": "p.S/M", **parts}]}


@pytest.mark.parametrize(
    ("rate", "per_s"), [("40/s", 40.0), ("600/m", 10.0), ("1800/h", 0.5), ("0.5/s", 0.5), (" 3 / s ", 3.0)]
)
def test_a_rate_is_a_number_for_each_second_minute_or_hour(rate, per_s):
    spec = LoadSpec.model_validate({"arrivals": [{"rate": rate}], "mix": [{"call": "p.S/M"}]})
    assert spec.arrivals[0].rate == pytest.approx(per_s)


@pytest.mark.parametrize("rate", ["40", "0/s", "-1/s", "40/d", "1e9/s", "", "fast"])
def test_another_rate_is_refused_with_what_to_write(rate):
    with pytest.raises(InputError, match=r"exp.yaml:1: arrivals.0.rate is .*: expected a rate"):
        parsed(f"arrivals: [{{rate: '{rate}'}}]\nmix: [{{call: p.S/M}}]")


def test_a_bare_number_is_no_rate():
    with pytest.raises(InputError, match="expected a rate like '40/s'"):
        parsed("arrivals: [{rate: 40}]\nmix: [{call: p.S/M}]")


@given(st.decimals("0.00001", "90000", places=5))
def test_a_load_survives_its_own_json_to_the_last_digit(per_s):
    spec = LoadSpec.model_validate(
        {
            "arrivals": [{"rate": f"{per_s}/m", "for": "3s"}, {"rate": "1/h"}],
            "scenarios": [one_step(**{"assert": {"a": 1}})],
        }
    )
    wire = json.loads(json.dumps(spec.model_dump(mode="json", by_alias=True)))
    assert LoadSpec.model_validate(wire) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mix: [{call: p.S/M}]", "either `arrivals` (open model) or `users` (closed model)"),
        ("users: 3\narrivals: [{rate: 1/s}]\nmix: [{call: p.S/M}]", "either `arrivals`"),
        ("users: 3", "there is nothing to call"),
        ("users: 3\nconcurrency: 4\nmix: [{call: p.S/M}]", "no `concurrency` beside `users`"),
        ("arrivals: [{rate: 1/s}, {rate: 2/s}]\nmix: [{call: p.S/M}]", "`for` on every stretch"),
        ("users: 0\nmix: [{call: p.S/M}]", "users is 0"),
        ("users: 1\nmix: [{call: p.S.M}]", "mix.0.call is 'p.S.M'"),
        ("users: 1\nmix: [{call: p.S/M, expect: [NOT_FOUND]}]", "did you mean 'NotFound'?"),
        ("users: 1\nmix: [{call: p.S/M, wieght: 2}]", "did you mean 'weight'?"),
        ("users: 1\nmix: [{call: p.S/M, deadline: 5}]", "which unit? '5s'"),
    ],
)
def test_a_wrong_load_is_refused_by_what_is_wrong(text, message):
    with pytest.raises(InputError) as refused:
        parsed(text)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"scenarios": [one_step(request={"a": "{{agnets.id}}"})]},
            "no table 'agnets' under `data`; did you mean",
        ),
        (
            {"scenarios": [one_step(request={"a": ["{{agents.idd}}"]})]},
            "has no column 'idd'; did you mean 'id'?",
        ),
        ({"scenarios": [one_step(request={"a": "{{fence}}"})]}, "nothing of that name was captured before"),
        ({"scenarios": [one_step(capture={"fence": "f"}, **{"assert": {"a": "{{fence}}"}})]}, "{{fence}}"),
        ({"scenarios": [{**one_step(), "rows": "agent"}]}, "did you mean 'agents'?"),
        ({"scenarios": [one_step(request={"a": "{{agents.id}}{{jobs.id}}"})]}, "agents, jobs: join them"),
        ({"scenarios": [one_step(capture={"uuid": "agent.uid"})]}, "{{uuid}} has a meaning already"),
        ({"scenarios": [one_step(), one_step()]}, "'one' is used twice"),
        ({"scenarios": [one_step(deadline="0s")]}, "a duration above 0s"),
        ({"mix": [{"call": "p.S/M", "request": {"a": "{{x}}"}}]}, "load.mix.0.request"),
        (
            {"arrivals": None, "users": 3, "scenarios": [{**one_step(), "rows": "agents"}]},
            "at most 2, the rows of 'agents'",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_the_nearest(parts, message):
    with pytest.raises(InputError) as refused:
        checked(**parts)
    assert message in refused.value.message


def test_a_later_step_may_use_what_an_earlier_one_captured():
    steps = [{"call": "p.S/A", "capture": {"fence": "a.fence"}}, {"call": "p.S/B", "request": {"f": "{{fence}}"}}]
    checked(scenarios=[{"name": "two", "steps": steps}])


def test_the_caller_decides_how_a_place_is_shown():
    spec = LoadSpec.model_validate({"users": 1, "scenarios": [one_step(request={"a": "{{x}}"})]})
    seen = []

    def blame(loc, expected, hint):
        seen.append(loc)
        return InputError(expected + hint)

    with pytest.raises(InputError):
        load_spec.check(spec, TABLES, blame)
    assert seen == [("scenarios", 0, "steps", 0, "request")]


def test_each_entry_of_the_mix_is_a_scenario_with_a_name_of_its_own():
    spec = checked(
        scenarios=[one_step()], mix=[{"call": "p.S/Get", "weight": 3}, {"call": "p.S/Get"}, {"call": "p.S/List"}]
    )
    assert [(one.name, one.weight) for one in spec.all_scenarios()] == [
        ("one", 1),
        ("Get", 3),
        ("Get-2", 1),
        ("List", 1),
    ]


def test_the_pool_is_as_large_as_the_rows_that_can_be_held_unless_told():
    held = {"scenarios": [{**one_step(), "rows": "agents"}]}
    assert checked(**held).user_count(TABLES) == 2
    assert checked(**held, concurrency=7).user_count(TABLES) == 7
    assert checked(mix=[{"call": "p.S/M"}]).user_count(TABLES) == load_spec.CONCURRENCY_DEFAULT
    assert LoadSpec.model_validate({"users": 5, "mix": [{"call": "p.S/M"}]}).user_count(TABLES) == 5


def test_a_step_without_deadline_has_the_loads():
    spec = checked(
        deadline="3s", scenarios=[{"name": "two", "steps": [{"call": "p.S/A"}, {"call": "p.S/B", "deadline": "1s"}]}]
    )
    assert [spec.deadline_s(step) for step in spec.scenarios[0].steps] == [3.0, 1.0]
    assert spec.deadline == timedelta(seconds=3)


def test_the_length_of_a_load_is_known_where_every_stretch_has_one():
    assert checked(mix=[{"call": "p.S/M"}]).length_s is None
    arrivals = [{"rate": "1/s", "for": "2s"}, {"rate": "2/s", "for": "500ms"}]
    assert checked(arrivals=arrivals, mix=[{"call": "p.S/M"}]).length_s == 2.5


def test_a_load_without_its_end_keeps_every_stretch_but_the_last_one_s_length() -> None:
    arrivals = [{"rate": "1/s", "for": "2s"}, {"rate": "9/s", "for": "500ms"}]
    endless = checked(arrivals=arrivals, mix=[{"call": "p.S/M"}]).without_end()
    assert endless.length_s is None
    assert [(one.rate, one.for_ is None) for one in endless.arrivals or []] == [(1.0, False), (9.0, True)]
