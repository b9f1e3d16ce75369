"""The commands for people, as processes, against a real server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.client import sync
from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.coordination.v1.activation_service_pb2 import Activation, ActivationFailure, RetryPolicy
from holdfast.coordination.v1.selector_pb2 import AgentSelector
from holdfast.core.activations.breaker import FAILURES_MAX
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from support.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[sync.Client]:
    """A client in a namespace of the test's own."""
    with sync.Client(server.grpc, namespace=request.node.name.replace("_", "-")[:60]) as client:
        yield client


def holdfast(
    server: ServerProcess, request: pytest.FixtureRequest, *args: str, **env: str
) -> "subprocess.CompletedProcess[str]":
    namespace = request.node.name.replace("_", "-")[:60]
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *args, "--target", server.grpc, "--namespace", namespace],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env},
    )  # fmt: skip


def test_agents_are_listed_for_people_and_for_programs(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest
) -> None:
    client.agents.register("a", Agent(capabilities=[Capability(id="review")]), ttl_s=600)
    client.agents.register("b", ttl_s=600)
    table = holdfast(server, request, "agents", "list")
    lines = table.stdout.splitlines()
    assert lines[0].split() == ["AGENT", "LIVENESS", "ADMIN", "STATUS", "TIER", "SLOTS", "CAPABILITIES"]
    assert [line.split()[:3] for line in lines[1:]] == [["a", "LIVE", "ENABLED"], ["b", "LIVE", "ENABLED"]]
    assert lines[1].endswith("review")
    only = holdfast(server, request, "agents", "list", "--filter", "capabilities:review", "--json")
    (found,) = map(json.loads, only.stdout.splitlines())
    assert found["capabilities"] == [{"id": "review"}]
    shown = holdfast(server, request, "agents", "get", "a").stdout
    assert "capabilities[0].id" in shown


def test_nothing_there_is_said_beside_the_output(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest
) -> None:
    done = holdfast(server, request, "agents", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "There are none.\n")
    assert holdfast(server, request, "agents", "list", "--json").stdout == ""


def test_operators_decide(server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest) -> None:
    client.agents.register("a", ttl_s=600)
    for verb, state in [
        ("cordon", "CORDONED"), ("uncordon", "ENABLED"), ("ban", "BANNED"), ("unban", "CORDONED"), ("drain", "DRAIN"),
    ]:  # fmt: skip
        done = holdfast(server, request, "agents", verb, "a", "--reason", "new kernel")
        assert done.returncode == 0, done.stderr
        assert state in done.stdout


def test_a_vote_and_its_result(server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest) -> None:
    agent = client.agents.register("a", ttl_s=600)
    decision = client.decisions.create(
        pb.Decision(
            question="roll back?",
            options=[pb.DecisionOption(id="yes"), pb.DecisionOption(id="no")],
            method=pb.DECISION_METHOD_CONSENSUS,
            electors=[pb.Elector(agent=agent.name)],
        )
    )
    done = holdfast(server, request, "decisions", "vote", decision.name, "--agent", "a", "--option", "yes")
    assert "DECIDED" in done.stdout
    again = holdfast(server, request, "decisions", "vote", decision.name, "--agent", "a", "--option", "no")
    assert again.returncode == 1
    assert "DECISION_CLOSED" in again.stderr
    assert "DECIDED" in holdfast(server, request, "decisions", "list", "--filter", "state = DECIDED").stdout


def test_work_is_listed_cancelled_and_tried_again(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest
) -> None:
    client.agents.register("a", Agent(capabilities=[Capability(id="build")], max_concurrency=2), ttl_s=600)
    asked = Activation(selector=AgentSelector(all_of=["build"]), retry_policy=RetryPolicy(max_attempts=1))
    created = client.activations.create(asked)
    listed = holdfast(server, request, "activations", "list", "--filter", "state = ASSIGNED").stdout.splitlines()
    assert listed[1].split()[:4] == [created.name.rsplit("/", 1)[1], "ASSIGNED", "a", "1/1"]
    assert "CANCELLED" in holdfast(server, request, "activations", "cancel", created.name).stdout
    refused = holdfast(server, request, "activations", "cancel", created.name)
    assert (refused.returncode, "ACTIVATION_CLOSED" in refused.stderr) == (1, True)
    failing = client.activations.create(asked)
    (assigned,) = client.activations.fetch("a", wait_s=10)
    client.activations.accept(failing.name, assigned.fence)
    client.activations.fail(failing.name, assigned.fence, ActivationFailure(reason="R", retryable=True))
    assert "DEAD_LETTERED" in holdfast(server, request, "activations", "list").stdout
    assert holdfast(server, request, "activations", "requeue", failing.name).returncode == 0


def test_a_lock_is_shown_and_taken_away(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest
) -> None:
    lease = client.leases.grant(60)
    lock = client.locks.acquire("deploy", holder="me", lease=lease.name)
    listed = holdfast(server, request, "locks", "list").stdout
    assert ["deploy", "HELD", "me", str(lock.fence), "0"] == listed.splitlines()[1].split()[:5]
    assert "DELAYED" in holdfast(server, request, "locks", "force-release", "deploy", "--reason", "hangs").stdout
    client.elections.campaign("chief", candidate="me", lease=lease.name, value=b"10.0.0.7:80", wait_s=0)
    shown = holdfast(server, request, "elections", "get", "chief").stdout.splitlines()[1]
    assert shown.split()[:2] == ["chief", "me"]
    assert "10.0.0.7:80" in shown


