"""Settings of faults are checked before anything is touched, and every kind tells another process how to undo it."""

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast_chaos.faults import KINDS, Availability, FaultContext, FaultError
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.toxiproxy import Toxiproxy

MINIMAL: dict[str, dict[str, object]] = {
    "latency": {"delay": "10ms"},
    "reset_peer": {},
    "timeout": {},
    "kill": {},
    "pause": {},
}


def test_every_kind_is_listed_under_its_own_name() -> None:
    assert {name: kind.kind for name, kind in KINDS.items()} == {name: name for name in KINDS}
    assert set(MINIMAL) == set(KINDS), "a new kind needs its smallest settings here"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_refuses_what_it_does_not_know(kind: str) -> None:
    with pytest.raises(ValidationError, match="dely"):
        KINDS[kind].model.model_validate({**MINIMAL[kind], "dely": "10ms"})


@pytest.mark.parametrize("kind", KINDS)
def test_an_undo_record_is_plain_json_with_its_kind(kind: str, tmp_path: Path) -> None:
    process = ManagedProcess.start("server", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
    try:
        context = FaultContext(Toxiproxy("127.0.0.1:1"), ["target"], {"server": process})
        record = KINDS[kind]("f", KINDS[kind].model.model_validate(MINIMAL[kind])).undo_record(context)
    finally:
        process.stop()
    assert json.loads(json.dumps(record)) == record
    assert record["kind"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_without_what_it_acts_on_says_so(kind: str) -> None:
    fault = KINDS[kind]("f", KINDS[kind].model.model_validate(MINIMAL[kind]))
    with pytest.raises(FaultError, match=r"^f"):
        fault.undo_record(FaultContext())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_whether_this_machine_can_do_it(kind: str) -> None:
    support = KINDS[kind].supported()
    assert support.availability is Availability.SUPPORTED or support.why


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("latency", {}),
        ("latency", {"delay": "-1s"}),
        ("latency", {"delay": 5}),
        ("latency", {"delay": "10ms", "jitter": "20ms"}),
        ("latency", {"delay": "10ms", "toxicity": 0}),
        ("latency", {"delay": "10ms", "toxicity": 1.1}),
        ("reset_peer", {"after": "-1ms"}),
        ("reset_peer", {"after": "6s"}),
        ("timeout", {"toxicity": 0.5}),  # a cable is cut, or it is not
        ("timeout", {"target": "agents", "count": 1, "share": 0.5}),
        ("kill", {"restart_after": "soon"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: str, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KINDS[kind].model.model_validate(settings)
