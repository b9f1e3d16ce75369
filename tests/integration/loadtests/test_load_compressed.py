"""Compressed requests, against a server that refuses those which came plain: grpc-go's, by its own word."""

import json
import subprocess
import sys

import pytest

from holdfast_loadtests.engine import LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.records import read_calls
from holdfast_loadtests.spec import LoadSpec
from support.interop_cases import TEST
from support.interop_servers import descriptor_set, interop_server
from support.locust_processes import HEAD, alone
from support.prometheus_server import poll

COMPRESSED = {"expect_compressed": {"value": True}}
STEPS = [
    {"call": f"{TEST}/UnaryCall", "request": COMPRESSED},
    {"call": f"{TEST}/UnaryCall", "request": {**COMPRESSED, "response_size": "{{int(1, 9)}}"}},
    {"call": f"{TEST}/UnaryCall", "request": {"expect_compressed": {"value": False}}, "expect": ["InvalidArgument"]},
    {"call": f"{TEST}/StreamingInputCall", "messages": [COMPRESSED, COMPRESSED, COMPRESSED]},
    {"call": f"{TEST}/StreamingInputCall", "messages": [COMPRESSED, COMPRESSED, COMPRESSED], "pace": "5ms"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with interop_server("go", tmp_path_factory.mktemp("go")) as running:
        yield running


def test_every_message_of_a_load_is_compressed(server, tmp_path):
    spec = LoadSpec.model_validate(
        {"users": 2, "compression": "gzip", "scenarios": [{"name": "all", "steps": STEPS}], "deadline": "20s"}
    )
    with LoadRun.start(LoadPlan(server.address, spec, {}, 1, descriptors=descriptor_set()), tmp_path) as run:
        poll(lambda: run.snapshot().sent > 6 * len(STEPS), "some scenarios to end", 60)
        summary = run.finish()
    assert summary.errors == 0, summary.wrong_answers
    assert {call.step for call in read_calls(run.record)} == set(range(len(STEPS)))


@pytest.mark.parametrize(("option", "code"), [(["--compression", "gzip"], "OK"), ([], "InvalidArgument")])
def test_the_command_compresses_when_it_is_told_to(server, option, code):
    arguments = ["--users", "2", "--for", "1s", "-d", json.dumps(COMPRESSED), "--expect", code, "--json", *option]
    command = [sys.executable, "-m", "holdfast", "load", server.address, f"{TEST}/UnaryCall", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert [one["code"] for one in json.loads(done.stdout)["codes"]] == [code], done.stdout


SCRIPTED = f"""{HEAD}
class Scripted(GrpcUser):
    wait_time = constant(0.05)
    compression = "gzip"

    @task
    def ask(self):
        self.call("{TEST}/UnaryCall", {COMPRESSED})
        self.environment.runner.quit()
"""


def test_users_scripted_in_python_compress_if_their_class_says_so(server, tmp_path):
    with alone(tmp_path, SCRIPTED, "--host", server.address, "--csv", "run") as locust:
        locust.code()
    counts = [(one["code"], one["count"]) for one in json.loads((tmp_path / "run_holdfast.json").read_text())["codes"]]
    assert counts == [("OK", 1)], locust.output


def test_users_whose_compression_is_unknown_send_nothing(server, tmp_path):
    with alone(tmp_path, SCRIPTED.replace("gzip", "snappy"), "--host", server.address) as locust:
        assert locust.code() == 3, locust.output
    assert 'compression \'snappy\' of Scripted: expected "gzip", or "" for none' in locust.output
