"""The run's own Prometheus: a real server, scraping the load and the target for as long as the run lasts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from holdfast_chaos import tools
from holdfast_chaos.events import CLIENT_METRICS
from holdfast_chaos.processes import ManagedProcess
from holdfast_slo.prometheus import Prometheus, PrometheusError

SCRAPE_INTERVAL_S = 0.5
"""Short, so that a killed server takes little of its history with it; a scrape of both jobs costs a few ms."""

FIRST_SCRAPE_WITHIN_S = 20.0
"""Prometheus throttles target discovery to once in 5 s, so the first scrape comes about 5 s after it started."""

LOAD_JOB = "load"
TARGET_JOB = "target"


def configuration(jobs: Mapping[str, str]) -> str:
    """The configuration that scrapes each job's URL, as YAML."""
    interval = f"{SCRAPE_INTERVAL_S * 1000:.0f}ms"
    return yaml.safe_dump(
        {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
            },
            "scrape_configs": [_scrape_config(job, url) for job, url in jobs.items()],
        },
        sort_keys=False,
    )


def _scrape_config(job: str, url: str) -> dict[str, object]:
    parts = urlsplit(url)
    config: dict[str, object] = {
        "job_name": job,
        "scheme": parts.scheme,
        "metrics_path": parts.path or "/metrics",
        "static_configs": [{"targets": [parts.netloc]}],
    }
    if job != LOAD_JOB:
        # A target that calls other services counts those calls under the very names of the load's own metrics.
        names = "|".join(f"{prefix}.*" for prefix in CLIENT_METRICS)
        config["metric_relabel_configs"] = [{"source_labels": ["__name__"], "regex": names, "action": "drop"}]
    return config


def start(
    folder: Path, port: int, jobs: Mapping[str, str], on_start: Callable[[ManagedProcess], None]
) -> tuple[ManagedProcess, Prometheus]:
    """Starts a Prometheus on a loopback port and waits until it answers (not until it has scraped).

    Raises:
        InputError: there is no Prometheus on this machine; the message says how to get one.
        ProcessError: it did not start; the message holds the tail of its log.
    """
    binary = tools.find("prometheus").path
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(configuration(jobs), encoding="utf-8")
    address = f"127.0.0.1:{port}"
    client = Prometheus(f"http://{address}")
    process = ManagedProcess.start(
        "prometheus",
        [
            str(binary),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
        log=folder / "prometheus.log",
        ready=lambda: answers(client),
        timeout_s=20.0,
        on_start=on_start,
    )
    return process, client


def answers(client: Prometheus) -> bool:
    """Whether Prometheus is ready, False too while nothing listens yet."""
    try:
        return client.ready()
    except PrometheusError:
        return False


def scrapes(client: Prometheus, job: str) -> bool:
    """Whether the job's last scrape worked."""
    try:
        return client.up(job)
    except PrometheusError:
        return False
