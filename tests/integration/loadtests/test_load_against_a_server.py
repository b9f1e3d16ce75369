import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import pairwise

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from holdfast.cli import InputError
from holdfast_loadtests.engine import LoadError, LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.records import read_calls
from holdfast_loadtests.reflection import fetch
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.summary import distinct_rows
from holdfast_loadtests.targets import target_of
from support.echo_server_process import EchoServer

REGISTRY = "holdfast.registry.v1.AgentRegistryService"
NAME = "namespaces/default/agents/{{agents.id}}"
TABLES = {"agents": [{"id": f"agent-{number}"} for number in range(12)]}

REGISTER = {
    "call": f"{REGISTRY}/RegisterAgent",
    "request": {"parent": "namespaces/default", "agent_id": "{{agents.id}}", "request_id": "{{uuid}}"},
    "capture": {"fence": "agent.fence", "lease": "agent.lease"},
}
LIFE = {
    "name": "life",
    "rows": "agents",
    "steps": [
        REGISTER,
        {"call": f"{REGISTRY}/GetAgent", "request": {"name": NAME}, "assert": {"agent.name": NAME}},
        {"call": f"{REGISTRY}/DeregisterAgent", "request": {"name": NAME, "fence": "{{fence}}"}, "always": True},
    ],
}
LIST = {"call": f"{REGISTRY}/ListAgents", "request": {"parent": "namespaces/default"}}


def load_of(**parts):
    return LoadSpec.model_validate({"arrivals": [{"rate": "50/s"}], **parts})


@pytest.fixture
def server():
    with EchoServer() as running:
        yield running


def started(server, spec, out_dir, seed=7):
    return LoadRun.start(LoadPlan(server.address, spec, TABLES, seed), out_dir)


def wait_until(condition, reason, timeout_s=15.0):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {timeout_s} s for {reason}"
        time.sleep(0.02)


def wait_for_calls(run, sent):
    wait_until(lambda: run.snapshot().sent >= sent, f"{sent} calls to be sent, of {run.snapshot()}")


def exposed(run):
    text = requests.get(f"http://{run.metrics_address}/metrics", timeout=20).text
    handled: Counter[tuple[str, str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "grpc_client_handled_total":
                labels = sample.labels
                handled[labels["phase"], labels["grpc_method"], labels["grpc_code"]] += int(sample.value)
    return handled


def test_metrics_record_and_server_agree_on_every_call_by_phase_method_and_code(server, tmp_path):
    twice = {
        "name": "twice",
        "rows": "agents",
        "weight": 0.5,
        "steps": [REGISTER, {**REGISTER, "expect": ["AlreadyExists"]}],
    }
    spec = load_of(scenarios=[LIFE, {**twice, "steps": [*twice["steps"], LIFE["steps"][2]]}], mix=[LIST])
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 60)
        run.set_phase("fault:one")
        wait_for_calls(run, 120)
        run.set_phase("recovery")
        wait_for_calls(run, 180)
        summary = run.finish()
        metrics = exposed(run)
    recorded = Counter((call.phase, call.method, call.code) for call in read_calls(run.record))
    by_server: Counter[str] = Counter()
    for (_, method, code), count in recorded.items():
        by_server[f"{method}/{code}"] += count
    assert recorded == metrics == summary.counts
    assert by_server == server.counts()
    assert {phase for phase, _, _ in recorded} == {"baseline", "fault:one", "recovery"}
    assert by_server["RegisterAgent/AlreadyExists"] > 0
    assert summary.errors == 0, summary.wrong_answers
    assert run.snapshot().counts == summary.counts


@pytest.mark.serial
def test_a_server_frozen_for_two_seconds_shows_in_every_call_that_was_due_meanwhile(server, tmp_path):
    spec = load_of(mix=[LIST], deadline="10s", concurrency=10)
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 50)
        server.freeze()
        frozen_s = time.time()
        wait_until(lambda: time.time() >= frozen_s + 2.0, "the freeze to have lasted two seconds")
        server.thaw()
        thawed_s = time.time()
        run.set_phase("recovery")
        wait_until(lambda: run.snapshot().ok >= 50 * (time.time() - run.started_s) - 40, "the backlog to be worked off")
        summary = run.finish()
    due = [call for call in summary.calls if frozen_s + 0.05 < call.due_s < thawed_s - 0.05]
    assert len(due) >= 85, "50 calls fall due in each second, frozen or not, though only 10 users wait"
    for call in due:
        assert call.latency_ms >= (thawed_s - call.due_s) * 1000 - 20, "waiting began when the call was due"
    assert 1850 < max(call.latency_ms for call in due) < 3500
    assert all(call.code == "OK" for call in due)
    assert summary.lag_p99_ms < 50, "waiting for a frozen server is not the generator's lateness"
    assert summary.saturated == ""


