"""A whole run at a service that wants mTLS and a token: load, control path and readiness all get in."""

from pathlib import Path

import pytest

from support.certificates import Authority
from support.runs import run
from support.secured_server import SERVICE, Needing, credentials, serving

pytestmark = pytest.mark.experiment

EXPERIMENT = """\
apiVersion: holdfast/v1
kind: Experiment
metadata: {{name: secured}}
target: {{address: {address}}}
load:
  arrivals: [{{rate: 20/s}}]
  mix: [{{call: {service}/ListAgents}}]
  tls: {{ca: test-ca.pem, cert: {cert}, key: {key}}}
  metadata: {{x-token: {token}}}
phases: {{warmup: 500ms, baseline: 3s, recovery: 3s, extend_up_to: 3s}}
faults:
  - {{id: slow-net, at: 3s, for: 2500ms, latency: {{delay: 100ms, jitter: 5ms}}}}
objectives:
  - {{openslo: availability.yaml, target: 0.95, phases: [baseline, recovery]}}
recovery: {{within: 3s}}
"""


@pytest.mark.parametrize("token", ["secret", "wrong"])
def test_a_run_over_mtls_with_metadata(tmp_path: Path, token: str) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    with serving(credentials(authority, asks_for_own=True), [Needing()]) as (address, seen):
        path = tmp_path / "secured.yaml"
        text = EXPERIMENT.format(address=address, service=SERVICE, cert=cert.name, key=key.name, token=token)
        path.write_text(text)
        done = run(path, tmp_path)
    if token == "wrong":
        assert (done.exit_code, seen.metadata) == (3, []), done.output
        return
    assert done.codes <= {"GENERATOR_SATURATED"}, done.output  # which a busy machine may make it
    assert done.exit_code == (2 if done.codes else 0), done.output
    assert {fault["verdict"] for fault in done.verdict["faults"]} == {"EFFECTIVE"}
    assert {told["x-token"] for told in seen.metadata} == {"secret"}
