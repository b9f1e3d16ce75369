"""Each way a run can lie must not end 0; the run without sabotage does."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from support.runs import SHORT, Run, command, environment, run

pytestmark = pytest.mark.experiment

IMPOSSIBLE = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: impossible}
spec:
  service: any
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  objectives: [{target: 0.99}]
  indicator:
    metadata: {name: impossible}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'grpc_client_handled_total{grpc_code="Never"}'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'grpc_client_handled_total'}}}
"""


def wait_for(what: str, condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {within_s:g} s"
        time.sleep(0.05)


def events(out: Path) -> list[dict]:
    """The journal's whole lines so far."""
    path = out / "journal.jsonl"
    return (
        [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if path.exists()
        else []
    )


def has(out: Path, event: str) -> bool:
    return any(entry["event"] == event for entry in events(out))


def processes(out: Path) -> dict[str, psutil.Process]:
    """The processes a run has journalled and that still run, by name."""
    found = {}
    for entry in events(out):
        if entry["event"] == "process_started":
            identity = entry["identity"]
            if psutil.pid_exists(identity["pid"]):
                process = psutil.Process(identity["pid"])
                if (
                    abs(process.create_time() - identity["create_time"]) < 2
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found[entry["name"]] = process
    return found


def start(tmp_path: Path, *sets: str) -> tuple[subprocess.Popen[str], Path]:
    """A run that goes on while the test interferes."""
    out = tmp_path / "bundle"
    process = subprocess.Popen(
        command(SHORT, out, *sets), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(tmp_path / "state"), cwd=tmp_path,
    )  # fmt: skip
    return process, out


def finish(process: subprocess.Popen[str], out: Path) -> Run:
    output, _ = process.communicate(timeout=120)
    return Run(process.returncode, output, out)


def test_an_unsabotaged_run_passes_and_leaves_nothing_running(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path)
    assert done.exit_code == 0, done.output
    verdict = done.verdict
    assert verdict["verdict"] == "PASS"
    assert [fault["verdict"] for fault in verdict["faults"]] == ["EFFECTIVE"]
    assert {objective["verdict"] for objective in verdict["objectives"]} == {"PASS"}
    assert all(objective["total"] > 0 for objective in verdict["objectives"])
    assert verdict["reconciliation"]["difference"] <= verdict["reconciliation"]["allowed"]
    assert processes(done.out) == {}
    assert not has(done.out, "undone"), "something was left to the clean-up that the run should have stopped itself"
    for name in ("report.html", "junit.xml", "summary.md", "timeline.json", "samples.json"):
        assert (done.out / name).is_file(), name


def test_a_load_with_an_end_lasts_until_the_run_is_over_and_answers_do_not_abort_it(tmp_path: Path) -> None:
    call = "holdfast.registry.v1.AgentRegistryService/GetAgent"  # of agents that nobody registered
    mix = f"[{{call: {call}, request: {{name: 'namespaces/default/agents/{{{{agents.agent_id}}}}'}}}}]"
    load = f"load={{arrivals: [{{rate: 20/s, for: 14s}}], mix: {mix}}}"
    done = run(SHORT, tmp_path, load, "abort=[{when: error_ratio > 0.5, for: 2s}]")
    assert done.exit_code == 0, done.output


class _CallerOfOthers(BaseHTTPRequestHandler):
    """The metrics of a target that calls other services itself, under the names that the load uses."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'grpc_client_handled_total{grpc_code="Unavailable"} 1000\n')

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_calls_that_the_target_makes_itself_are_not_the_load_s(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _CallerOfOthers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = run(SHORT, tmp_path, f"target.metrics='http://127.0.0.1:{server.server_port}/metrics'")
        server.shutdown()
    assert done.exit_code == 0, done.output


def test_an_objective_no_server_could_meet_fails(tmp_path: Path) -> None:
    (tmp_path / "impossible.yaml").write_text(IMPOSSIBLE)
    done = run(SHORT, tmp_path, f"objectives=[{{openslo: {tmp_path}/impossible.yaml, phases: [baseline]}}]")
    assert done.exit_code == 1, done.output
    assert "BASELINE_VIOLATED" in done.codes
    assert not has(done.out, "intent"), "a fault was injected though the baseline did not hold"


def test_an_objective_violated_only_later_fails(tmp_path: Path) -> None:
    (tmp_path / "impossible.yaml").write_text(IMPOSSIBLE)
    done = run(SHORT, tmp_path, f"objectives=[{{openslo: {tmp_path}/impossible.yaml, phases: [recovery]}}]")
    assert done.exit_code == 1, done.output
    assert "OBJECTIVE_VIOLATED" in done.codes


def test_a_load_that_bypasses_toxiproxy_is_inconclusive_and_names_the_fault(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path, "load.via=direct")
    assert done.exit_code == 2, done.output
    assert done.subjects("FAULT_INEFFECTIVE") == {"slow-net"}
    assert "slow-net" in done.output


@pytest.mark.parametrize("nothing", ["{delay: 100ms, toxicity: 0.000001}", "{delay: 0s}"])
def test_a_fault_that_does_nothing_is_inconclusive(tmp_path: Path, nothing: str) -> None:
    done = run(SHORT, tmp_path, f"faults.slow-net.latency={nothing}")
    assert done.exit_code == 2, done.output
    assert done.subjects("FAULT_INEFFECTIVE") | done.subjects("FAULT_UNPROVEN") == {"slow-net"}


def test_a_prometheus_stopped_half_way_is_inconclusive(tmp_path: Path) -> None:
    process, out = start(tmp_path)
    wait_for("the fault", lambda: has(out, "injected"))
    processes(out)["prometheus"].kill()
    done = finish(process, out)
    assert done.exit_code == 2, done.output
    assert "PROMETHEUS_UNREACHABLE" in done.codes


def test_a_load_generator_that_dies_is_inconclusive(tmp_path: Path) -> None:
    process, out = start(tmp_path)
    wait_for("the fault", lambda: has(out, "injected"))
    processes(out)["load"].kill()
    done = finish(process, out)
    assert done.exit_code == 2, done.output
    assert "LOAD_FAILED" in done.codes
    assert has(out, "healed")


@pytest.mark.parametrize("moment", ['"injected"', '"name": "recovery"'])
def test_a_toxiproxy_that_dies_says_nothing_of_the_target(tmp_path: Path, moment: str) -> None:
    process, out = start(tmp_path)
    wait_for(moment, lambda: (out / "journal.jsonl").exists() and moment in (out / "journal.jsonl").read_text())
    processes(out)["toxiproxy"].kill()
    done = finish(process, out)
    assert done.exit_code == 2, done.output
    assert done.subjects("RUN_FAILED") == {"toxiproxy"}


def test_a_target_that_dies_by_itself_fails(tmp_path: Path) -> None:
    process, out = start(tmp_path)
    wait_for("the fault", lambda: has(out, "injected"))
    processes(out)["server"].kill()
    done = finish(process, out)
    assert done.exit_code == 1, done.output
    assert "TARGET_DIED" in done.codes


def test_a_run_without_objectives_is_inconclusive(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path, "objectives=[]", "faults=[]", "phases.baseline=1s", "phases.recovery=1s")
    assert done.exit_code == 2, done.output
    assert "NO_OBJECTIVES" in done.codes


def test_too_few_samples_are_inconclusive(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path, "objectives.0.target=0.9999", "phases.extend_up_to=0s")
    assert done.exit_code == 2, done.output
    assert "TOO_FEW_SAMPLES" in done.codes


def test_a_run_ended_by_the_user_heals_and_is_inconclusive(tmp_path: Path) -> None:
    process, out = start(tmp_path)
    wait_for("the fault", lambda: has(out, "injected"))
    process.send_signal(signal.SIGINT)
    done = finish(process, out)
    assert done.exit_code == 2, done.output
    assert "INTERRUPTED" in done.codes
    assert has(out, "healed")
    assert processes(out) == {}


@pytest.mark.parametrize("watched", [True, False], ids=["with-watchdog", "watchdog-killed-too"])
def test_after_a_sigkill_during_a_fault_recover_leaves_nothing(tmp_path: Path, watched: bool) -> None:
    process, out = start(tmp_path, "faults.slow-net.for=60s")
    wait_for("the fault", lambda: has(out, "injected"))
    before = processes(out)
    assert {"server", "toxiproxy", "prometheus", "load"} <= before.keys()
    if not watched:
        (watchdog,) = [
            child for child in psutil.Process(process.pid).children() if "holdfast_chaos.watchdog" in child.cmdline()
        ]
        watchdog.kill()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    if watched:
        wait_for("the watchdog's clean-up", lambda: processes(out) == {}, within_s=20)

    recover = [command(SHORT, out)[0], "-m", "holdfast", "recover"]
    first = subprocess.run(recover, capture_output=True, text=True, env=environment(tmp_path / "state"), timeout=60)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "slow-net" in first.stdout
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in before.values())
    again = subprocess.run(recover, capture_output=True, text=True, env=environment(tmp_path / "state"), timeout=60)
    assert again.returncode == 0
    assert "slow-net" not in again.stdout, "recover claims to have undone the same thing twice"
