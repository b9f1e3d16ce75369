"""What metadata becomes on the wire, and what is refused."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.targets import Target, target_of


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (("grpc-timeout", "1S"), "gRPC gives it a meaning of its own"),
        (("Content-Type", "x"), "gRPC gives it a meaning of its own"),
        ((":path", "/x"), "is no name of metadata"),
        (("x y", "1"), "is no name of metadata"),
        (("", "1"), "is no name of metadata"),
        (("x-name", "caf\u00e9"), "printable ASCII"),
        (("x-name", "a\nb"), "printable ASCII"),
        (("x-bin", "%%"), "no base64"),
        (("x", "a" * 9_000), "bytes of metadata"),
    ],
)
def test_metadata_that_grpc_does_not_have_is_refused_by_name(entry, why):
    with pytest.raises(ValueError, match=why):
        wire_metadata([entry])


@given(st.binary(max_size=200))
def test_bytes_come_out_as_they_went_in_and_without_padding(raw):
    for text in (base64.b64encode(raw).decode(), base64.b64encode(raw).decode().rstrip("=")):
        [(name, value)] = wire_metadata([("X-Raw-Bin", text)])
        assert name == b"x-raw-bin"
        assert base64.b64decode(value + b"=" * (-len(value) % 4)) == raw
        assert not value.endswith(b"=")


@given(st.text(max_size=20), st.text(max_size=40))
@example("x-bin", "\u0661")
def test_any_text_is_taken_or_refused_with_a_reason(name, value):
    refusal: ValueError | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()
    try:
        fields = wire_metadata([(name, value)])
    except ValueError as error:
        refusal = error
    assert bool(fields) != bool(refusal)
    assert not isinstance(refusal, UnicodeError)
    for header, field in fields:
        assert header == header.lower()
        assert not set(field) & {0, 10, 13}


def test_a_target_without_security_has_no_tls():
    assert target_of("127.0.0.1:1") == Target("127.0.0.1:1")


@pytest.mark.parametrize(
    ("authority", "name"),
    [("", "10.0.0.1"), ("a.test", "a.test"), ("a.test:443", "a.test"), ("[::1]:443", "::1"), ("a.test:x", "a.test:x")],
)
def test_the_certificate_must_name_the_authority_without_its_port(authority, name):
    assert target_of("10.0.0.1:50051", authority=authority).server_name == name
