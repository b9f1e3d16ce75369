"""A worker that comes while a test runs has no part of the load: it makes no calls, and the test says so."""

import json
import signal

import pytest

from support.echo_server_process import EchoServer
from support.locust_processes import CLOSED, REGISTRY, Cluster, Page, tracebacks
from support.prometheus_server import poll

LOCUSTFILE = f"""{CLOSED}

class Scripted(GrpcUser):
    weight = 3
    wait_time = constant(0.05)

    @task
    def get(self):
        self.call("{REGISTRY}/GetAgent", {{"name": "namespaces/default/agents/nobody"}})
"""
USERS = 8
"""Two of the engine and six in Python: however Locust moves half of them, either worker has some in Python."""

MORE_CALLS = 80
"""Of these users' 20 calls a second: two of them need two seconds."""

OPTIONS = ("--csv", "run", "--stop-timeout", "10")


def gets(server):
    return server.counts().get("GetAgent/NotFound", 0)


def end(cluster, server, late, folder):
    """Lets the late one's users go on for a while, ends the test, and looks at what it says."""
    late.says("This worker joined a test that runs")
    cluster.master.says("joined while the test runs")
    enough = gets(server) + MORE_CALLS
    poll(lambda: gets(server) > enough, "more scripted calls", 60)
    assert late.children() == []  # neither an engine nor a process for scripted calls
    cluster.master.terminate()
    assert cluster.master.code() == 2, cluster.output
    found = json.loads((folder / "run_holdfast.json").read_text())
    [doubt] = [doubt for doubt in found["inconclusive"] if "could not keep up" not in doubt]
    assert "joined while the test ran: it made no calls" in doubt
    [part] = found["workers"]
    assert (part["share"], part["state"]) == ("1/1", "finished")
    assert found["calls"] == server.counts()["ListAgents/OK"] + gets(server)
    assert tracebacks(cluster.output) == []


@pytest.mark.parametrize("more", [(), ("--enable-rebalancing",)], ids=["plain", "rebalancing"])
def test_a_worker_that_joins_while_the_test_runs_makes_no_calls_and_is_named(more, tmp_path):
    arguments = ("--headless", "-u", str(USERS), "-r", str(USERS), *OPTIONS, *more)
    with EchoServer() as server, Cluster(tmp_path, LOCUSTFILE, 1, "--host", server.address, *arguments) as cluster:
        cluster.master.says(r"grpc .*GetAgent +\d*[1-9]")
        end(cluster, server, cluster.join(), tmp_path)


def test_a_worker_that_was_silent_when_the_test_began_and_comes_back_is_one_of_them(tmp_path):
    page = Page()
    with EchoServer() as server, Cluster(tmp_path, LOCUSTFILE, 2, *page.arguments, *OPTIONS) as cluster:
        cluster.master.says("2 workers connected")
        silent = cluster.workers[0]
        silent.process.send_signal(signal.SIGSTOP)
        cluster.master.says("setting state to missing")
        page.start(server.address, USERS)
        poll(lambda: gets(server), "calls of the worker that is there", 60)
        silent.process.send_signal(signal.SIGCONT)
        end(cluster, server, silent, tmp_path)
