"""A real Prometheus that scrapes what a test exposes."""

import json
import socket
import subprocess
import time
from pathlib import Path

from holdfast_slo.prometheus import Prometheus

BINARY = Path(__file__).parents[2] / ".tools" / "bin" / "prometheus"
SCRAPE_INTERVAL_S = 0.25


def poll(condition, reason, timeout_s=30):
    """Waits until a condition gives something true, and returns it; fails with the reason after the timeout."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {reason}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PrometheusServer:
    """Starts on a free port, trying another where it was taken meanwhile; scrapes each given port as the job `load`."""

    def __init__(self, folder, targets):
        assert BINARY.exists(), f"{BINARY} is missing: run `make tools`"
        self._folder = folder
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
            "scrape_configs": [{"job_name": "load", "static_configs": [{"targets": list(targets)}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self._process, self.url = self._start()
        self.client = Prometheus(self.url)

    def _start(self):
        for attempt in range(5):
            url = f"127.0.0.1:{free_port()}"
            process = subprocess.Popen(
                [BINARY, f"--config.file={self._folder / 'prometheus.yml'}", f"--web.listen-address={url}",
                 f"--storage.tsdb.path={self._folder / str(attempt)}", "--log.level=error"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            client = Prometheus(f"http://{url}")
            poll(
                lambda client=client, process=process: client.ready() or process.poll() is not None,
                "Prometheus is ready",
            )
            client.close()
            if process.poll() is None:
                return process, f"http://{url}"
        raise AssertionError("Prometheus did not start in 5 attempts, each on another port")

    def wait_for(self, selector, value):
        """Until the newest samples of a selector add up to a value."""

        def reached():
            now = time.time()
            found = self.client.raw(selector, now - 60, now + 1)
            return bool(found) and sum(one.samples[-1][1] for one in found) == value

        poll(reached, f"{selector} is scraped at {value}")

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)

    def close(self):
        self.stop()
        self.client.close()
