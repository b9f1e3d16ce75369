"""Every runbook has its alert, its headings, and commands that work on a real server and a real Prometheus."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import requests
import yaml

from holdfast_chaos.tools import find
from holdfast_slo.prometheus import Prometheus
from support.prometheus_server import PrometheusServer
from support.server import ServerProcess

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
HEADINGS = ["What it means", "Who is hurt", "First five minutes", "Diagnosis", "Fix", "Afterwards"]
INDEX = (ROOT / "runbooks" / "README.md").read_text()
PAGES = {page.stem: page.read_text() for page in sorted((ROOT / "runbooks").glob("*.md")) if page.stem != "README"}
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page, text in {"README": INDEX, **PAGES}.items()
    for number, block in enumerate(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE), start=1)
]


def rules_in(file):
    return [rule for group in yaml.safe_load((RULES / file).read_text())["groups"] for rule in group["rules"]]


class ConfiguredPrometheus(PrometheusServer):
    """Prometheus with the configuration of deploy/prometheus, its one target replaced and everything faster."""

    def __init__(self, folder, target):
        config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
        config["rule_files"] = [f"{RULES}/*.yml"]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        del config["alerting"]
        folder.mkdir()
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._folder = folder
        self._process, self.url = self._start()
        self.client = Prometheus(self.url)


@pytest.fixture(name="watched_server", scope="module")
def _watched_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runbooks")
    with ServerProcess(folder) as server:
        prometheus = ConfiguredPrometheus(folder / "prometheus", server.http)
        try:
            prometheus.wait_for('up{job="holdfast"}', 1)
            yield {
                **os.environ,
                "PATH": f"{find('promtool').path.parent}:{find('grpcurl').path.parent}:{os.environ['PATH']}",
                "GRPC": server.grpc,
                "HTTP": server.http,
                "STORE": str(folder / "h.db"),
                "PROMETHEUS": prometheus.url,
            }
        finally:
            prometheus.close()


def run_block(block, environment):
    defaults = re.search(r"^```sh\n(export .*?)^```", INDEX, re.DOTALL | re.MULTILINE)[1]
    script = ["bash", "-euo", "pipefail", "-c", defaults + block]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_commands_of_every_page_work(watched_server, block):
    ran = run_block(block, watched_server)
    assert ran.returncode == 0, f"{block}\n{ran.stdout}\n{ran.stderr}"


def test_the_first_commands_notice_a_server_that_is_gone(tmp_path):
    with ServerProcess(tmp_path) as server:
        environment = {**os.environ, "GRPC": server.grpc, "HTTP": server.http}
    ran = run_block('curl --silent --show-error --max-time 5 "http://$HTTP/health/ready"', environment)
    assert ran.returncode != 0


def test_every_alert_has_its_page_and_every_page_its_alert():
    assert set(PAGES) == {rule["alert"] for rule in rules_in("alerts.yml")}


def test_the_index_lists_every_page_with_the_severity_of_its_alert():
    listed = dict(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", INDEX, re.MULTILINE))
    assert listed == {rule["alert"]: rule["labels"]["severity"] for rule in rules_in("alerts.yml")}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_has_the_same_headings(name):
    assert re.findall(r"^# (.+)$", re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL), re.MULTILINE) == [name]
    assert re.findall(r"^## (.+)$", PAGES[name], re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)", PAGES[name]):
        assert (ROOT / "runbooks" / target).exists(), f"{name} links to {target}"


def test_queries_ask_only_for_metrics_that_exist(watched_server):
    exposed = requests.get(f"http://{watched_server['HTTP']}/metrics", timeout=10).text
    known = set(re.findall(r"^(\w+)", exposed, re.MULTILINE)) | {"up"}
    known |= {rule["record"] for rule in rules_in("recording.yml")}
    for name, text in PAGES.items():
        for query in re.findall(r"promtool query instant \"\$PROMETHEUS\" '(.+)'$", text, re.MULTILINE):
            asked = set(re.findall(r"\b(?:holdfast|grpc_server|process)[\w:]+", re.sub(r'"[^"]*"', "", query)))
            assert asked <= known, f"{name}: {query}"


def test_environment_variables_used_are_those_that_the_index_defines():
    defined = set(re.findall(r"^export (\w+)=", INDEX, re.MULTILINE))
    for name, text in PAGES.items():
        blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        assert set(re.findall(r"\$([A-Z]+)", blocks)) <= defined, name
