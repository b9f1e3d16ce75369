"""`holdfast load` against a real server, as its users type it."""

import json
import subprocess
import sys
import time

import pytest

from holdfast_loadtests.commands.load import load as load_command
from holdfast_loadtests.histogram import Histogram
from support.echo_server_process import EchoServer

REGISTRY = "holdfast.registry.v1.AgentRegistryService"
LIST = f"{REGISTRY}/ListAgents"


@pytest.fixture(scope="module")
def server():
    with EchoServer() as running:
        yield running


def load(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "holdfast", "load", *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_load_counts_every_call_that_was_due_and_what_was_asserted(server):
    before = server.counts().get("ListAgents/OK", 0)
    done = load(
        server.address, LIST, "--rate", "100", "--for", "2s", "-d", '{"parent": "namespaces/n-{{int(1, 9)}}"}',
        "--check", "revision=7", "--assert", "errors == 0", "--assert", "calls == 200", "--assert", "p50 < 10s",
        "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert done.returncode in (0, 2), done.stderr  # 2: this machine was too busy to be punctual, which it says
    assert (done.returncode == 2) == bool(found["saturated"])
    assert server.counts()["ListAgents/OK"] - before == found["calls"] == 200
    assert found["codes"] == [{"method": LIST, "code": "OK", "count": 200}]
    assert [one["holds"] for one in found["assertions"]] == [True, True, True]
    assert Histogram.of_json(found["histogram"]).count == 200


def test_the_table_shows_latencies_codes_and_how_late_the_generator_was(server):
    done = load(server.address, LIST, "--users", "2", "--for", "500ms", "--check", "revision=8")
    for text in (
        "latency, from when a call was due",
        "p99.9",
        "  OK ",
        "ms late at p99",
        "revision is 7, expected '8'",
    ):
        assert text in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1  # what was claimed by --check is not so


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--expect", "OK"), 1),
        ((), 1),  # not one answer is right
        (("--expect", "NotFound"), 0),
    ],
)
def test_answers_other_than_claimed_are_no_success(server, arguments, code):
    nobody = '{"name": "namespaces/default/agents/nobody"}'
    done = load(server.address, f"{REGISTRY}/GetAgent", "--users", "1", "--for", "300ms", "-d", nobody, *arguments)
    assert done.returncode == code, done.stdout + done.stderr


def test_an_assertion_that_does_not_hold_ends_with_1(server):
    done = load(server.address, LIST, "--users", "1", "--for", "500ms", "--assert", "p50 < 1us")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DOES NOT HOLD" in done.stdout


def test_a_load_that_makes_no_call_proves_nothing(server):
    done = load(server.address, LIST, "--rate", "1/h", "--poisson", "--for", "200ms", "--assert", "p99 < 50ms")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "CANNOT TELL (no samples" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((f"{REGISTRY}/ListAgnts", "--rate", "1"), "did you mean 'ListAgents'?"),
        ((LIST, "--rate", "1", "-d", '{"page_sise": 1}'), "did you mean 'page_size'?"),
        ((LIST, "--rate", "1", "-d", "{"), "expected a JSON object"),
        ((LIST, "--rate", "1", "-d", '{"parent": "{{intt(1, 2)}}"}'), "did you mean 'int'?"),
        ((LIST,), "either --rate (open model) or --users (closed model)"),
        ((LIST, "--rate", "fast"), "expected a rate"),
        ((LIST, "--rate", "1", "--for", "soon"), "expected a duration"),
        ((LIST, "--rate", "1", "--assert", "p99"), "expected a measure"),
        ((LIST, "--rate", "1", "--expect", "OKAY"), "did you mean 'OK'?"),
        ((LIST, "--rate", "1", "-H", "x"), "expected NAME:VALUE"),
        ((LIST, "--rate", "1", "--ca", "/nowhere.pem"), "cannot use /nowhere.pem for TLS"),
    ],
)
def test_what_cannot_be_loaded_is_wrong_input(server, arguments, message):
    done = load(server.address, *arguments)
    assert done.returncode == 3, done.stdout + done.stderr
    assert message in done.stderr


def test_an_address_where_nothing_listens_is_wrong_input():
    done = load("127.0.0.1:1", LIST, "--rate", "1")
    assert done.returncode == 3
    assert "nothing that speaks gRPC answers there" in done.stderr


def test_setting_the_time_does_not_change_how_long_a_load_lasts(server, monkeypatch, capsys):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0)  # as where it is set while the load starts
    load_command.main([server.address, LIST, "--users", "1", "--for", "1s", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["seconds"] >= 0.9
