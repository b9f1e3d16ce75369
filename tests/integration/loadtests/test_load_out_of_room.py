"""Answers that hold more than one generator may: what it ended itself speaks against nobody."""

import json
import subprocess
import sys

from holdfast_loadtests.room import HELD_BYTES_MAX
from support.interop_cases import TEST
from support.interop_servers import interop_server

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
