"""Ends that the generator made itself, over one of its bounds: they are no answer of the server's."""

import json
import subprocess
import sys

from holdfast_loadtests.room import HELD_BYTES_MAX
from support.interop_cases import TEST
from support.interop_servers import interop_server
from support.locust_processes import HEAD, alone

ANSWER_BYTES = 16_000_000
USERS = 60
"""Their first answers together are almost twice what there is room for."""


def test_a_load_whose_answers_the_generator_cannot_hold_is_inconclusive(tmp_path):
    assert USERS * ANSWER_BYTES > 1.7 * HELD_BYTES_MAX
    with interop_server("go", tmp_path) as server:
        arguments = ["--users", str(USERS), "--connections", "4", "--for", "1s", "--deadline", "60s", "--json"]
        arguments += ["-d", json.dumps({"response_size": ANSWER_BYTES}), "--assert", "errors == 0"]
        command = [sys.executable, "-m", "holdfast", "load", server.address, f"{TEST}/UnaryCall", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert found["out_of_room"] > 0, found
    assert found["outcomes"]["indefinite"] >= found["out_of_room"]
    assert found["saturated"].startswith(f"{found['out_of_room']} calls were ended because the answers under way")
    assert done.returncode == 2, done.stdout


SCRIPTED = f"""{HEAD}
class Scripted(GrpcUser):
    wait_time = constant(0.05)

    @task
    def ask(self):
        self.call("{TEST}/EmptyCall")
        for size in (1, 17_000_000):
            request = {{"response_size": size, "response_status": {{"code": 8 if size == 1 else 0}}}}
            with self.call("{TEST}/UnaryCall", request, name=str(size), catch_response=True) as reply:
                assert reply.code == "ResourceExhausted", reply.code
                reply.success()
        self.environment.runner.quit()
"""


def test_a_script_that_expects_resource_exhausted_is_not_satisfied_by_the_generators_own_bound(tmp_path):
    """The server says so of the small answer; of the large one it does not, which is over what the generator takes."""
    with (
        interop_server("go", tmp_path) as server,
        alone(tmp_path, SCRIPTED, "--host", server.address, "--csv", "run") as locust,
    ):
        assert locust.code() != 0, locust.output
    failures = (tmp_path / "run_failures.csv").read_text()
    assert "17000000" in failures
    assert json.loads((tmp_path / "run_holdfast.json").read_text())["errors"] == 1, failures
