"""Each fault bites real traffic through a real Toxiproxy, is proven by it, heals, and can be undone by its record
alone."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast_chaos import faults, ports
from holdfast_chaos.faults import KINDS, Fault, FaultError
from holdfast_chaos.probe import ControlProbe, stop_all
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, Window
from holdfast_chaos.toxiproxy import Toxiproxy, ToxiproxyError
from support.stage import PROXY, Callers, Stage, answers, wait_for

BASELINE_S = 1.0
WINDOW_S = 1.5


@pytest.fixture(autouse=True)
def healed(scene: Stage) -> Iterator[None]:
    yield
    scene.toxiproxy.reset()
    wait_for(lambda: answers(scene.proxied), "the proxied path serves again")


def make(kind: str, **settings: object) -> Fault:
    return KINDS[kind]("f1", KINDS[kind].model.model_validate(settings))


def measure(scene: Stage, fault: Fault, path: str = "", timeout_s: float = 2.0) -> Proof:
    """Baseline, then the fault's window, under load; the proof that comes of it."""
    probe = ControlProbe(scene.address)
    callers = Callers(path or scene.proxied, timeout_s=timeout_s)
    try:
        began_s = time.time()
        time.sleep(BASELINE_S)
        injected_s = time.time()
        fault.inject(scene.context)
        in_force_s = time.time()
        time.sleep(WINDOW_S)
        heal_began_s = time.time()
        fault.heal(scene.context)
        wait_for(lambda: fault.is_healed(scene.context), "the fault heals")
        healed_s = time.time()
    finally:
        calls, samples = callers.stop(), probe.stop()
    lives = {name: process.lives for name, process in scene.context.processes.items()}
    windows = Window(injected_s, healed_s), Window(began_s, injected_s)
    in_force = Window(in_force_s, heal_began_s)
    return fault.prove(Evidence(*windows, calls, samples, lives, in_force=in_force))


def test_latency_is_seen_at_its_dose(scene: Stage) -> None:
    proof = measure(scene, make("latency", delay="100ms", jitter="10ms"))
    assert proof.verdict is ProofVerdict.EFFECTIVE, proof
    assert 80 < proof.observed["shift_ms"] < 140, proof
    assert proof.requested["delay_ms"] == 100


def test_latency_of_nothing_is_ineffective(scene: Stage) -> None:
    proof = measure(scene, make("latency", delay="0s"))
    assert proof.verdict is ProofVerdict.INEFFECTIVE, proof


def test_latency_that_the_load_bypasses_is_ineffective(scene: Stage) -> None:
    proof = measure(scene, make("latency", delay="100ms"), path=scene.address)
    assert proof.verdict is ProofVerdict.INEFFECTIVE, proof


def test_reset_peer_resets_connections_again_and_again(scene: Stage) -> None:
    proof = measure(scene, make("reset_peer"))
    assert proof.verdict is ProofVerdict.EFFECTIVE, proof
    assert proof.observed["resets"] >= 2 * proof.observed["connections"] == 12, "re-dialled connections are reset too"
    assert proof.observed["control_errors"] == 0


def test_reset_peer_that_the_load_bypasses_is_ineffective(scene: Stage) -> None:
    proof = measure(scene, make("reset_peer"), path=scene.address)
    assert proof.verdict is ProofVerdict.INEFFECTIVE, proof


def test_kill_is_seen_by_the_system_the_control_path_and_the_load(scene: Stage) -> None:
    before = scene.server.identity
    proof = measure(scene, make("kill", restart_after="1s"))
    assert proof.verdict is ProofVerdict.EFFECTIVE, proof
    assert proof.observed["pid"] == before.pid
    assert proof.observed["returncode"] == -9
    assert proof.observed["new_pid"] == scene.server.identity.pid != before.pid
    assert proof.observed["outage_s"] >= 1.0


def test_kill_lasts_as_long_as_the_restart_waits() -> None:
    fault = make("kill", restart_after="3s")
    assert fault.window(None) == timedelta(seconds=3)
    with pytest.raises(ValueError, match="restart_after"):
        fault.window(timedelta(seconds=5))
    assert make("latency", delay="1s").window(None) is None


def test_everybody_cut_off_is_not_answered_and_not_closed(scene: Stage) -> None:
    """No call of the load is answered, none fails before its time, and the untouched path goes on."""
    proof = measure(scene, make("timeout"), timeout_s=0.3)
    assert proof.verdict is ProofVerdict.EFFECTIVE, proof
    assert proof.observed["answered"] == 0
    assert proof.observed["control_answered"] == proof.observed["control_calls"]


