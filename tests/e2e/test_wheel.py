"""The built wheel works by itself, in an empty environment outside the repository."""

import json
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT_RUN = [
    "phases.baseline=3s",
    "phases.recovery=3s",
    "phases.extend_up_to=1s",
    "recovery.within=3s",
    "faults=[{id: crash, at: 3s, kill: {target: server, restart_after: 500ms}}]",
    "objectives=[{openslo: latency-p95.yaml, phases: [baseline, recovery]}]",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def install(wheel: Path, folder: Path, extra: str = "") -> Path:
    """An empty environment with the wheel and its dependencies; returns its `holdfast`."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, f"{wheel}{extra}"], check=True
    )
    return folder / "bin" / "holdfast"


def outside(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of the repository is importable, but the tools are found."""
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return {**kept, "HOLDFAST_TOOLS": str(ROOT / ".tools"), "XDG_STATE_HOME": str(tmp_path / "state")}


def test_without_extras_serve_runs_and_the_harness_explains_itself(wheel: Path, tmp_path: Path) -> None:
    holdfast = install(wheel, tmp_path / "env")
    ready = tmp_path / "ready.json"
    command = [
        holdfast,
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--store",
        f"sqlite:{tmp_path}/h.db",
    ]
    with subprocess.Popen([*command, "--ready-file", ready], cwd=tmp_path, env=outside(tmp_path)) as server:
        try:
            deadline_s = time.monotonic() + 20
            while not ready.exists():
                assert server.poll() is None, "serve ended by itself"
                assert time.monotonic() < deadline_s, "serve wrote no ready file within 20 s"
                time.sleep(0.05)
            http = json.loads(ready.read_text())["http"]
            with urlopen(f"http://{http}/health/ready", timeout=5) as answer:
                assert answer.status == 200
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=15) == 0

    refused = subprocess.run([holdfast, "run", "fleet-under-fire"], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 3
    assert "pip install 'holdfast[harness]'" in refused.stderr


def test_with_the_harness_extra_run_runs(wheel: Path, tmp_path: Path) -> None:
    holdfast = install(wheel, tmp_path / "env", "[harness]")
    sets = [part for value in SHORT_RUN for part in ("--set", value)]
    done = subprocess.run(
        [holdfast, "run", "fleet-under-fire", "--out", "bundle", *sets],
        cwd=tmp_path, env=outside(tmp_path), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "bundle" / "verdict.json").read_text())
    assert verdict["verdict"] == "PASS"
    assert (tmp_path / "bundle" / "report.html").is_file()
