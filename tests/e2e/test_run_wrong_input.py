"""A wrong experiment or argument ends 3 with one message that says where and what to do; nothing is left behind."""

import socket
import subprocess
from pathlib import Path

import pytest

from support.runs import SHORT, command, environment, run


def wrong(tmp_path: Path, old: str, new: str) -> Path:
    text = SHORT.read_text()
    assert old in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def line_of(path: Path, text: str) -> int:
    return 1 + next(number for number, line in enumerate(path.read_text().splitlines()) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 11", "sede: 11", ["sede", "seed"]),
        ("baseline: 3s", "baseline: -3s", ["phases.baseline", "-3s"]),
        ("baseline: 3s", "baseline: 3", ["phases.baseline", "3"]),
        ("at: 3s, for: 2500ms", "at: 1s, for: 2s", ["faults.0.at", "1s", "baseline"]),
        ("availability.yaml", "no-such.yaml", ["no-such.yaml", "availability.yaml"]),
        ("latency: {delay", "lattency: {delay", ["lattency", "latency"]),
        ("delay: 100ms", "delay: lots", ["delay", "lots"]),
        ("{{agents.agent_id}}", "{{agents.agent_idd}}", ["agent_idd", "agent_id"]),
        ("csv: agents.csv", "csv: nobody.csv", ["nobody.csv"]),
        ("[baseline, recovery]", "[baseline, recover]", ["recover", "recovery"]),
    ],
)
def test_a_wrong_experiment_is_refused_with_its_place(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    path = wrong(tmp_path, old, new)
    done = run(path, tmp_path)
    assert done.exit_code == 3, done.output
    assert f"wrong.yaml:{line_of(path, new)}:" in done.output
    for text in expected:
        assert text in done.output
    assert "Traceback" not in done.output
    assert not done.out.exists()


def test_a_method_the_target_lacks_is_refused_before_load(tmp_path: Path) -> None:
    path = wrong(tmp_path, "AgentRegistryService/ListAgents", "AgentRegistryService/ListAgentz")
    done = run(path, tmp_path)
    assert done.exit_code == 3, done.output
    assert "ListAgentz" in done.output
    assert "ListAgents" in done.output


def test_a_field_the_message_lacks_is_refused_before_load(tmp_path: Path) -> None:
    done = run(wrong(tmp_path, "page_size: 10", "page_siez: 10"), tmp_path)
    assert done.exit_code == 3, done.output
    assert "page_siez" in done.output


def test_an_address_nothing_listens_on_is_refused(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        done = run(SHORT, tmp_path, f"target={{address: '127.0.0.1:{port}'}}")
    assert done.exit_code == 3, done.output
    assert f"127.0.0.1:{port}" in done.output
    assert not done.out.exists()


def test_a_target_that_is_no_program_is_refused(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path, "target.command=[no-such-server, '{grpc}']", "target.metrics=null")
    assert done.exit_code == 3, done.output
    assert "no-such-server" in done.output
    assert not done.out.exists()


def test_a_missing_tool_is_refused_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_TOOLS", str(tmp_path / "no-tools"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = run(SHORT, tmp_path)
    assert done.exit_code == 3, done.output
    assert "toxiproxy-server" in done.output
    assert "holdfast tools" in done.output
    assert not done.out.exists()


def test_a_target_that_never_serves_is_refused_and_stopped(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path, "target.command=[sleep, '300', '{grpc}']", "target.ready_within=1s")
    assert done.exit_code == 3, done.output
    assert "sleep" in done.output


def test_a_folder_with_other_things_in_it_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    precious = tmp_path / "bundle" / "thesis.txt"
    precious.write_text("ten years of work")
    done = run(SHORT, tmp_path)
    assert done.exit_code == 3, done.output
    assert precious.read_text() == "ten years of work"


def test_an_unknown_experiment_names_the_packaged_ones(tmp_path: Path) -> None:
    done = run("fleet-under-fir", tmp_path)
    assert done.exit_code == 3
    assert "fleet-under-fire" in done.output


def test_a_prometheus_nothing_answers_at_is_refused(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        line = [*command(SHORT, tmp_path / "bundle"), "--prometheus", url]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=60, env=environment(tmp_path / "state"), cwd=tmp_path
        )
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"--prometheus {url}" in done.stderr
    assert not (tmp_path / "bundle").exists()