def test_a_watch_tells_each_change_until_it_is_interrupted(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest
) -> None:
    client.agents.register("a", ttl_s=600)
    namespace = request.node.name.replace("_", "-")[:60]
    command = [sys.executable, "-m", "holdfast", "agents", "watch", "--json", "--target", server.grpc]
    with subprocess.Popen([*command, "--namespace", namespace], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["name"].endswith("/a")
        client.agents.register("b", ttl_s=600)
        told = json.loads(watching.stdout.readline())
        assert (told["event"], told["name"].rsplit("/")[-1]) == ("ADDED", "b")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["agents", "get", "nope"], 1, "AGENT_NOT_FOUND"),
        (["agents", "list", "--filter", "colour = red"], 3, "filter"),
        (["agents", "get", "a/b/c"], 3, "is no id"),
        (["agents", "list", "--timeout", "0"], 3, "timeout"),
        (["locks", "list", "--nothing"], 3, "--nothing"),
    ],
)
def test_failures_have_codes_and_say_why(
    server: ServerProcess, request: pytest.FixtureRequest, args: list[str], code: int, told: str
) -> None:
    namespace = ["--target", server.grpc, "--namespace", "failures"]
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *args, *namespace], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code
    assert told in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("target", ["127.0.0.1:1", "no-such-host.invalid:50051"])
def test_where_no_server_answers_it_says_what_to_look_at(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "agents", "list", "--target", target, "--timeout", "1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"no server answers at {target}" in done.stderr
    assert "holdfast serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_target_that_is_none_is_wrong_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "agents", "list", "--target", "localhost"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "HOST:PORT" in done.stderr


def test_a_reader_that_leaves_is_no_failure(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest
) -> None:
    client.agents.register_batch({f"a{n}": Agent(display_name="x" * 200) for n in range(1000)})
    namespace = request.node.name.replace("_", "-")[:60]
    command = [sys.executable, "-m", "holdfast", "agents", "list", "--json", "--target", server.grpc]
    with subprocess.Popen(
        [*command, "--namespace", namespace], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
        assert listing.wait(20) == 0


def test_names_do_not_reach_the_terminal_as_commands(
    server: ServerProcess, client: sync.Client, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    client.agents.register("a", Agent(display_name="\x1b[2Jgone"), ttl_s=600)
    for args in (["agents", "get", "a"], ["agents", "list"]):
        shown = holdfast(server, request, *args).stdout
        assert "\x1b" not in shown
    assert "\\x1b[2Jgone" in holdfast(server, request, "agents", "get", "a").stdout


def fail(client: sync.Client, times: int) -> None:
    """Has the agent `a` fail so often in a row."""
    for _ in range(times):
        client.activations.create(
            Activation(selector=AgentSelector(all_of=["build"]), retry_policy=RetryPolicy(max_attempts=1))
        )
        (assigned,) = client.activations.fetch("a", wait_s=10)
        client.activations.accept(assigned.name, assigned.fence)
        client.activations.fail(assigned.name, assigned.fence, ActivationFailure(reason="FLAKY", retryable=True))


def test_a_breaker_is_seen_and_reset_and_stays_so_when_the_server_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def breakers(server: ServerProcess, *args: str) -> list[list[str]]:
        done = holdfast(server, request, "agents", *args)
        assert done.returncode == 0, done.stderr
        return [line.split()[:3] for line in done.stdout.splitlines()[1:]]

    namespace = request.node.name.replace("_", "-")[:60]
    with ServerProcess(tmp_path) as server:
        with sync.Client(server.grpc, namespace=namespace) as client:
            client.agents.register("a", Agent(capabilities=[Capability(id="build")]), ttl_s=600)
            fail(client, FAILURES_MAX)
        assert breakers(server, "breakers", "--filter", "state = OPEN") == [["a", "OPEN", "3"]]
        assert breakers(server, "reset-breaker", "a") == [["a", "CLOSED", "0"]]
        server.kill()
    with ServerProcess(tmp_path) as server:
        assert breakers(server, "breakers") == [["a", "CLOSED", "0"]]
        refused = holdfast(server, request, "agents", "reset-breaker", "nobody")
        assert (refused.returncode, "AGENT_NOT_FOUND" in refused.stderr) == (1, True)


def test_a_server_told_so_opens_no_breaker(tmp_path: Path) -> None:
    """By its file, or by its flag, which wins; a number that is none is refused before anything is touched."""
    config = tmp_path / "serve.toml"
    config.write_text("breaker-failures = 0\n")
    with (
        ServerProcess(tmp_path, "--config", str(config)) as server,
        sync.Client(server.grpc) as client,
    ):
        client.agents.register("a", Agent(capabilities=[Capability(id="build")]), ttl_s=600)
        fail(client, 2 * FAILURES_MAX)
        assert [each.failures for each in client.breakers.list("state = CLOSED")] == [2 * FAILURES_MAX]
        server.kill()
    with (
        ServerProcess(tmp_path, "--config", str(config), "--breaker-failures", "1") as server,
        sync.Client(server.grpc) as client,
    ):
        fail(client, 1)
        assert [each.agent.rsplit("/", 1)[1] for each in client.breakers.list("state = OPEN")] == ["a"]
    config.write_text("breaker-failures = -1\n")
    wrong = subprocess.run(
        [sys.executable, "-m", "holdfast", "serve", "--config", str(config), "--store", f"sqlite:{tmp_path / 'no.db'}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert wrong.returncode == 3
    assert "breaker-failures" in wrong.stderr
    assert not (tmp_path / "no.db").exists()