def test_a_cut_that_the_load_bypasses_is_ineffective(scene: Stage) -> None:
    """The twin: it is in force, and calls go another way."""
    proof = measure(scene, make("timeout"), path=scene.address)
    assert proof.verdict is ProofVerdict.INEFFECTIVE, proof


def test_of_several_only_those_it_hits_are_slow(scene: Stage, request: pytest.FixtureRequest) -> None:
    """On real paths side by side: those chosen are slowed down by the dose, and the others are what shows it."""
    names = [f"agents-{number}" for number in range(4)]
    fault = make("latency", target="agents", share=0.5, delay="100ms")
    reserved = ports.reserve(len(names))
    request.addfinalizer(reserved.release)
    paths = {
        name: scene.toxiproxy.create_proxy(name, scene.address, f"127.0.0.1:{port}")
        for name, port in zip(names, reserved.ports, strict=True)
    }
    context = replace(scene.context, proxies=(PROXY, *names), seed=7)
    probes = {name: ControlProbe(path) for name, path in paths.items()}
    try:
        began_s = time.time()
        time.sleep(BASELINE_S)
        injected_s = time.time()
        fault.inject(context)
        time.sleep(WINDOW_S)
        fault.heal(context)
        assert fault.is_healed(context)
        healed_s = time.time()
    finally:
        stop_all(probes.values())
    windows = Window(injected_s, healed_s), Window(began_s, injected_s)
    seen = {name: probe.samples() for name, probe in probes.items()}
    proof = fault.prove(Evidence(*windows, [], [], paths=seen, connected=names, seed=7))
    assert proof.verdict is ProofVerdict.EFFECTIVE, proof
    assert 80 < proof.observed["shift_ms"] < 140, proof
    assert len(proof.observed["hit"]) == 2


TOXICS = [("latency", {"delay": "50ms"}), ("reset_peer", {}), ("timeout", {})]


@pytest.mark.parametrize(("kind", "settings"), TOXICS)
def test_the_record_alone_undoes_a_toxic_once(scene: Stage, kind: str, settings: dict[str, object]) -> None:
    fault = make(kind, **settings)
    record = fault.undo_record(scene.context)
    assert faults.undo(record) is None, "nothing is there before the injection"
    fault.inject(scene.context)
    assert not fault.is_healed(scene.context)
    said = faults.undo(record)
    assert said is not None
    assert "holdfast-f1" in said
    assert scene.toxiproxy.toxics(PROXY) == {}
    assert faults.undo(record) is None


def test_healing_may_be_repeated_and_may_come_without_an_injection(scene: Stage) -> None:
    fault = make("latency", delay="50ms")
    fault.heal(scene.context)
    fault.inject(scene.context)
    fault.heal(scene.context)
    fault.heal(scene.context)
    assert fault.is_healed(scene.context)


def test_a_toxic_of_a_dead_toxiproxy_needs_no_undoing() -> None:
    record = {"kind": "latency", "address": "127.0.0.1:9", "toxics": [{"proxy": PROXY, "name": "holdfast-x"}]}
    assert faults.undo(record) is None


def test_a_kind_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(FaultError, match="'meteor'"):
        faults.undo({"kind": "meteor"})


def test_what_is_not_in_force_as_asked_is_an_error(scene: Stage) -> None:
    with pytest.raises(ToxiproxyError, match="refused"):
        scene.toxiproxy.add_toxic(PROXY, "t", "no_such_type", "downstream", 1.0, {})
    with pytest.raises(ToxiproxyError, match="'nowhere'"):
        scene.toxiproxy.add_toxic("nowhere", "t", "latency", "downstream", 1.0, {"latency": 1})


def test_two_toxiproxies_are_not_confused(scene: Stage) -> None:
    elsewhere = Toxiproxy("127.0.0.1:9")
    assert not elsewhere.ready()
    assert scene.toxiproxy.ready()
    with pytest.raises(ToxiproxyError, match=r"127\.0\.0\.1:9"):
        elsewhere.toxics(PROXY)
    assert scene.toxiproxy.version().startswith("2.")


def test_a_busy_port_is_an_error_with_its_name(scene: Stage) -> None:
    with pytest.raises(ToxiproxyError, match="second"):
        scene.toxiproxy.create_proxy("second", scene.address, scene.proxied)
