"""Faults on processes beside the target: chosen by the seed, healed, undone, and proven by who misses them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_chaos import faults
from holdfast_chaos.faults import KINDS, Fault, FaultContext, FaultError
from holdfast_chaos.faults.crowd import LEASES_LOST, CrowdSpec
from holdfast_chaos.processes import ManagedProcess, ProcessError, ProcessIdentity, ProcessLife
from holdfast_chaos.proof import Evidence, ProofVerdict, Sighting, Window
from holdfast_slo.prometheus import Series

WINDOW = Window(10.0, 20.0)
NAMES = [f"agents-{number}" for number in range(5)]


def make(kind: str, **settings: object) -> Fault[Any]:
    return KINDS[kind]("f1", KINDS[kind].model.model_validate({"target": "agents", "count": 2, **settings}))


def life(pid: int, started_s: float = 0.0, ended_s: float | None = None, code: int | None = None) -> ProcessLife:
    return ProcessLife(ProcessIdentity(pid, started_s), started_s, started_s + 1, ended_s, code)


def evidence(
    lives: dict[str, list[ProcessLife]], expired: int | None = 2, sightings: tuple[Sighting, ...] = ()
) -> Evidence:
    """Of a window in which so many leases expired; None: the target has no such metric."""
    samples = ((9.0, 5.0), (15.0, 5.0 + (expired or 0)), (19.0, 5.0 + (expired or 0)))
    counters = {} if expired is None else {LEASES_LOST: [Series({"__name__": LEASES_LOST}, samples)]}
    return Evidence(WINDOW, Window(0, 10), [], [], {"server": [life(1)], **lives}, sightings, counters)


def alive() -> dict[str, list[ProcessLife]]:
    return {name: [life(100 + number)] for number, name in enumerate(NAMES)}


def killed(*names: str, code: int = -9, restarted: bool = True) -> dict[str, list[ProcessLife]]:
    gone = {name: [life(100, 0, 10.1, code), *([life(200, 18)] if restarted else [])] for name in names}
    return {**alive(), **gone}


def stopped(*names: str, at_s: float = 12.0) -> tuple[Sighting, ...]:
    return tuple(Sighting(at_s, name, name in names) for name in NAMES)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (evidence(killed("agents-1", "agents-3")), ProofVerdict.EFFECTIVE),
        (evidence(alive()), ProofVerdict.INEFFECTIVE),  # the twin: it was injected, and nothing died
        (evidence(killed("agents-1", "agents-3", code=-15)), ProofVerdict.INEFFECTIVE),  # ended, but not by it
        (evidence(killed("agents-1", "agents-3"), expired=0), ProofVerdict.INEFFECTIVE),  # nobody missed them
        (evidence(killed("agents-1", "agents-3"), expired=None), ProofVerdict.UNPROVEN),
        (evidence(killed("agents-1")), ProofVerdict.UNPROVEN),  # one of two
        (evidence(killed("agents-1", "agents-3", restarted=False)), ProofVerdict.UNPROVEN),
    ],
)
def test_a_kill_of_clients_is_proven_by_deaths_that_the_target_missed(seen: Evidence, verdict: ProofVerdict) -> None:
    """Deaths by SIGKILL, successors, and leases that expired in the window; less is not EFFECTIVE."""
    assert make("kill").prove(seen).verdict is verdict


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (evidence(alive(), sightings=stopped("agents-1", "agents-3")), ProofVerdict.EFFECTIVE),
        (evidence(alive(), sightings=stopped()), ProofVerdict.INEFFECTIVE),  # the twin
        (evidence(alive()), ProofVerdict.INEFFECTIVE),
        (evidence(alive(), sightings=stopped("agents-1", "agents-3", at_s=25.0)), ProofVerdict.INEFFECTIVE),
        (evidence(alive(), expired=0, sightings=stopped("agents-1", "agents-3")), ProofVerdict.INEFFECTIVE),
        (evidence(alive(), expired=None, sightings=stopped("agents-1", "agents-3")), ProofVerdict.UNPROVEN),
        (evidence(alive(), sightings=stopped("agents-1")), ProofVerdict.UNPROVEN),
    ],
)
def test_a_pause_is_proven_by_processes_seen_to_stand_still(seen: Evidence, verdict: ProofVerdict) -> None:
    """Stopped as the operating system said within the window, and leases that expired; less is not EFFECTIVE."""
    assert make("pause").prove(seen).verdict is verdict


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[FaultContext]:
    processes = {
        name: ManagedProcess(name, [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / name)
        for name in NAMES
    }
    ManagedProcess.start_together(list(processes.values()))
    yield FaultContext(processes=processes, seed=7)
    for process in processes.values():
        process.stop(1.0)


def still(context: FaultContext) -> list[str]:
    return [name for name, process in context.processes.items() if process.is_stopped()]


def test_a_pause_stops_as_many_as_it_says_until_it_is_healed(crowd: FaultContext) -> None:
    """Two of five stand still between injection and heal, and healing twice does no harm."""
    fault = make("pause")
    fault.inject(crowd)
    assert len(still(crowd)) == 2
    assert not fault.is_healed(crowd)
    fault.heal(crowd)
    fault.heal(crowd)
    assert still(crowd) == []
    assert fault.is_healed(crowd)


def test_a_pause_is_undone_by_its_record_alone(crowd: FaultContext) -> None:
    """What was journalled before a pause wakes its processes in any other, once the harness is gone."""
    fault = make("pause")
    record = json.loads(json.dumps(fault.undo_record(crowd)))
    fault.inject(crowd)
    assert "woke" in (faults.undo(record) or "")
    assert still(crowd) == []


def test_a_record_that_names_no_process_is_an_error() -> None:
    """A damaged journal does not pass for a pause that was undone."""
    with pytest.raises(FaultError, match="which processes to wake"):
        faults.undo({"kind": "pause", "processes": [{"pid": 0}]})


def test_a_kill_ends_as_many_as_it_says_and_starts_them_again(crowd: FaultContext) -> None:
    """Two of five die by SIGKILL and come back as new processes; the rest keep running."""
    fault = make("kill")
    fault.inject(crowd)
    dead = {name for name, process in crowd.processes.items() if process.returncode == -9}
    assert len(dead) == 2
    fault.heal(crowd)
    assert fault.is_healed(crowd)
    assert {name for name, process in crowd.processes.items() if len(process.lives) == 2} == dead


def test_the_seed_chooses_who_is_hit(crowd: FaultContext) -> None:
    """One seed always hits the same processes; others hit others."""

    def hit(seed: int) -> str:
        return json.dumps(make("pause").undo_record(FaultContext(processes=crowd.processes, seed=seed)))

    assert hit(7) == hit(7)
    assert len({hit(seed) for seed in range(20)}) > 1


@pytest.mark.parametrize(("settings", "hit"), [({"count": None, "share": 0.3}, 2), ({"count": None}, 1), ({}, 2)])
def test_a_share_is_rounded_up(crowd: FaultContext, settings: dict[str, object], hit: int) -> None:
    """Three tenths of five are two, and one is hit where nothing is said."""
    assert len(make("pause", **settings).undo_record(crowd)["processes"]) == hit


@pytest.mark.parametrize(("share", "several", "hit"), [(0.07, 100, 7), (0.28, 25, 7), (0.29, 25, 8), (0.01, 5, 1)])
def test_a_share_that_comes_out_even_is_not_rounded_up(share: float, several: int, hit: int) -> None:
    """Though seven hundredths of a hundred are a little more than seven in binary fractions."""
    assert CrowdSpec(share=share).victims_of(several) == hit


def test_one_that_does_not_come_up_takes_those_started_with_it_down(tmp_path: Path) -> None:
    """Processes started together all run, or none does."""
    good = ManagedProcess("good", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "good")
    bad = ManagedProcess("bad", [sys.executable, "-c", "pass"], tmp_path / "bad", ready=lambda: False)
    with pytest.raises(ProcessError, match="bad"):
        ManagedProcess.start_together([good, bad])
    assert not good.alive()
