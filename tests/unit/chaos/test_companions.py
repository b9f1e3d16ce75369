"""Further processes of an experiment: what their commands say, and every wrong use refused before anything starts."""

from pathlib import Path

import pytest

from holdfast.cli import InputError
from holdfast_chaos.companions import Companion, members
from holdfast_chaos.experiment import load_experiment
from holdfast_chaos.planning import make_plan

KILL = "kill: {target: agents, share: 0.2, restart_after: 5s}"

EXPERIMENT = """\
apiVersion: holdfast/v1
kind: Experiment
metadata: {name: with-agents}
target: {command: [server, "{grpc}"]}
processes:
  agents:
    command: [agent, "{proxy}", "{http}", "{history}", "{index}", "{pace}"]
    metrics: http://{http}/metrics
    count: 10
    values: {pace: 0.5}
load:
  arrivals: [{rate: 200/s}]
  mix: [{call: my.pkg.Users/ListUsers, request: {page_size: 20}}]
faults:
  - {id: agents-die, at: 15s, kill: {target: agents, share: 0.2, restart_after: 5s}}
objectives:
  - {openslo: activation-success.yaml, phases: ["fault:*", recovery], pooled: true}
checks: [slots-exact]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "exp.yaml"
    path.write_text(text)
    return str(path)


def test_commands_get_what_the_run_knows_and_the_entry_says() -> None:
    """The run's placeholders, the entry's values and addresses of its own are filled in; other braces are left."""
    entry = Companion(command=["x", "{proxy}", "{http}", "{pace}", "{0}"], values={"pace": 0.5}, count=2)
    assert entry.addresses == ["http"]
    assert entry.names("agents") == ["agents-0", "agents-1"]
    given = {"proxy": "127.0.0.1:1", "http": "127.0.0.1:2"}
    assert [entry.filled(part, given) for part in entry.command] == ["x", "127.0.0.1:1", "127.0.0.1:2", "0.5", "{0}"]


def test_a_fault_means_all_processes_of_an_entry_in_their_order() -> None:
    """A name is one process, or those of an entry by number; no other whose name begins alike."""
    processes = ["server", "agents-10", "agents-2", "agents-x-1", "agents"]
    assert members("server", processes) == ["server"]
    assert members("agents", processes[:-1]) == ["agents-2", "agents-10"]
    assert members("nobody", processes) == []


def test_a_plan_says_what_is_started_and_judged_as_one(tmp_path: Path) -> None:
    """`plan` names the processes, and pooled phases are one row whose samples nobody can foretell."""
    plan = make_plan(load_experiment(written(tmp_path, EXPERIMENT)))
    assert "10 agents" in plan.starts
    (sample,) = plan.samples
    assert (sample.phase, sample.expected, sample.enough) == ("fault:agents-die, recovery", None, None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  agents:\n", "  server:\n", ["processes.server", "every run has"]),
        ("  agents:\n", "  toxiproxy:\n", ["processes.toxiproxy", "every run has"]),
        ("  agents:\n", "  agents-1:\n", ["processes.agents-1", "does not end in a number"]),
        ("  agents:\n", "  Agents:\n", ["processes", "Agents"]),
        ("count: 10", "count: 0", ["processes.agents.count", "0"]),
        ("count: 10", "count: 1000", ["processes.agents.count", "1000"]),
        ("values: {pace: 0.5}", "values: {pace: 0.5, speed: 1}", ["processes.agents", "{speed}"]),
        ("values: {pace: 0.5}", "values: {pace: 0.5, proxy: x}", ["processes.agents.values", "proxy", "rename"]),
        ("http://{http}/metrics", "ftp://{http}/metrics", ["processes.agents.metrics"]),
        ("target: agents", "target: callers", ["faults.0.kill.target", "agents, server"]),
        ("share: 0.2", "share: 0", ["faults.0.kill.share"]),
        ("share: 0.2", "share: 0.2, count: 2", ["faults.0.kill", "either `count` or `share`"]),
        ("share: 0.2", "count: 11", ["faults.0.kill", "at most 10"]),
        (KILL, "timeout: {target: agents, count: 11}", ["faults.0.timeout", "at most 10"]),
        (KILL, "for: 9s, timeout: {target: callers}", ["faults.0.timeout.target", "agents, server"]),
        (KILL, "for: 9s, timeout: {count: 2}", ["faults.0.timeout", "target: <entry of processes>"]),
        (KILL, "for: 9s, latency: {delay: 1s, share: 0.5}", ["faults.0.latency", "target: <entry of processes>"]),
        (KILL, "for: 9s, reset_peer: {target: server, share: 0.5}", ["faults.0.reset_peer", "everybody's"]),
        ('"{history}", ', "", ["checks.0", "{history}"]),
        ("[slots-exact]", "[slots-exakt]", ["checks.0", "slots-exakt"]),
    ],
)
def test_what_is_wrong_with_processes_is_said_with_its_place(
    tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    """Names, counts, placeholders, aims and checks that do not fit are refused by line and key."""
    assert old in EXPERIMENT
    with pytest.raises(InputError) as raised:
        load_experiment(written(tmp_path, EXPERIMENT.replace(old, new)))
    for text in ["exp.yaml:", *said]:
        assert text in raised.value.message


def test_only_processes_that_are_told_of_their_proxies_can_be_cut_off(tmp_path: Path) -> None:
    """A fault on connections that do not go through Toxiproxy is refused: it would bite nobody."""
    cut = EXPERIMENT.replace(KILL, "for: 9s, timeout: {target: agents}")
    load_experiment(written(tmp_path, cut))
    with pytest.raises(InputError, match=r"`\{proxy\}` in its `command`; 'agents' has none"):
        load_experiment(written(tmp_path, cut.replace('"{proxy}"', '"{target}"')))
