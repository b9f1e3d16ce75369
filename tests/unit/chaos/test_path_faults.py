"""Faults on the connections of some processes: chosen by the seed, and proven by their paths beside the others'."""

from dataclasses import replace
from typing import Any

import pytest

from holdfast_chaos import faults
from holdfast_chaos.faults import KINDS, Fault, FaultContext, FaultError
from holdfast_chaos.faults.crowd import LEASES_LOST, chosen
from holdfast_chaos.probe import ProbeSample
from holdfast_chaos.proof import Evidence, ProofVerdict, Window
from holdfast_chaos.toxiproxy import Toxiproxy
from holdfast_slo.prometheus import Series

BASELINE, WINDOW = Window(0.0, 10.0), Window(10.0, 20.0)
NAMES = [f"agents-{number}" for number in range(5)]
SEED = 7
CUT = {"timeout": {}, "latency": {"delay": "100ms"}, "reset_peer": {}}
"""Kinds that act on connections, with the settings they need."""


def make(kind: str, **settings: object) -> Fault[Any]:
    told = {"target": "agents", "count": 2, **CUT[kind], **settings}
    return KINDS[kind]("f1", KINDS[kind].model.model_validate(told))


HIT = chosen("f1", make("timeout").spec, NAMES, SEED)


def probes(window: Window, *, ms: float | None = 3.0, error: str = "", kind: str = "") -> list[ProbeSample]:
    """Five a second; with `error` none of them is answered."""
    at = [window.start_s + index / 5 for index in range(int(window.length_s * 5))]
    return [ProbeSample(t_s, ms, error, kind, t_s + (ms or 1000.0) / 1000) for t_s in at]


WELL = probes(WINDOW)
SILENT = probes(WINDOW, ms=None, error="DeadlineExceeded", kind="deadline")
SLOW = probes(WINDOW, ms=103.0)
RESET = probes(WINDOW, ms=None, error="Unavailable", kind="reset")


def evidence(
    hit: list[ProbeSample], spared: list[ProbeSample] = WELL, *, expired: int | None = 3, names: list[str] = NAMES
) -> Evidence:
    """What was seen along the paths of those hit, and of the others; `names`: who had a connection at all."""
    paths = {name: [*probes(BASELINE), *(hit if name in HIT else spared)] for name in NAMES}
    samples = ((9.0, 5.0), (15.0, 5.0 + (expired or 0)), (19.0, 5.0 + (expired or 0)))
    counters = {} if expired is None else {LEASES_LOST: [Series({"__name__": LEASES_LOST}, samples)]}
    control = [*probes(BASELINE), *WELL]
    return Evidence(
        WINDOW, BASELINE, [], control, counters=counters, paths=paths, connected=names, seed=SEED
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "seen", "verdict"),
    [
        ("timeout", evidence(SILENT), ProofVerdict.EFFECTIVE),
        ("timeout", evidence(WELL), ProofVerdict.INEFFECTIVE),  # the twin: it was injected, and calls went on
        ("timeout", evidence([*SILENT[:-9], *WELL[-9:]]), ProofVerdict.INEFFECTIVE),  # it ended too soon
        ("timeout", evidence(SILENT, SILENT), ProofVerdict.UNPROVEN),  # those it spared were silent, too
        ("timeout", evidence(SILENT[:6]), ProofVerdict.EFFECTIVE),
        ("timeout", evidence(SILENT[:2]), ProofVerdict.UNPROVEN),
        ("timeout", evidence(SILENT, expired=0), ProofVerdict.INEFFECTIVE),  # the target missed nobody
        ("timeout", evidence(SILENT, expired=None), ProofVerdict.UNPROVEN),
        ("timeout", evidence(SILENT, names=HIT[:1]), ProofVerdict.INEFFECTIVE),  # one went another way
        ("timeout", replace(evidence(SILENT), paths={}), ProofVerdict.INEFFECTIVE),
        ("latency", evidence(SLOW), ProofVerdict.EFFECTIVE),
        ("latency", evidence(WELL), ProofVerdict.INEFFECTIVE),
        ("latency", evidence(SLOW, SLOW), ProofVerdict.INEFFECTIVE),  # everybody was slow: not its doing
        ("latency", evidence(SLOW, names=[]), ProofVerdict.INEFFECTIVE),
        ("reset_peer", evidence(RESET), ProofVerdict.EFFECTIVE),
        ("reset_peer", evidence(WELL), ProofVerdict.INEFFECTIVE),
        ("reset_peer", evidence(RESET, RESET), ProofVerdict.UNPROVEN),
    ],
)
def test_a_fault_on_some_connections_is_proven_beside_the_others(
    kind: str, seen: Evidence, verdict: ProofVerdict
) -> None:
    """Only what those hit saw, on connections they really had, and the spared did not see, is the fault's."""
    proof = make(kind).prove(seen)
    assert proof.verdict is verdict, proof
    assert proof.verdict is not ProofVerdict.EFFECTIVE or proof.observed["hit"] == HIT


