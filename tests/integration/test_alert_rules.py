"""The alert rules of deploy/prometheus, judged by the real promtool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import yaml

from holdfast_chaos.tools import find
from support.server import ServerProcess

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())
TESTS = [f"tests/{path.name}" for path in sorted((PROMETHEUS / "tests").glob("*.yml"))]
ALERTS = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}


def promtool(*args, cwd=PROMETHEUS):
    return subprocess.run(
        [find("promtool").path, *args], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_prometheus_accepts_the_configuration_and_its_rules():
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    assert "2 rule files found" in checked.stdout


def test_every_alert_fires_when_it_should_and_its_twin_stays_silent():
    tested = promtool("test", "rules", *TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never fires", "always fires"])
def test_the_rule_tests_notice_each_alert_that(tmp_path, expression):
    broken = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    rules = yaml.safe_load((broken / "rules" / "alerts.yml").read_text())
    for group in rules["groups"]:
        group["rules"] = [rule | {"expr": expression, "for": "0s"} for rule in group["rules"]]
    (broken / "rules" / "alerts.yml").write_text(yaml.safe_dump(rules))

    tested = promtool("test", "rules", *TESTS, cwd=broken)

    assert tested.returncode == 1
    assert set(re.findall(r"alertname: ?(\w+), time", tested.stdout + tested.stderr)) == ALERTS


def test_every_alert_says_what_is_wrong_whom_to_wake_and_where_to_read_on():
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
            assert rule["annotations"]["summary"], rule["alert"]
            assert rule["annotations"]["runbook_url"] == f"runbooks/{rule['alert']}.md"


def test_the_rules_ask_only_for_metrics_that_the_server_exposes(served_metrics):
    recorded = yaml.safe_load((PROMETHEUS / "rules" / "recording.yml").read_text())
    expressions = [rule["expr"] for rules in (RULES, recorded) for group in rules["groups"] for rule in group["rules"]]
    asked = set(re.findall(r"\b(?:holdfast|grpc_server)_\w+", "\n".join(expressions)))
    assert asked
    assert asked <= served_metrics


@pytest.fixture(name="served_metrics")
def _served_metrics(tmp_path):
    with ServerProcess(tmp_path) as server:
        text = requests.get(f"http://{server.http}/metrics", timeout=10).text
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
