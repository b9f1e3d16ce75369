"""The packaged experiment, as `make demo` runs it, ends PASS with faults that mattered, and its report shows them."""

from pathlib import Path

import pytest

from support.runs import Run, run

pytestmark = pytest.mark.serial


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run("fleet-under-fire", tmp_path_factory.mktemp("demo"))


def fault(demo: Run, fault_id: str) -> dict:
    (found,) = [fault for fault in demo.verdict["faults"] if fault["id"] == fault_id]
    return found


def test_it_passes(demo: Run) -> None:
    assert demo.exit_code == 0, demo.output
    assert demo.verdict["verdict"] == "PASS"
    assert demo.verdict["reasons"] == []


def test_every_fault_is_proven_with_a_dose_that_matters(demo: Run) -> None:
    assert {fault["verdict"] for fault in demo.verdict["faults"]} == {"EFFECTIVE"}
    slow = fault(demo, "slow-net")["observed"]
    assert slow["shift_ms"] >= 5 * slow["baseline_p50_ms"]
    assert fault(demo, "torn-connections")["observed"]["resets"] >= 20
    crash = fault(demo, "crash")["observed"]
    assert crash["returncode"] == -9
    assert crash["new_pid"] != crash["pid"]


def test_the_whole_fleet_registered(demo: Run) -> None:
    (check,) = [check for check in demo.verdict["checks"] if check["name"] == "whole-fleet-registered"]
    assert check["verdict"] == "PASS"


def test_at_least_three_objectives_were_decided_from_prometheus(demo: Run) -> None:
    decided = [objective for objective in demo.verdict["objectives"] if objective["verdict"] != "INCONCLUSIVE"]
    assert len({objective["name"] for objective in decided}) >= 3
    assert all(objective["total"] > 0 and objective["query"] for objective in decided)
    assert demo.verdict["reconciliation"]["prometheus"] == demo.verdict["reconciliation"]["client"]


def test_the_bundle_is_whole_and_small(demo: Run) -> None:
    names = {path.name for path in demo.out.iterdir()}
    wanted = {"verdict.json", "report.html", "junit.xml", "summary.md", "journal.jsonl", "calls.csv.gz", "samples.json"}
    assert wanted <= names
    assert sum(path.stat().st_size for path in Path(demo.out).rglob("*") if path.is_file()) < 20 * 2**20
