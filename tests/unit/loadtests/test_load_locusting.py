"""What a locustfile says is read with a message that helps, and the engine stays free of Locust."""

import subprocess
import sys

import pytest

from holdfast.cli import InputError
from holdfast_loadtests.locusting.loads import load_of
from holdfast_loadtests.locusting.targets import Place, place_of
from holdfast_loadtests.security import Security
from holdfast_loadtests.shares import Share

MIX = [{"call": "p.S/M"}]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:50051", Place("127.0.0.1:50051", None)),
        ("grpc://[::1]:1/", Place("[::1]:1", None)),
        ("http://localhost:65535", Place("localhost:65535", None)),
        ("grpcs://example.org:443", Place("example.org:443", Security())),
        ("https://example.org:443", Place("example.org:443", Security())),
    ],
)
def test_a_host_is_read_as_locust_users_write_it(host, expected):
    assert place_of(host) == expected


def test_a_ca_turns_tls_on():
    assert place_of("a:1", ca="ca.pem") == Place("a:1", Security("ca.pem"))


def test_metadata_that_grpc_does_not_have_is_refused_before_anything_starts():
    assert place_of("a:1", metadata={"x-tenant": "7"}).metadata == (("x-tenant", "7"),)
    with pytest.raises(InputError, match="'grpc-timeout' is not for callers"):
        place_of("a:1", metadata={"grpc-timeout": "1S"})


@pytest.mark.parametrize("host", [None, "", "localhost", "localhost:0", "localhost:70000", "ftp://a:1", "://a:1", ":1"])
def test_what_is_no_host_is_refused_with_what_to_write(host):
    with pytest.raises(InputError, match="expected HOST:PORT"):
        place_of(host)


def test_a_load_without_arrivals_is_a_closed_one_whose_users_are_locusts(tmp_path):
    (tmp_path / "agents.csv").write_text("id\n" + "".join(f"a{number}\n" for number in range(5)))
    scenario = {"name": "life", "rows": "agents", "steps": [{"call": "p.S/M", "request": {"id": "{{agents.id}}"}}]}
    load = load_of({"scenarios": [scenario]}, {"agents": "agents.csv"}, tmp_path)
    assert not load.is_open
    assert [load.users_max(Share(index, 2)) for index in (0, 1)] == [3, 2]
    assert load_of({"mix": MIX}, {}, tmp_path).users_max(Share(0, 2)) == 2_000


def test_a_load_may_stand_in_a_file_beside_the_locustfile(tmp_path):
    (tmp_path / "load.yaml").write_text("arrivals: [{rate: 10/s, for: 5s}]\nmix: [{call: p.S/M}]\n")
    load = load_of("load.yaml", {}, tmp_path)
    assert (load.is_open, load.spec.length_s) == (True, 5.0)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"users": 5, "mix": MIX}, "load.users is 5: Locust says how many"),
        ({"tls": {}, "mix": MIX}, "load.tls: give it as an attribute of the user class: `ca`"),
        ({"mix": []}, "there is nothing to call"),
        ({"arrivals": [{"rate": "fast"}], "mix": MIX}, "load.arrivals.0.rate"),
        ({"mix": [{"call": "p.S/M", "request": {"id": "{{agents.id}}"}}]}, "no table 'agents'"),
        ("absent.yaml", "cannot read this file"),
    ],
)
def test_a_load_that_is_none_is_refused_by_name_and_value(load, words, tmp_path):
    with pytest.raises(InputError) as caught:
        load_of(load, {}, tmp_path)
    assert words in str(caught.value)


def test_the_engine_and_its_commands_never_import_locust_or_gevent():
    code = (
        "import sys, holdfast_loadtests.commands.load, holdfast_loadtests.worker, holdfast_loadtests.caller, "
        "holdfast_loadtests.describe, holdfast_chaos.commands.run, holdfast_loadtests.locusting.board; "
        "print(sorted({'locust', 'gevent'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
