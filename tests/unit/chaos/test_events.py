"""An objective's selectors, applied to calls, say what they say in Prometheus."""

import pytest

from holdfast_chaos.events import counts, is_good, on_client_metrics
from holdfast_slo.openslo import Objective, load_objective, packaged_objectives


@pytest.fixture
def packaged() -> dict[str, Objective]:
    return {name: load_objective(path) for name, path in packaged_objectives().items()}


def labels(code: str, method: str = "RegisterAgent", kind: str = "unary") -> dict[str, str]:
    service = "holdfast.registry.v1.AgentRegistryService"
    return {"grpc_code": code, "grpc_method": method, "grpc_service": service, "grpc_type": kind}


@pytest.mark.parametrize(
    ("code", "good"), [("OK", True), ("NotFound", True), ("Unavailable", False), ("Internal", False)]
)
def test_availability_blames_the_server_only_for_its_own_faults(packaged: dict, code: str, good: bool) -> None:
    assert is_good(packaged["availability.yaml"], labels(code), 0.1) is good


@pytest.mark.parametrize(
    ("code", "latency_s", "good"),
    [("OK", 0.1, True), ("OK", 2.0, True), ("OK", 2.1, False), ("Unavailable", 0.001, False)],
)
def test_latency_is_good_up_to_the_bound_and_never_for_a_failed_call(
    packaged: dict, code: str, latency_s: float, good: bool
) -> None:
    assert is_good(packaged["latency-p95.yaml"], labels(code), latency_s) is good


def test_registration_success_counts_registrations_alone(packaged: dict) -> None:
    objective = packaged["registration-success.yaml"]
    assert counts(objective, labels("OK"))
    assert not counts(objective, labels("OK", method="GetAgent"))
    assert not is_good(objective, labels("AlreadyExists"), 0.1)


def test_streams_do_not_count_towards_latency(packaged: dict) -> None:
    assert not counts(packaged["latency-p95.yaml"], labels("OK", method="WatchAgents", kind="server_stream"))


def test_packaged_objectives_are_about_what_the_load_exposes(packaged: dict) -> None:
    assert all(on_client_metrics(objective) for objective in packaged.values())
