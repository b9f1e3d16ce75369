"""Locust as its users run it: a master and workers as processes of their own, on loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

WITHIN_S = 120.0


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
        to_master = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        self.workers = [Locust(folder, f"worker-{number}", *to_master) for number in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        for one in (*self.workers, self.master):
            one.kill()

    @property
    def output(self) -> str:
        return "\n".join(one.output for one in (self.master, *self.workers))


def free_port() -> int:
    """A port that nothing listens on now. Locust cannot say which one it bound, so it must be told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