def test_where_all_are_hit_the_control_path_is_what_they_are_compared_with() -> None:
    """A fault on every process of an entry is still proven by something that it did not touch."""
    seen = evidence(SILENT, SILENT)
    fault = make("timeout", count=5)
    assert fault.prove(seen).verdict is ProofVerdict.EFFECTIVE
    assert fault.prove(replace(seen, control=SILENT)).verdict is ProofVerdict.UNPROVEN


def test_what_is_answered_before_it_is_in_force_or_once_it_heals_is_no_matter() -> None:
    """Injection and heal take a moment each, in which calls may still, or again, get through."""
    seen = evidence([*WELL[:3], *SILENT[3:-3], *WELL[-3:]])
    assert make("timeout").prove(seen).verdict is ProofVerdict.INEFFECTIVE
    assert make("timeout").prove(replace(seen, in_force=Window(10.6, 19.4))).verdict is ProofVerdict.EFFECTIVE


def context(*proxies: str) -> FaultContext:
    return FaultContext(Toxiproxy("127.0.0.1:1"), ["target", *proxies], seed=SEED)


@pytest.mark.parametrize("kind", CUT)
def test_only_the_proxies_of_those_it_hits_get_its_toxics(kind: str) -> None:
    """The same two of five for one seed; without a target of its own, a fault is on every proxy there is."""
    hit = {each["proxy"] for each in make(kind).undo_record(context(*NAMES))["toxics"]}
    assert hit == set(HIT)
    everyone = make(kind, target="server", count=None).undo_record(context(*NAMES))
    assert {each["proxy"] for each in everyone["toxics"]} == {"target", *NAMES}


def test_a_cut_goes_both_ways() -> None:
    """Neither what is asked nor what is answered passes, by toxics whose names differ."""
    toxics = make("timeout").undo_record(context(*NAMES))["toxics"]
    assert len({(each["proxy"], each["name"]) for each in toxics}) == len(toxics) == 4


def test_a_fault_on_processes_without_proxies_is_refused() -> None:
    """Those that reach the target past Toxiproxy cannot be cut off, and none else is in their place."""
    with pytest.raises(FaultError, match="no process 'agents' has a proxy"):
        make("timeout").undo_record(context("others-0"))


@pytest.mark.parametrize("kind", ["latency", "reset_peer"])
def test_a_toxicity_below_one_is_refused_where_processes_are_aimed_at(kind: str) -> None:
    """Toxiproxy draws for each connection: the probe's may be hit where the process's is not."""
    assert "toxicity" in str(make(kind, toxicity=0.3).problem_with(5))
    assert make(kind, toxicity=1.0).problem_with(5) is None
    assert make(kind, target="server", count=None, toxicity=0.3).problem_with(5) is None


def test_a_record_that_names_no_toxics_is_an_error() -> None:
    """A damaged journal does not pass for a fault that was undone."""
    with pytest.raises(FaultError, match="malformed"):
        faults.undo({"kind": "timeout", "address": "127.0.0.1:9", "toxics": None})