def test_one_seed_gives_the_same_calls_with_the_same_bodies_in_the_same_order_and_another_seed_others(server, tmp_path):
    def recorded(seed, folder):
        folder.mkdir()
        with started(server, load_of(scenarios=[LIFE], mix=[LIST]), folder, seed) as run:
            wait_for_calls(run, 60)
            run.finish()
        calls = sorted(read_calls(folder / "calls.csv.gz"), key=lambda call: (call.ordinal, call.step))
        first_s = run.started_s
        seen = [(call.ordinal, call.step, call.scenario, call.row, call.method, call.request) for call in calls]
        offsets_s = [call.due_s - first_s for call in calls if call.step == 0]
        return [entry for entry in seen if entry[1] == 0][:30], offsets_s[:30]

    calls, offsets_s = recorded(3, tmp_path / "a")
    again, offsets_again_s = recorded(3, tmp_path / "b")
    other, _ = recorded(4, tmp_path / "c")
    assert calls == again
    assert offsets_s == pytest.approx(offsets_again_s, abs=1e-5)
    assert calls != other


def test_calls_due_before_a_phase_begins_keep_the_old_label_though_they_end_in_the_new_one(server, tmp_path):
    tables = {"agents": [{"id": f"slow-{number}"} for number in range(50)]}
    spec = load_of(scenarios=[{"name": "slow", "rows": "agents", "steps": [REGISTER]}])
    with LoadRun.start(LoadPlan(server.address, spec, tables, 1), tmp_path) as run:
        wait_until(lambda: run.snapshot().in_flight >= 10, "calls to be in flight")
        since_s = run.set_phase("recovery")
        wait_until(lambda: run.snapshot().ok >= 15, "calls to end")
        summary = run.finish()
    assert all((call.phase == "baseline") == (call.due_s < since_s) for call in summary.calls)
    crossing = [call for call in summary.calls if call.due_s < since_s < call.done_s]
    assert len(crossing) >= 5, "registrations of slow agents take a second"


def test_a_row_is_held_by_one_life_at_a_time(server, tmp_path):
    spec = load_of(arrivals=[{"rate": "60/s", "process": "poisson"}], scenarios=[LIFE], concurrency=40)
    with LoadRun.start(LoadPlan(server.address, spec, {"agents": TABLES["agents"][:3]}, 5), tmp_path) as run:
        wait_for_calls(run, 150)
        summary = run.finish()
    assert summary.errors == summary.never_sent, summary.wrong_answers  # those still waiting for a row at the end
    lives = defaultdict(list)
    for call in summary.calls:
        lives[call.row, call.ordinal].append(call)
    for row in range(3):
        own = [calls for (held, _), calls in lives.items() if held == row]
        spans = sorted((min(call.sent_s for call in calls), max(call.done_s for call in calls)) for calls in own)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert distinct_rows(summary.calls, "RegisterAgent") == {0, 1, 2}


def test_a_killed_worker_is_an_error_that_names_the_signal_and_leaves_a_readable_record(server, tmp_path):
    with started(server, load_of(mix=[LIST]), tmp_path) as run:
        wait_for_calls(run, 30)
        psutil.Process(run.pid).kill()
        wait_until(lambda: not run.alive(), "the worker to be gone")
        with pytest.raises(LoadError, match="killed by signal 9"):
            run.finish()
        with pytest.raises(LoadError, match="killed by signal 9"):
            run.set_phase("recovery")
    assert len(list(read_calls(run.record))) > 0


