"""Users of both kinds, under Locust, at a service that wants mTLS, another name than its address, and metadata."""

import json

import pytest

from support.certificates import Authority
from support.locust_processes import HEAD, REGISTRY, alone, saturated
from support.secured_server import Needing, credentials, serving

CALLS = 30
"""What the engine makes: 20/s for 1.5 s."""

FILES = 'ca, cert, key = "test-ca.pem", "test-ca-client.pem", "test-ca-client.key"'
LOCUSTFILE = f"""{HEAD}
class Access:
    {FILES}
    authority = "registry.test"
    metadata = {{"x-token": "secret", "x-raw-bin": "AAH/"}}


class ByEngine(Access, EngineUser):
    load = {{
        "arrivals": [{{"rate": "20/s", "for": "1500ms"}}],
        "mix": [{{"call": "{REGISTRY}/ListAgents", "metadata": {{"x-from": "engine"}}}}],
    }}


class Scripted(Access, GrpcUser):
    wait_time = constant(0.2)

    @task
    def list(self):
        self.call("{REGISTRY}/ListAgents", metadata={{"x-from": "script"}})
"""


@pytest.fixture
def server(tmp_path):
    """A server's address, and what it saw. The client's files stand beside the locustfile, where its paths begin."""
    authority = Authority(tmp_path)
    authority.issue("client")
    with serving(credentials(authority, "DNS:registry.test", asks_for_own=True), [Needing()]) as running:
        yield running


def test_calls_of_both_kinds_of_users_come_with_the_certificate_the_name_and_the_metadata(server, tmp_path):
    address, seen = server
    arguments = ("--host", address, "-u", "2", "-r", "2", "--stop-timeout", "10", "--csv", "run")
    with alone(tmp_path, LOCUSTFILE, *arguments) as locust:
        code = locust.code()
    found = json.loads((tmp_path / "run_holdfast.json").read_text())
    assert found["inconclusive"] == saturated(found), locust.output
    assert code == (2 if saturated(found) else 0), locust.output
    made = [told["x-from"] for told in seen.metadata]
    assert made.count("engine") == CALLS
    assert made.count("script") == found["calls"] - CALLS > 0
    assert all((told["x-token"], told["x-raw-bin"]) == ("secret", b"\x00\x01\xff") for told in seen.metadata)


@pytest.mark.parametrize(
    ("user", "given", "instead", "words"),
    [
        ("ByEngine", '"x-token": "secret"', '"x-token": "wrong"', "Unauthenticated: no token"),
        ("Scripted", FILES, 'ca = "test-ca.pem"', "cannot learn the services"),
        ("Scripted", '"registry.test"', '"other.test"', "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["wrong token", "no certificate", "wrong name"],
)
def test_who_is_not_let_in_ends_with_3_and_sends_nothing(user, given, instead, words, server, tmp_path):
    address, seen = server
    assert given in LOCUSTFILE
    with alone(tmp_path, LOCUSTFILE.replace(given, instead), "--host", address, user) as locust:
        assert locust.code() == 3, locust.output
    assert words in locust.output
    assert seen.metadata == []
