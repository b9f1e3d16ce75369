"""What makes load, ours and the peers, at the empty call of grpc-go's interop server: each tells what it took."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt

from benchmarks.processes import TOOLS, Running, free_ports, start_program
from holdfast_loadtests.engine import LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.results import Results, results_of
from holdfast_loadtests.spec import LoadSpec

CALL = "grpc.testing.TestService/EmptyCall"
DEADLINE_S = 20
USERS = 50
"""Calls at a time in the closed model."""

GHZ = {"ghz": "ghz 0.120", "ghz-0.93": "ghz 0.93"}
"""Each program, and what lines of output call it."""
GHZ_ATTEMPTS = 3
"""0.93 panics now and then, in the grpc-go of its time, on a machine that has other work."""

LOCUSTFILE = Path(__file__).with_name("locustfile_usual.py")


@dataclass(frozen=True)
class Took:
    """One load: calls that were answered, the CPU seconds of what made them, and the p99 that it reports in seconds."""

    calls: int
    cpu_s: float
    p99_s: float

    @property
    def us_per_call(self) -> float:
        """CPU microseconds for each call."""
        return self.cpu_s / self.calls * 1e6


def start_server(stack: ExitStack, folder: Path) -> Running:
    """Starts grpc-go's interop server on the first core; it ends with the stack."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [str(TOOLS / "bin" / "grpc-interop-server"), "--listen", address]
    return start_program(stack, command, address, folder / "interop.log")


def load_ours(address: str, seconds: float, rate: int = 0) -> Took:
    """Our engine, as experiments use it: every call recorded, with its deadline, from a compiled template."""
    with tempfile.TemporaryDirectory() as folder, LoadRun.start(plan(address, rate), Path(folder)) as run:
        before_s = scheduled_s(run.pid)
        time.sleep(seconds)  # the length of the load
        results = results_of(run.drain(), run.started_s)
        return Took(_answered(results), scheduled_s(run.pid) - before_s, results.quantile_ms(0.99) / 1000)


def plan(address: str, rate: int, users: int = USERS) -> LoadPlan:
    """An open load at a rate, or without one a closed one of so many users; on one connection."""
    model: dict[str, object] = {"users": users}
    if rate:
        model = {"arrivals": [{"rate": f"{rate}/s", "for": "1h"}], "concurrency": 2000}
    scenario = {"name": "load", "steps": [{"call": CALL, "request": {}}]}
    spec = LoadSpec.model_validate({**model, "scenarios": [scenario], "deadline": f"{DEADLINE_S}s", "connections": 1})
    return LoadPlan(address, spec, {}, seed=1)


def ghz(tool: str, address: str, seconds: float, rate: int = 0, calls: int = 0, users: int = USERS) -> list[str]:
    """The command of a ghz: so many calls, at a rate or as fast as they are answered, on one connection."""
    count = ["-n", str(calls)] if calls else ["--duration", f"{seconds:g}s", "--duration-stop", "wait"]
    pace = ["--rps", str(rate)] if rate else []
    command = [str(TOOLS / "bin" / tool), "--insecure", "--call", CALL, "-d", "{}", "--connections", "1"]
    command += ["-c", str(users), "--timeout", f"{DEADLINE_S}s", "--format", "json", *pace, *count]
    return [*command, address]


@retry(stop=stop_after_attempt(GHZ_ATTEMPTS), retry=retry_if_exception_type(RuntimeError), reraise=True)
def load_ghz(tool: str, address: str, seconds: float, rate: int = 0, calls: int = 0, users: int = USERS) -> Took:
    """A ghz, with what it takes to start.

    Raises:
        RuntimeError: It failed again and again; what it said is quoted.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(ghz(tool, address, seconds, rate, calls, users), stdout=out, stderr=complaints)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        complaints.seek(0)
        if process.returncode:
            raise RuntimeError(f"{tool} ended with {process.returncode}: {complaints.read().decode()[-2000:]}")
        return Took(*_reported(json.loads(out.read()), usage.ru_utime + usage.ru_stime))


def _reported(report: dict[str, object], cpu_s: float) -> tuple[int, float, float]:
    codes, shares = report["statusCodeDistribution"], report["latencyDistribution"]
    assert isinstance(codes, dict)
    assert isinstance(shares, list)
    p99_s = next(share["latency"] for share in shares if share["percentage"] == 99) / 1e9
    return int(codes["OK"]), cpu_s, float(p99_s)


def locust(
    address: str, seconds: float, found: Path, per_user_per_s: float = 0, users: int = USERS
) -> tuple[list[str], dict[str, str]]:
    """The command of a headless Locust with its usual gRPC recipe, and its environment."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--users", str(users), "--spawn-rate", "1000", "--run-time", f"{max(1, round(seconds))}s"]
    told = {"TARGET": address, "FOUND": str(found), "PER_USER_PER_S": str(per_user_per_s)}
    return command, {**os.environ, **told}


def load_locust(address: str, seconds: float) -> Took:
    """Locust, as fast as its calls are answered."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command, environment = locust(address, seconds, found)
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return Took(**json.loads(found.read_text()))


def scheduled_s(pid: int) -> float:
    """CPU seconds of a process so far, all threads, to the nanosecond that the scheduler counts in."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _answered(results: Results) -> int:
    assert results.failed.count == 0, results.notes
    return results.ended
