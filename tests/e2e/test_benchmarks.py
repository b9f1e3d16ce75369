"""Each benchmark runs, in its short form, against real servers, and prints its lines. Nothing is said of speed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

COMPARED = {
    "register_durable": ("bare grpc.aio echo", 2),
    "fleet_bringup": ("etcd", 2),
    "keepalive": ("etcd LeaseKeepAlive", 2),
    "watch_fanout": ("bare grpc.aio stream", 1),
    "restart": ("etcd", 3),
    "coordination": ("bare grpc.aio calls", 2),
    "http2_codec": ("h2", 3),
}
"""The peer of each, and how many lines it prints."""

GENERATORS = {"load_cpu": 5, "omission": 3}
"""Those that hold our generator of load against others: how many lines each prints."""

GROWN_KB_MAX = 2_000
"""Buckets of latencies that had not been seen, and what allocators keep."""

KB_PER_CALL_MAX = 0.1
"""Any object that is kept for each call takes more."""

FIELDS = {"name", "peer", "metric", "ours", "theirs", "unit", "ratio", "ci_low", "ci_high", "rounds"}


def lines_of(*arguments: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(TESTS)}
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("name", COMPARED)
def test_a_benchmark_prints_a_line_for_each_metric_with_both_sides_and_their_ratio(name: str) -> None:
    lines, (peer, count) = lines_of("--short", name), COMPARED[name]

    assert len({line["metric"] for line in lines}) == len(lines) == count
    for line in lines:
        assert set(line) == FIELDS
        assert (line["name"], line["peer"]) == (name, peer)
        for side in ("ours", "theirs", "ratio"):
            value = line[side]
            assert isinstance(value, float)
            assert math.isfinite(value)
        assert line["rounds"] in (1, 2)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_benchmark_of_load_generators_prints_a_line_for_each_peer(name: str) -> None:
    lines = lines_of("--short", name)

    assert len({(line["peer"], line["metric"]) for line in lines}) == len(lines) == GENERATORS[name]
    for line in lines:
        assert set(line) == FIELDS
        assert line["name"] == name
        assert all(isinstance(line[side], float) for side in ("ours", "theirs", "ratio"))


def test_a_benchmark_without_a_peer_prints_figures_in_the_same_fields() -> None:
    lines = lines_of("--short", "fleet_100k")

    assert {str(line["metric"]).split(",")[0] for line in lines} == {
        *("registered", "memory per agent", "got", "listed", "filtered", "matched", "watched")
    }
    for line in lines:
        assert set(line) == FIELDS
        assert line["peer"] is line["theirs"] is line["ratio"] is None
        assert isinstance(line["ours"], float)


def test_a_load_takes_no_more_memory_the_longer_it_lasts() -> None:
    """As many calls as a machine makes that is busy or not: none waits, so that a slow one fills no backlog."""
    found = {str(line["metric"]): float(str(line["ours"])) for line in lines_of("--short", "load_memory")}

    calls, settled_kb = found["calls in 6 s"], found["memory after 0.6 s"]
    assert calls > 2_000, "too few to tell"
    assert settled_kb > 0
    assert found["memory after 0.6 s, most"] - settled_kb < max(GROWN_KB_MAX, KB_PER_CALL_MAX * calls)


def test_a_benchmark_that_is_not_known_is_refused_with_those_that_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(TESTS)}
    )

    assert ran.returncode != 0
    assert "no benchmark is called speed" in ran.stderr
    assert "register_durable" in ran.stderr
