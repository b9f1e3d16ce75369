"""An experiment is read whole before anything is started, and what is wrong with it is said with its place."""

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from holdfast.cli import InputError
from holdfast_chaos.experiment import PACKAGED, Target, json_schema, load_experiment, packaged_names
from holdfast_chaos.planning import make_plan
from holdfast_loadtests.access import Tls
from support.certificates import Authority

MINIMAL = """\
apiVersion: holdfast/v1
kind: Experiment
metadata: {name: minimal}
target: {address: 127.0.0.1:9000}
load:
  arrivals: [{rate: 200/s}]
  mix: [{call: my.pkg.Users/ListUsers, weight: 1, request: {page_size: 20}}]
faults:
  - {id: slow-net, at: 15s, for: 10s, latency: {delay: 100ms}}
objectives: [availability.yaml]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "exp.yaml"
    path.write_text(text)
    return str(path)


def test_a_minimal_experiment_gets_documented_defaults(tmp_path: Path) -> None:
    resolved = load_experiment(written(tmp_path, MINIMAL))
    assert [phase.name for phase in resolved.phases] == ["baseline", "fault:slow-net", "settle", "recovery"]
    assert resolved.objectives[0].phases == ("baseline", "recovery")


@pytest.mark.parametrize("name", packaged_names())
def test_packaged_experiments_resolve_and_bring_enough_samples(name: str) -> None:
    plan = make_plan(load_experiment(name))
    short = [sample for sample in plan.samples if sample.enough is False]
    assert not short, short


@pytest.mark.parametrize("name", packaged_names())
def test_the_published_schema_accepts_packaged_experiments(name: str) -> None:
    document = yaml.safe_load((PACKAGED / f"{name}.yaml").read_text())
    jsonschema.Draft202012Validator(json_schema()).validate(document)


def test_the_published_schema_is_what_the_code_reads() -> None:
    published = PACKAGED.parent / "schemas" / "experiment.schema.json"
    assert json.loads(published.read_text()) == json_schema(), "run: make schemas"


def test_the_schema_refuses_an_unknown_key() -> None:
    document = {**yaml.safe_load(MINIMAL), "sede": 1}
    with pytest.raises(jsonschema.ValidationError, match="sede"):
        jsonschema.Draft202012Validator(json_schema()).validate(document)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("objectives: [availability.yaml]", "objectives: [nope.yaml]", ["exp.yaml:10", "objectives.0", "nope.yaml"]),
        ("at: 15s", "at: 2s", ["exp.yaml:9", "faults.0.at", "baseline"]),
        (
            "{id: slow-net, at: 15s, for: 10s, latency: {delay: 100ms}}",
            "{id: x, at: 15s, for: 1s}",
            ["exactly one kind"],
        ),
        ("latency: {delay: 100ms}", "kill: {target: server}", ["target.command"]),
        ("latency: {delay: 100ms}", "kill: {target: database}", ["target.command", "faults.0.kill"]),
        (", for: 10s", "", ["for: <duration>"]),
        ("address: 127.0.0.1:9000", "command: [my-server]", ["{grpc}"]),
        ("address: 127.0.0.1:9000", "address: localhost", ["target.address", "localhost"]),
        ("address: 127.0.0.1:9000", "address: 127.0.0.1:99999", ["65535", "99999"]),
        ("address: 127.0.0.1:9000", "address: 127.0.0.1:9000, metrics: 'http://{http}/m'", ["{http}"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    assert old in MINIMAL
    with pytest.raises(InputError) as raised:
        load_experiment(written(tmp_path, MINIMAL.replace(old, new)))
    for text in ["exp.yaml:", *said]:
        assert text in raised.value.message


def test_two_faults_of_one_id_are_refused(tmp_path: Path) -> None:
    again = "  - {id: slow-net, at: 40s, for: 1s, latency: {delay: 1ms}}\nobjectives"
    with pytest.raises(InputError, match="second of that name"):
        load_experiment(written(tmp_path, MINIMAL.replace("objectives", again)))


def test_overrides_win_over_the_file_and_flags_over_overrides(tmp_path: Path) -> None:
    resolved = load_experiment(written(tmp_path, MINIMAL), ["seed=5", "load.arrivals.0.rate=7/s"], seed=9)
    assert resolved.experiment.seed == 9
    assert resolved.experiment.load.arrivals is not None
    assert resolved.experiment.load.arrivals[0].rate == 7


def test_braces_that_are_no_placeholder_are_the_program_s_own() -> None:
    command = '{grpc} --flags {"a": {0}} {UPPER} {{x}} {'
    assert Target.filled(command, {"grpc": "127.0.0.1:1", "x": "y"}) == '127.0.0.1:1 --flags {"a": {0}} {UPPER} {y} {'


def test_the_sum_is_the_file_s_and_another_with_overrides() -> None:
    path = Path(str(PACKAGED / "fleet-under-fire.yaml"))
    plain = load_experiment(str(path)).sha256
    assert plain == hashlib.sha256(path.read_bytes()).hexdigest()
    others = {load_experiment(str(path), [f"seed={seed}"]).sha256 for seed in (8, 9)}
    assert len({plain, load_experiment(str(path), seed=8).sha256, *others}) == 3


def test_a_kill_lasts_until_its_restart_and_says_nothing_else(tmp_path: Path) -> None:
    text = MINIMAL.replace("address: 127.0.0.1:9000", "command: [server, '{grpc}']")
    kill = text.replace("latency: {delay: 100ms}", "kill: {target: server, restart_after: 3s}")
    with pytest.raises(InputError, match="no `for` beside a kill"):
        load_experiment(written(tmp_path, kill))
    (window,) = load_experiment(written(tmp_path, kill.replace(", for: 10s", ""))).windows
    assert window.for_s == 3


def test_a_pattern_stands_for_every_fault_window(tmp_path: Path) -> None:
    text = MINIMAL.replace("[availability.yaml]", "[{openslo: availability.yaml, phases: ['fault:*']}]")
    assert load_experiment(written(tmp_path, text)).objectives[0].phases == ("fault:slow-net",)


def secured(tls: str, more: str = "") -> str:
    return MINIMAL.replace("  mix:", f"  tls: {tls}\n{more}  mix:")


def test_files_of_tls_are_found_beside_the_experiment_and_the_target_gives_the_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    text = secured(f"{{ca: test-ca.pem, cert: {cert.name}, key: {key.name}}}", "  metadata: {x-token: secret}\n")
    access = load_experiment(written(tmp_path, text)).access
    assert access.security is not None
    assert (access.security.ca, access.security.cert, access.security.key) == (str(authority.ca), str(cert), str(key))
    assert access.authority == "127.0.0.1:9000", "the load dials a proxy, but speaks to the target"
    assert access.for_grpcio == (("x-token", "secret"),)
    named = load_experiment(written(tmp_path, secured("{ca: test-ca.pem}", "  authority: a.test\n"))).access
    assert named.authority == "a.test"
    flagged = load_experiment(written(tmp_path, MINIMAL), tls=Tls(ca=str(authority.ca))).access
    assert flagged.security is not None
    assert flagged.security.ca == str(authority.ca)


@pytest.mark.parametrize(
    ("tls", "more", "said"),
    [
        ("{ca: nowhere.pem}", "", ["exp.yaml:7", "no file 'nowhere.pem' there"]),
        ("{ca: exp.yaml}", "", ["exp.yaml:7", "PEM files"]),
        ("{cert: exp.yaml}", "", ["exp.yaml:7", "`cert` and `key` together"]),
        ("{}", "  metadata: {grpc-timeout: 1S}\n", ["exp.yaml:8", "not for callers to set"]),
        ("{}", "  metadata: {x-bin: '%'}\n", ["exp.yaml:8", "no base64"]),
    ],
)
def test_what_is_wrong_with_tls_or_metadata_is_said_with_its_place(
    tmp_path: Path, tls: str, more: str, said: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        load_experiment(written(tmp_path, secured(tls, more)))
    for text in said:
        assert text in refused.value.message
