"""`holdfast tools` as a process: real packages, real failures, and two at once."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast_chaos.tools.recipes import this_platform

HOLDFAST = [sys.executable, "-m", "holdfast", "tools"]
ROOT = Path(__file__).parents[2]


def tools(*args, path=os.environ["PATH"], cwd=None):
    return subprocess.run(
        [*HOLDFAST, *args], env={**os.environ, "PATH": path}, cwd=cwd, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def path_with(folder, *names, **scripts):
    """A PATH of one folder: links to some of the machine's programs, and scripts in place of others."""
    folder.mkdir(exist_ok=True)
    for name in ("sh", "env", "echo", "sleep", "chmod", "cat", *names):
        (folder / name).symlink_to(shutil.which(name))
    for name, script in scripts.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    return str(folder)


# Puts a program where `go install` would, after half a second.
FAKE_GO = """
echo "$@" >> "$GOBIN/../calls"
sleep 0.5
cat > "$GOBIN/grpcurl" <<'END'
#!/bin/sh
echo grpcurl v1.9.3
END
chmod +x "$GOBIN/grpcurl"
"""


def test_nothing_is_done_fast_when_all_are_there():
    start = time.monotonic()
    ran = tools("--dir", str(ROOT / ".tools"), "--dev", "--json")
    elapsed_s = time.monotonic() - start
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert all(tool["path"] for tool in json.loads(ran.stdout)["tools"])
    assert elapsed_s < 10, "eight version commands at once; under one second on a quiet machine"


def test_without_a_terminal_it_says_what_it_would_do_and_does_nothing(tmp_path):
    ran = tools("--dir", str(tmp_path / "t"), "grpcurl", path=path_with(tmp_path / "bin", go=FAKE_GO))
    assert ran.returncode == 3
    assert "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3" in ran.stderr
    assert str(tmp_path / "t" / "bin" / "grpcurl") in ran.stderr
    assert "--yes" in ran.stderr
    assert not (tmp_path / "t").exists()


def test_a_missing_prerequisite_is_named_before_anything_starts(tmp_path):
    ran = tools("--dir", str(tmp_path / "t"), "--yes", "grpcurl", path=path_with(tmp_path / "bin"))
    assert ran.returncode == 3
    assert "grpcurl needs 'go', which is not on PATH" in ran.stderr
    assert not (tmp_path / "t").exists()


def test_a_failed_step_shows_its_command_its_last_lines_and_leaves_nothing(tmp_path):
    broken = path_with(tmp_path / "bin", go="echo module lookup failed; exit 7")
    ran = tools("--dir", str(tmp_path / "t"), "--yes", "grpcurl", path=broken)
    assert ran.returncode == 3
    assert "cmd/grpcurl@v1.9.3' ended with code 7" in ran.stderr
    assert "| module lookup failed" in ran.stderr
    assert "go env GOPROXY" in ran.stderr
    assert [path.name for path in (tmp_path / "t").iterdir()] == [".lock"]


def test_a_build_of_the_wrong_version_is_not_put_in_place(tmp_path):
    wrong = path_with(tmp_path / "bin", go=FAKE_GO.replace("v1.9.3", "v0.1.0"))
    ran = tools("--dir", str(tmp_path / "t"), "--yes", "grpcurl", path=wrong)
    assert ran.returncode == 3
    assert "it is version 0.1.0, and >=1.9,<2 is needed" in ran.stderr
    assert not (tmp_path / "t" / "bin" / "grpcurl").exists()


def test_two_at_once_build_once_and_both_succeed(tmp_path):
    path = path_with(tmp_path / "bin", go=FAKE_GO)
    command = [*HOLDFAST, "--dir", str(tmp_path / "t"), "--yes", "grpcurl"]
    both = [
        subprocess.Popen(command, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert (tmp_path / "t" / "calls").read_text().count("grpcurl@v1.9.3") == 1


def test_what_a_killed_installer_left_is_swept_up(tmp_path):
    (tmp_path / "t" / ".grpcurl-abandoned" / "source").mkdir(parents=True)
    ran = tools("--dir", str(tmp_path / "t"), "--yes", "grpcurl", path=path_with(tmp_path / "bin", go=FAKE_GO))
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [".lock", "bin", "calls"]


def test_checking_installs_nothing_and_ends_3_when_something_is_missing(tmp_path):
    ran = tools("--dir", str(tmp_path / "t"), "--check", "grpcurl", path=path_with(tmp_path / "bin", go=FAKE_GO))
    assert ran.returncode == 3
    assert "missing: grpcurl" in ran.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.skipif(this_platform() != "debian", reason="unpacks a Debian package")
def test_promtool_is_really_downloaded_unpacked_and_runs(tmp_path):
    path = path_with(tmp_path / "bin", "apt-get", "dpkg", "dpkg-deb", "tar", "rm", "xz", "ldconfig")
    ran = tools("--dir", str(tmp_path / "t"), "--yes", "--json", "promtool", path=path)
    assert ran.returncode == 0, ran.stderr
    (found,) = json.loads(ran.stdout)["tools"]
    assert found["path"] == str(tmp_path / "t" / "bin" / "promtool")
    assert subprocess.run([found["path"], "--version"], capture_output=True, check=True).stdout
