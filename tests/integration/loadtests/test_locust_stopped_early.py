"""A test that is stopped while its workers prepare ends at once, is no success, and leaves no process behind."""

import json
import signal
import threading
import time

import pytest

from support import hostile_servers as hostile
from support.echo_server_descriptors import registry_descriptors
from support.echo_server_process import EchoServer
from support.locust_processes import CLOSED, HEAD, REGISTRY, Cluster, Page, alone, saturated, tracebacks
from support.prometheus_server import poll

NOT_READY = "was not ready when the test ended"
DESCRIBE, ENGINE, CALLER = (f"holdfast_loadtests.{name}" for name in ("describe", "worker", "caller"))
SCRIPTED = f"""{HEAD}
class Scripted(GrpcUser):
    @task
    def list(self):
        self.call("{REGISTRY}/ListAgents")
"""
ENDS_WITHIN_S = 40.0
"""Generous, and less than the 60 s in which workers must be ready."""


def preparing(several, module):
    """The processes that prepare under some Locusts, once there are any: the first may be done in some seconds."""
    return poll(lambda: [child for one in several for child in one.children(module)], f"a process of {module}", 60)


def ended(running, processes):
    """Waits for Locust's own processes; those that prepared are gone by then. Returns the exit code of the first."""
    began_s = time.monotonic()
    codes = [one.code() for one in running]
    assert time.monotonic() - began_s < ENDS_WITHIN_S
    assert [one for one in processes if one.is_running()] == []
    return codes[0]


@pytest.mark.parametrize(
    ("locustfile", "module", "behaviour"),
    [
        (CLOSED, DESCRIBE, hostile.greets_late),
        (CLOSED, ENGINE, hostile.sends_no_settings),
        (SCRIPTED, CALLER, hostile.sends_no_settings),
    ],
    ids=["reflection", "engine", "scripted"],
)
def test_a_master_that_is_terminated_while_its_workers_prepare(locustfile, module, behaviour, tmp_path):
    if module != DESCRIBE:
        (tmp_path / "registry.binpb").write_bytes(registry_descriptors().file_set)
        locustfile = locustfile.replace("User):\n", 'User):\n    protoset = "registry.binpb"\n')
    with (
        hostile.HostileServer(behaviour) as server,
        Cluster(tmp_path, locustfile, 2, "--headless", "--host", server.address) as cluster,
    ):
        processes = preparing(cluster.workers, module)
        cluster.master.terminate()
        assert ended([cluster.master, *cluster.workers], processes) == 2, cluster.output
    assert NOT_READY in cluster.output
    assert tracebacks(cluster.output) == []


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_locust_without_workers_that_is_ended_while_it_prepares(sign, tmp_path):
    with (
        hostile.HostileServer(hostile.greets_late) as server,
        alone(tmp_path, CLOSED, "--host", server.address) as locust,
    ):
        processes = preparing([locust], DESCRIBE)
        locust.process.send_signal(sign)
        assert ended([locust], processes) == 2, locust.output
    assert NOT_READY in locust.output


def test_the_pages_stop_while_workers_prepare_leaves_nothing_to_the_next_test(tmp_path):
    page = Page()
    with (
        hostile.HostileServer(hostile.greets_late) as late,
        EchoServer() as server,
        Cluster(tmp_path, CLOSED, 2, *page.arguments, "--csv", "run") as cluster,
    ):
        cluster.master.says("2 workers connected")
        page.start(late.address, 2)
        processes = preparing(cluster.workers, DESCRIBE)
        page.stop()
        cluster.master.says(f"INCONCLUSIVE: .* {NOT_READY}")
        poll(lambda: not any(one.is_running() for one in processes), "an end to what prepared", 6)
        page.start(server.address, 2)
        poll(lambda: server.counts().get("ListAgents/OK"), "calls of the second test", 60)
        cluster.master.terminate()
        code = cluster.master.code()
        found = json.loads((tmp_path / "run_holdfast.json").read_text())
        assert found["inconclusive"] == saturated(found), cluster.output
        assert code == (2 if saturated(found) else 0), cluster.output
        assert found["calls"] == server.counts()["ListAgents/OK"]


def test_a_second_signal_ends_no_test_before_it_is_judged(tmp_path):
    (tmp_path / "registry.binpb").write_bytes(registry_descriptors().file_set)
    slow = CLOSED.replace('"mix"', '"deadline": "8s", "mix"').replace(
        "load =", 'protoset = "registry.binpb"\n    load ='
    )
    called = threading.Event()

    def never_answers(connection):
        connection.sendall(hostile.GREETING)
        for _ in hostile.calls(connection):
            called.set()

    with (
        hostile.HostileServer(never_answers) as server,
        Cluster(tmp_path, slow, 1, "--headless", "--host", server.address) as cluster,
    ):
        poll(called.is_set, "a call under way", 60)
        for count in (1, 2):
            cluster.master.terminate()
            cluster.master.says("(?s)" + ".*".join(["Got SIGTERM signal"] * count))
        assert cluster.master.code() == 2, cluster.output
    assert "INCONCLUSIVE: no call was answered" in cluster.output
