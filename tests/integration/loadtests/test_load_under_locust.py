"""Locust with real workers, each with the engine beside it, against a server that counts."""

import csv
import json
import signal
from pathlib import Path

import psutil
import pytest

from holdfast_loadtests import locusting
from holdfast_loadtests.histogram import Histogram, merged
from holdfast_loadtests.records import read_calls
from support.echo_server_process import EchoServer
from support.locust_processes import CLOSED, HEAD, REGISTRY, Cluster, saturated, tracebacks
from support.locust_processes import alone as alone_with

OPEN = f"""{HEAD}
class Lists(EngineUser):
    load = {{
        "arrivals": [{{"rate": "50/s", "to": "150/s", "for": "3s"}}],
        "connections": 1,
        "mix": [{{"call": "{REGISTRY}/ListAgents", "request": {{"parent": "namespaces/n-{{{{counter}}}}"}}}}],
    }}
"""
CALLS = 300
"""What a ramp from 50/s to 150/s makes in 3 s: the integral of the rate."""


@pytest.fixture(scope="module")
def server():
    with EchoServer() as running:
        yield running


def alone(folder, locustfile, server, *arguments):
    return alone_with(folder, locustfile, "--host", server.address, *arguments)


def counted(server, method="ListAgents/OK"):
    return server.counts().get(method, 0)


