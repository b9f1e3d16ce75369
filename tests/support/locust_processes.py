"""Locust as its users run it: a master and workers as processes of their own, on loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import requests

WITHIN_S = 120.0
REGISTRY = "holdfast.registry.v1.AgentRegistryService"
HEAD = "from holdfast_loadtests.locusting.users import EngineUser, GrpcUser\nfrom locust import constant, task\n"
CLOSED = f"""{HEAD}
class Lists(EngineUser):
    load = {{"mix": [{{"call": "{REGISTRY}/ListAgents", "request": {{"parent": "namespaces/n-{{{{counter}}}}"}}}}]}}
"""
"""A locustfile: as many users as Locust says, each calls as soon as it was answered."""

_CSV_CLOSED = re.compile(
    r'(?:  .*\n)*  File .*stats\.py", line \d+, in stats_writer\n(?:  .*\n)*ValueError: I/O operation on closed file\.'
)


def tracebacks(output: str) -> list[str]:
    """Those that an output shows, but for Locust's own: its CSV writer may wake after the files are closed."""
    found = output.split("Traceback (most recent call last):\n")[1:]
    return [one for one in found if not _CSV_CLOSED.match(one)]


class Locust:
    """A `locust` command under way; its output is read from a file, so that it never waits for a reader."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "locust", "-f", str(folder / "locustfile.py"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "PYTHONWARNINGS": "default"},
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, pattern: str) -> re.Match[str]:
        """Waits until its output holds what the pattern describes."""
        end_s = time.monotonic() + WITHIN_S
        while (found := re.search(pattern, self.output)) is None:
            assert time.monotonic() < end_s, f"no {pattern!r} within {WITHIN_S:g} s in:\n{self.output}"
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            time.sleep(0.05)
        return found

    def children(self, module: str = "") -> list[psutil.Process]:
        """The processes under it, of one module (as in `python -m`) or of any."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if not module or module in one.cmdline():
                        found.append(one)
        return found

    def code(self) -> int:
        """Waits for its end."""
        return self.process.wait(timeout=WITHIN_S)

    def terminate(self) -> None:
        """Ends it in order."""
        self.process.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A master with workers, all with one locustfile; ended with the block."""

    def __init__(self, folder: Path, locustfile: str, workers: int, *arguments: str) -> None:
        (folder / "locustfile.py").write_text(locustfile)
        port = str(free_port())
        bind = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
        self.master = Locust(folder, "master", *bind, "--expect-workers", str(workers), *arguments)
        self._folder = folder
        self._to_master = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        self.workers: list[Locust] = []
        for _ in range(workers):
            self.join()

    def join(self) -> Locust:
        """Starts one more worker."""
        self.workers.append(Locust(self._folder, f"worker-{len(self.workers)}", *self._to_master))
        return self.workers[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        for one in (*self.workers, self.master):
            one.kill()

    @property
    def output(self) -> str:
        return "\n".join(one.output for one in (self.master, *self.workers))


def alone(folder: Path, locustfile: str, *arguments: str) -> Locust:
    """A Locust without workers: it is its own."""
    (folder / "locustfile.py").write_text(locustfile)
    return Locust(folder, "alone", "--headless", *arguments)


def saturated(found: dict[str, object]) -> list[str]:
    """Which of a test's doubts say that the machine was too busy to be punctual, which it may be."""
    doubts = found["inconclusive"]
    assert isinstance(doubts, list)
    return [doubt for doubt in doubts if "could not keep up" in doubt]


class Page:
    """Locust's page, for who has no browser; `arguments` have a master serve it."""

    def __init__(self) -> None:
        port = free_port()
        self.arguments = ("--web-host", "127.0.0.1", "--web-port", str(port))
        self.url = f"http://127.0.0.1:{port}"

    def start(self, host: str, users: int) -> None:
        """Start."""
        self._post("swarm", {"user_count": users, "spawn_rate": users, "host": host})

    def stop(self) -> None:
        """Stop; returns once the test has ended."""
        self._post("stop", {})

    def _post(self, what: str, form: dict[str, object]) -> None:
        answer = requests.post(f"{self.url}/{what}", data=form, timeout=WITHIN_S)
        assert answer.ok, answer.text
        assert answer.json()["success"], answer.text


def free_port() -> int:
    """A port that nothing listens on now. Locust cannot say which one it bound, so it must be told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
