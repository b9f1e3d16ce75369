"""TLS, metadata, deadlines and cancellation, against real grpcio servers."""

import asyncio
import json
import ssl
import subprocess
import sys
from contextlib import ExitStack

import pytest

from holdfast.cli import InputError
from holdfast_loadtests.channels import Channel, expire
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.reflection import fetch
from holdfast_loadtests.security import Security
from holdfast_loadtests.targets import target_of
from support.certificates import Authority
from support.codec_server import until
from support.secured_server import SERVICE, Needing, credentials, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def serve():
    """Starts servers: gives each one's address and what it saw."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(serving(*arguments))


def load(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "holdfast", "load", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_a_load_over_mtls_with_metadata_reaches_the_server_as_it_was_written(serve, authority):
    address, seen = serve(credentials(authority, asks_for_own=True), [Needing()])
    cert, key = authority.issue("client")
    done = load(
        address, f"{SERVICE}/ListAgents", "--users", "1", "--for", "300ms", "--json", "--deadline", "30s",
        "--ca", authority.ca, "--cert", cert, "--key", key, "--authority", "registry.test:443",
        "-H", "x-token: secret", "-H", "X-Raw-bin: AAH/", "-H", "x-note:a, b",
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr  # 2: this machine was too busy to be punctual
    found = json.loads(done.stdout)
    assert found["outcomes"].keys() == {"ok"}, found
    told = seen.metadata[-1]
    assert told["x-token"] == "secret"
    assert told["x-raw-bin"] == b"\x00\x01\xff"
    assert told["x-note"] == "a, b"
    assert all(20 < left_s <= 30 for left_s in seen.left_s), "the deadline travels as grpc-timeout"


def test_reflection_has_the_metadata_of_the_load(serve):
    address, _ = serve(None, [Needing()])
    assert fetch(target_of(address, metadata=[("x-token", "secret")])).services == [SERVICE]
    with pytest.raises(InputError, match="Unauthenticated: no token"):
        fetch(target_of(address))


def test_reflection_has_the_authority_of_the_load(serve, authority):
    address, _ = serve(credentials(authority, "DNS:registry.test"))
    security = Security(ca=str(authority.ca))
    assert fetch(target_of(address, security, authority="registry.test")).services == [SERVICE]
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(target_of(address, security))  # the certificate does not name 127.0.0.1
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(target_of(address, security, authority="other.test"))


def test_a_certificate_of_another_ca_and_plain_text_to_tls_are_refused_with_the_reason(serve, authority, tmp_path):
    address, _ = serve(credentials(authority))
    other = Security(ca=str(Authority(tmp_path, "other-ca").ca))
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(target_of(address, other))
    with pytest.raises(InputError, match="nothing that speaks gRPC answers there"):
        fetch(target_of(address))


def test_tls_to_a_server_without_it_is_refused_with_the_reason(serve, authority):
    address, _ = serve()
    with pytest.raises(InputError, match="no TLS: "):
        fetch(target_of(address, Security(ca=str(authority.ca))))


def test_a_server_that_wants_a_certificate_refuses_a_load_without_one(serve, authority):
    address, seen = serve(credentials(authority, asks_for_own=True))
    done = load(address, f"{SERVICE}/ListAgents", "--users", "1", "--for", "300ms", "--ca", authority.ca)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot learn the services" in done.stderr
    assert seen.metadata == []


class Accepting(asyncio.Protocol):
    """A TLS server that agrees on no protocol."""


async def test_a_server_that_does_not_agree_on_http2_is_told_so(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("plain", "IP:127.0.0.1"))
    context.set_alpn_protocols(["http/1.1"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Accepting, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    expiry = Expiry(loop, expire)
    channel = Channel(0, target_of(address, Security(ca=str(authority.ca))), expiry)
    try:
        assert "the server does not offer HTTP/2 (ALPN h2) over TLS" in await channel.connect()
    finally:
        channel.close()
        expiry.close()
        await channel.wait_closed()
        server.close()


class Freezing(asyncio.Protocol):
    """Ends the handshake, and neither speaks nor reads from then on, so that a close takes its time."""

    def __init__(self, made: list["Freezing"]) -> None:
        self._made = made

    def connection_made(self, transport) -> None:
        self.transport = transport
        self._made.append(self)
        transport.pause_reading()


async def test_the_late_end_of_a_connection_that_was_given_up_settles_no_other(authority, monkeypatch):
    monkeypatch.setattr("holdfast_loadtests.channels.DIAL_WITHIN_S", 0.5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("frozen", "IP:127.0.0.1"))
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    made: list[Freezing] = []
    server = await loop.create_server(lambda: Freezing(made), "127.0.0.1", 0, ssl=context)
    target = target_of(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", Security(ca=str(authority.ca)))
    expiry = Expiry(loop, expire)
    channel = Channel(0, target, expiry)
    try:
        assert "no HTTP/2 settings within" in await channel.connect()
        await until(lambda: len(made) == 2)
        made[0].transport.abort()  # the first ends while the second is being made
        await until(lambda: len(made) == 3)
        assert "no HTTP/2 settings within" in channel.failure, "the second was given its time"
    finally:
        channel.close()
        expiry.close()
        await channel.wait_closed()
        server.close()
        for each in made:
            each.transport.abort()


def test_a_call_that_its_deadline_ends_is_cancelled_at_the_server(serve):
    address, seen = serve()
    done = load(
        address, f"{SERVICE}/GetAgent", "--users", "1", "--for", "200ms", "--deadline", "300ms", "--json",
    )  # fmt: skip
    assert done.returncode == 2, "not one call was answered: " + done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert {entry["code"] for entry in found["codes"]} == {"DeadlineExceeded"}
    assert found["outcomes"].keys() == {"indefinite"}
    assert seen.cancelled.wait(10)


def test_metadata_that_grpc_does_not_have_is_wrong_input():
    done = load("127.0.0.1:1", "a.B/C", "--users", "1", "-H", "grpc-timeout:1S")
    assert done.returncode == 3, done.stdout
    assert "--metadata: 'grpc-timeout' is not for callers to set" in done.stderr
