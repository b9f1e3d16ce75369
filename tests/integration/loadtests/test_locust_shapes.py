"""Locust's load shapes say how many users the engine has, and when the test ends."""

import json
from collections import defaultdict
from itertools import groupby

import pytest

from holdfast_loadtests.records import read_calls
from support.echo_server_process import EchoServer
from support.locust_processes import CLOSED, Cluster, alone, saturated, tracebacks

STEPS = (2, 6, 1)
LOCUSTFILE = f"""{CLOSED}
from locust import LoadTestShape


class Steps(LoadTestShape):
    steps = {list(STEPS)}
    ticks = 0

    def tick(self):
        "Each step lasts until its users are there, however long they take to begin, and a second more."
        if self.get_current_user_count() == self.steps[0]:
            self.ticks += 1
        if self.ticks > 1:
            self.ticks = 0
            self.steps.pop(0)
        return (self.steps[0], 10) if self.steps else None
"""
WINDOW_S = 0.25


@pytest.fixture(scope="module")
def server():
    with EchoServer() as running:
        yield running


def finished(server, before, locust, tmp_path):
    """Waits for its end: the test found what the server counted."""
    code = locust.code()
    found = json.loads((tmp_path / "run_holdfast.json").read_text())
    assert found["inconclusive"] == saturated(found), locust.output
    assert code == (2 if saturated(found) else 0), locust.output
    assert found["calls"] == found["outcomes"]["ok"] == server.counts()["ListAgents/OK"] - before > 0
    assert tracebacks(locust.output) == []


def test_a_shape_takes_users_up_and_down_and_ends_the_test(server, tmp_path):
    before = server.counts().get("ListAgents/OK", 0)
    arguments = ("--headless", "--host", server.address, "--csv", "run", "--load-records", str(tmp_path / "records"))
    with Cluster(tmp_path, LOCUSTFILE, 2, *arguments) as cluster:
        finished(server, before, cluster.master, tmp_path)
    users = defaultdict(set)  # who called, by window: each user has a connection of its own
    for folder in sorted((tmp_path / "records/test-1").iterdir()):
        for call in read_calls(folder / "calls.csv.gz"):
            users[int(call.sent_s / WINDOW_S)].add((folder.name, call.connection))
    seen = [count for count, _ in groupby(len(users[window]) for window in sorted(users))]
    up, top, down = STEPS
    peak = seen.index(top)
    assert max(seen) == top
    assert up in seen[:peak], seen
    assert down in seen[peak:], seen


RESTLESS = f"""{CLOSED}
from locust import LoadTestShape


class Restless(LoadTestShape):
    users = 0

    def tick(self):
        "Another number of users every second, also while the first test is being prepared."
        self.users += 1
        return (self.users, 10) if self.users < 7 else None
"""


def test_a_shape_that_changes_while_the_engine_is_prepared_loses_no_test(server, tmp_path):
    before = server.counts().get("ListAgents/OK", 0)
    with alone(tmp_path, RESTLESS, "--host", server.address, "--csv", "run") as locust:
        finished(server, before, locust, tmp_path)