def test_two_workers_make_the_load_once_and_their_histograms_merge_bucket_for_bucket(server, tmp_path):
    before = counted(server)
    arguments = (
        "--headless",
        "--host",
        server.address,
        "--csv",
        "out/run",
        "--load-records",
        str(tmp_path / "records"),
    )
    with Cluster(tmp_path, OPEN, 2, *arguments) as cluster:
        code = cluster.master.code()
        assert [worker.code() for worker in cluster.workers] == [0, 0], cluster.output
        output = cluster.output
    assert counted(server) - before == CALLS
    found = json.loads((tmp_path / "out/run_holdfast.json").read_text())
    assert found["inconclusive"] == saturated(found), output
    assert code == (2 if saturated(found) else 0), output

    folders = sorted((tmp_path / "records/test-1").iterdir())
    assert [folder.name for folder in folders] == ["worker-1-of-2", "worker-2-of-2"]
    own = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert found["histogram"] == merged(Histogram.of_json(one["histogram"]) for one in own).as_json()
    assert [worker["calls"] for worker in found["workers"]] == [one["calls"] for one in own] == [CALLS / 2, CALLS / 2]
    ordinals = [call.ordinal for folder in folders for call in read_calls(folder / "calls.csv.gz")]
    assert sorted(ordinals) == list(range(CALLS))  # each call of the one schedule was made by one of them

    with (tmp_path / "out/run_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert int(rows[f"{REGISTRY}/ListAgents"]["Request Count"]) == CALLS
    assert int(rows["Aggregated"]["Request Count"]) == CALLS
    assert float(rows["Aggregated"]["Average Response Time"]) == pytest.approx(found["latency_ms"]["mean"])
    with (tmp_path / "out/run_percentiles.csv").open() as file:
        shown = {row["Name"]: row for row in csv.DictReader(file)}
    assert float(shown["all methods"]["p99"]) == found["latency_ms"]["p99"]
    for name in ("stats_history", "failures", "exceptions"):
        assert (tmp_path / f"out/run_{name}.csv").exists()


ENDLESS = OPEN.replace(', "to": "150/s", "for": "3s"', "")


def test_a_worker_that_is_killed_is_told_and_makes_the_test_inconclusive(server, tmp_path):
    with Cluster(tmp_path, ENDLESS, 2, "--headless", "--host", server.address, "--csv", "run") as cluster:
        cluster.master.says(r"grpc .*ListAgents +\d\d")
        victim = cluster.workers[0]
        engines = victim.children()
        assert engines, cluster.output
        victim.kill()
        cluster.master.says("worker .* was lost")
        cluster.master.terminate()
        assert cluster.master.code() == 2, cluster.output
        gone, alive = psutil.wait_procs(engines, timeout=20)
        assert (len(gone), alive) == (len(engines), [])  # no engine outlives its worker
    found = json.loads((tmp_path / "run_holdfast.json").read_text())
    [doubt] = [doubt for doubt in found["inconclusive"] if "was lost" in doubt]
    assert "1/2 of the load" in doubt
    assert sorted(worker["state"] for worker in found["workers"]) == ["finished", "lost"]
    assert f"INCONCLUSIVE: {doubt}" in cluster.output


def test_ctrl_c_to_master_and_workers_at_once_leaves_no_call_uncounted(server, tmp_path):
    before = counted(server)
    arguments = ("--headless", "--host", server.address, "-u", "4", "-r", "4", "--csv", "run")
    with Cluster(tmp_path, CLOSED, 2, *arguments) as cluster:
        cluster.master.says(r"grpc .*ListAgents +\d\d")
        for one in (*cluster.workers, cluster.master):
            one.process.send_signal(signal.SIGINT)
        cluster.master.code()
    found = json.loads((tmp_path / "run_holdfast.json").read_text())
    assert found["inconclusive"] == saturated(found), cluster.output
    assert found["calls"] == counted(server) - before


def test_a_worker_whose_engine_dies_makes_the_test_inconclusive(server, tmp_path):
    with alone(tmp_path, ENDLESS, server) as locust:
        locust.says(r"grpc .*ListAgents +\d\d")
        [engine] = locust.children("holdfast_loadtests.worker")
        engine.kill()
        locust.says("This worker lost its engine")
        locust.terminate()
        assert locust.code() == 2, locust.output
    assert "INCONCLUSIVE: worker local (1 of 1) lost its engine" in locust.output


def test_what_does_not_fit_the_target_ends_with_3_and_nothing_sent(server, tmp_path):
    before = server.counts()
    wrong = OPEN.replace('"parent"', '"parrent"')
    with alone(tmp_path, wrong, server) as locust:
        assert locust.code() == 3, locust.output
    assert "'parrent'; did you mean 'parent'?" in locust.output
    assert server.counts() == before


SCRIPTED = f"""{HEAD}
class Scripted(GrpcUser):
    wait_time = constant(0.05)

    @task
    def everything(self):
        listed = self.call("{REGISTRY}/ListAgents", {{"parent": "namespaces/default"}})
        assert listed.ok and listed.message["revision"] == "7", listed.message
        nobody = {{"name": "namespaces/default/agents/nobody"}}
        self.call("{REGISTRY}/GetAgent", nobody, name="get, counted as it ended")
        with self.call("{REGISTRY}/GetAgent", nobody, name="get, judged", catch_response=True) as reply:
            assert reply.message is None
            if reply.code == "NotFound":
                reply.success()
        with self.call("{REGISTRY}/ListAgents", name="list, judged", catch_response=True) as reply:
            assert reply.message["revision"] == "8", "another revision"
        watched = self.call("{REGISTRY}/WatchAgents", {{"parent": "namespaces/default"}}, receive=3)
        assert watched.message["revision"] == "3"
        kept = self.call("holdfast.registry.v1.LeaseService/KeepLeaseAlive", [{{"leases": ["a"]}}, {{"leases": ["b"]}}])
        assert kept.message["results"][0]["lease"] == "b"
        self.environment.runner.quit()
"""


def test_users_scripted_in_python_call_judge_and_are_counted(server, tmp_path):
    before = counted(server)
    with alone(tmp_path, SCRIPTED, server, "--csv", "run") as locust:
        code = locust.code()
    assert code in (1, 2), locust.output  # 1: there were failures, as Locust has it; 2: a machine too busy
    found = json.loads((tmp_path / "run_holdfast.json").read_text())
    assert found["inconclusive"] == saturated(found), locust.output
    assert counted(server) - before == 2
    counts = {one["method"]: (one["code"], one["count"]) for one in found["codes"]}
    assert counts == {
        f"{REGISTRY}/ListAgents": ("OK", 1),
        "get, counted as it ended": ("NotFound", 1),
        "get, judged": ("NotFound", 1),
        "list, judged": ("OK", 1),
        f"{REGISTRY}/WatchAgents": ("OK", 1),
        "holdfast.registry.v1.LeaseService/KeepLeaseAlive": ("OK", 1),
    }
    assert found["errors"] == 2
    with (tmp_path / "run_failures.csv").open() as file:
        failures = {row["Name"]: row["Error"] for row in csv.DictReader(file)}
    assert "NotFound: GetAgent: NotFound" in failures.pop("get, counted as it ended")
    assert "another revision" in failures.pop("list, judged")
    assert failures == {}
    assert tracebacks(locust.output) == []


def test_the_locustfile_that_comes_with_the_package_runs_with_both_kinds_of_users(server, tmp_path):
    example = Path(locusting.__file__).with_name("example.py").read_text()
    with alone(tmp_path, example, server, "-u", "4", "-r", "4", "--csv", "run", "Lists", "Scripted") as locust:
        locust.says(r"grpc +\S+/GetAgent +\d*[1-9]")
        locust.says(r"grpc +\S+/ListAgents +\d{3}")  # more than the users in Python make
        locust.terminate()
        code = locust.code()
    found = json.loads((tmp_path / "run_holdfast.json").read_text())
    assert found["inconclusive"] == saturated(found)
    assert code == (2 if saturated(found) else 0), locust.output
    assert tracebacks(locust.output) == []