def test_a_worker_ends_when_its_parent_is_killed(server, tmp_path):
    parent = (
        "import sys, time; from pathlib import Path; from holdfast_loadtests.engine import *; "
        "from holdfast_loadtests.spec import LoadSpec; "
        f"spec = LoadSpec.model_validate({{'arrivals': [{{'rate': '20/s'}}], 'mix': [{LIST!r}]}}); "
        f"run = LoadRun.start(LoadPlan({server.address!r}, spec, {{}}, 1), Path({str(tmp_path)!r})); "
        "exec('while run.snapshot().sent < 5: time.sleep(0.02)'); print(run.pid, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    worker = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker to notice")
    assert len(list(read_calls(tmp_path / "calls.csv.gz"))) >= 5, "an orphan closes its record before it goes"


def test_a_killed_server_gives_lost_then_refused_calls_and_until_definite_outlives_it(server, tmp_path):
    steps = [{**LIST, "until_definite": "20s"}]
    spec = load_of(scenarios=[{"name": "stubborn", "steps": steps}], mix=[LIST], concurrency=30)
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 40)
        server.kill()
        run.set_phase("fault:crash")
        wait_until(lambda: run.snapshot().errors >= 25, "calls to fail")
        with server.restarted():
            run.set_phase("recovery")
            ok = run.snapshot().ok
            wait_until(lambda: run.snapshot().ok >= ok + 60, "calls to succeed again")
            summary = run.finish()
    failed = [call for call in summary.calls if call.code != "OK"]
    assert {call.code for call in failed} == {"Unavailable"}
    assert {call.error_class for call in failed} <= {"refused", "reset"}, {call.note for call in failed}
    assert all(call.outcome == "refused" for call in failed if "refused" in call.note.lower())
    retried = [call for call in summary.calls if call.scenario == "stubborn" and call.attempt > 1]
    assert any(call.code == "OK" for call in retried)
    assert not [call for call in summary.calls if call.scenario == "ListAgents" and call.attempt > 1]
    assert summary.latency_by_phase["recovery"].count > 0


def test_calls_that_could_not_be_sent_by_the_end_are_recorded_as_never_sent(server, tmp_path):
    spec = load_of(mix=[LIST], deadline="500ms", concurrency=1)
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 10)
        server.freeze()
        frozen_s = time.time()
        wait_until(lambda: time.time() >= frozen_s + 2.0, "calls to pile up behind the frozen server")
        summary = run.finish()
        metrics = exposed(run)
    never = [call for call in summary.calls if call.outcome == "never_sent"]
    assert len(never) == summary.never_sent > 50
    assert sorted(call.ordinal for call in summary.calls) == list(range(summary.due)), "no call that was due is missing"
    assert ("baseline", "ListAgents", "NeverSent") not in metrics, "what was not sent was not answered either"
    assert summary.counts["baseline", "ListAgents", "NeverSent"] == summary.never_sent
    assert "were sent" in summary.saturated


def test_wrong_answers_are_kept_with_what_was_found_and_expected(server, tmp_path):
    wrong = {**LIST, "assert": {"revision": 8}}
    missing = {"call": f"{REGISTRY}/GetAgent", "request": {"name": "x"}}
    spec = load_of(scenarios=[{"name": "wrong", "steps": [wrong, LIST]}], mix=[missing])
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 20)
        summary = run.finish()
    notes = {call.note for call in summary.wrong_answers}
    assert notes == {"revision is 7, expected 8", "GetAgent: NotFound"}
    assert summary.wrong == summary.errors == summary.sent
    assert {call.step for call in summary.calls} == {0}, "a failed step ends its scenario"


