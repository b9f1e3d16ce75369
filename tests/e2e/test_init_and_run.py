"""From nothing to a verdict on services that are not ours: `holdfast init`, `plan`, `run` and `load`, as users type."""

import json
import subprocess
import sys

import pytest
import yaml

from support.etcd_api import descriptor_set
from support.etcd_server import etcd_server
from support.interop_servers import interop_server
from support.runs import environment, run

QUICK = (
    "phases.baseline=3s",
    "phases.recovery=3s",
    "faults.0.at=3s",
    "faults.0.for=2500ms",
    "objectives.0.target=0.95",  # what a few seconds of light load can decide
    "objectives.1.target=0.90",
)
RANGE = {"key": "Zm9v"}  # foo


def holdfast(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment(tmp_path / "state"),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["go", "etcd"])
def target(request, tmp_path_factory):
    """An address, arguments that describe what is there, a method, and a request for it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "go":
        with interop_server("go", folder) as server:
            yield server.address, (), "grpc.testing.TestService/EmptyCall", {}
    else:
        protoset = folder / "etcd.binpb"
        protoset.write_bytes(descriptor_set())
        with etcd_server(folder) as address:
            yield address, ("--protoset", str(protoset)), "etcdserverpb.KV/Range", RANGE


@pytest.mark.experiment
def test_init_writes_what_plan_accepts_and_run_judges(target, tmp_path):
    address, described, call, request = target
    made = holdfast(tmp_path, "init", address, "--out", "mine.yaml", *described)
    assert made.returncode == 0, made.stderr
    written = tmp_path / "mine.yaml"
    mix = [entry["call"] for entry in yaml.safe_load(written.read_text())["load"]["mix"]]
    planned = holdfast(tmp_path, "plan", "mine.yaml", "--json")
    assert planned.returncode == 0, planned.stderr
    filled = [f"load.mix.{mix.index(call)}.request={json.dumps(request)}"] if request else []
    done = run(written, tmp_path, *QUICK, *filled)
    assert done.exit_code == 0, done.output
    objectives = {one["name"]: one for one in done.verdict["objectives"]}
    assert set(objectives) == {"availability", "latency-p95"}
    for one in objectives.values():
        assert "grpc_service" in one["query"], one
        assert one["good"] == one["total"] > 100


def test_init_leaves_objectives_that_are_there_as_they_are(target, tmp_path):
    address, described, _, _ = target
    mine = "# mine\n"
    (tmp_path / "availability.yaml").write_text(mine)
    made = holdfast(tmp_path, "init", address, *described)
    assert made.returncode == 0, made.stderr
    assert "availability.yaml: was there, and stays as it is" in made.stdout
    assert (tmp_path / "availability.yaml").read_text() == mine
    assert (tmp_path / "latency-p95.yaml").exists()


def test_load_of_one_method_counts_what_it_made(target, tmp_path):
    address, described, call, request = target
    done = holdfast(
        tmp_path, "load", address, call, "--rate", "200", "--for", "1s", "-d", json.dumps(request), "--json",
        "--expect", "OK", *described,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert done.returncode in (0, 2), done.stderr  # 2: this machine was too busy to be punctual, which it says
    assert (done.returncode == 2) == bool(found["saturated"])
    assert found["codes"] == [{"method": call, "code": "OK", "count": 200}]