def test_a_step_that_uses_what_was_not_captured_is_left_out(server, tmp_path):
    register = {**REGISTER, "expect": ["OK", "AlreadyExists"]}
    asserted = {"call": f"{REGISTRY}/GetAgent", "request": {"name": NAME}, "assert": {"agent.fence": "{{fence}}"}}
    spec = load_of(scenarios=[{"name": "stay", "rows": "agents", "steps": [register, asserted, LIST]}])
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 90)
        summary = run.finish()
    assert summary.errors == 0, summary.wrong_answers
    assert summary.counts["baseline", "GetAgent", "OK"] == len(TABLES["agents"]), "only a first life captured a fence"
    assert summary.counts["baseline", "RegisterAgent", "AlreadyExists"] > 10
    assert summary.counts["baseline", "ListAgents", "OK"] > 20, "the steps after it run on"


def test_streams_end_as_ok_after_the_messages_asked_for(server, tmp_path):
    steps = [
        REGISTER,
        {
            "call": "holdfast.registry.v1.LeaseService/KeepLeaseAlive",
            "messages": [{"leases": ["{{lease}}"]}] * 3,
            "assert": {"results.0.lease": "{{lease}}"},
        },
        {"call": f"{REGISTRY}/WatchAgents", "request": {"parent": "p"}, "receive": 3, "assert": {"revision": 3}},
        {"call": "holdfast.registry.v1.LeaseService/KeepLeaseAlive", "messages": [{}], "receive": 2},
        LIFE["steps"][2],
    ]
    spec = load_of(arrivals=[{"rate": "20/s"}], scenarios=[{"name": "streams", "rows": "agents", "steps": steps}])
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 50)
        summary = run.finish()
    kinds = {call.type for call in summary.calls}
    assert kinds == {"unary", "bidi_stream", "server_stream"}
    assert {call.code for call in summary.calls} == {"OK"}
    short = [call for call in summary.calls if not call.expected]
    assert {call.step for call in short} == {3}
    assert short[0].note == "the stream ended after 1 of 2 messages"


def test_users_of_the_closed_model_call_one_after_the_other(server, tmp_path):
    spec = LoadSpec.model_validate({"users": 3, "scenarios": [LIFE]})
    with started(server, spec, tmp_path) as run:
        wait_for_calls(run, 60)
        summary = run.finish()
    assert summary.errors == 0, summary.wrong_answers
    edges = sorted([(c.sent_s, 1) for c in summary.calls] + [(c.done_s, -1) for c in summary.calls])
    running, most = 0, 0
    for _, step in edges:
        running += step
        most = max(most, running)
    assert most <= 3
    assert {call.connection for call in summary.calls} == {0, 1, 2}


def test_a_load_that_does_not_fit_the_target_is_wrong_input_and_starts_nothing(server, tmp_path):
    spec = load_of(mix=[{"call": f"{REGISTRY}/ListAgents", "request": {"page_sise": 3}}])
    with pytest.raises(InputError, match="did you mean 'page_size'"):
        started(server, spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_proves_unfit_only_during_the_run_ends_the_load_with_its_reason(server, tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast_loadtests.calls.ROWS_TRIED_MAX", 1)
    sized = {"call": f"{REGISTRY}/ListAgents", "request": {"page_size": "{{sizes.size}}"}}
    plan = LoadPlan(server.address, load_of(mix=[sized]), {"sizes": [{"size": "1"}, {"size": "many"}]}, 1)
    with LoadRun.start(plan, tmp_path) as run:
        wait_until(lambda: not run.alive(), "the load to end")
        with pytest.raises(LoadError, match="many"):
            run.finish()


def test_an_address_where_nothing_listens_is_wrong_input_and_starts_nothing(tmp_path):
    with EchoServer() as gone:
        address = gone.address
    with pytest.raises(InputError, match="nothing that speaks gRPC answers there"):
        LoadRun.start(LoadPlan(address, load_of(mix=[LIST]), TABLES, 1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reflection_finds_services_of_the_target_and_their_methods(server):
    descriptors = fetch(target_of(server.address))
    assert descriptors.services == [REGISTRY, "holdfast.registry.v1.LeaseService"]
    assert descriptors.method(f"{REGISTRY}/WatchAgents").grpc_type == "server_stream"


def test_the_parent_imports_neither_the_loop_of_the_load_nor_locust():
    code = (
        "import sys, holdfast_loadtests.engine, holdfast_loadtests.reflection; "
        "print([name for name in ('uvloop', 'locust', 'gevent') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
