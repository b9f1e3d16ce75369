"""Compressed messages: what is decompressed, what is refused, and how requests are framed."""

import gzip
import zlib

import pytest

from holdfast_loadtests.compression import CompressionError, TooLongError, compress, decompress
from holdfast_loadtests.framing import cut, frame

WORDS = b"to and fro " * 1000


def test_gzip_gives_back_what_was_compressed():
    assert decompress(b"gzip", gzip.compress(WORDS), len(WORDS)) == WORDS
    assert decompress(b"gzip", gzip.compress(b""), 0) == b""


def test_compressed_messages_are_framed_one_by_one_and_flagged():
    framed = cut(frame([WORDS, b""], compressed=True))
    assert [one[0] for one in framed] == [1, 1]
    assert [decompress(b"gzip", one[5:], len(WORDS)) for one in framed] == [WORDS, b""]


def test_the_same_message_is_compressed_to_the_same_bytes_at_any_time(monkeypatch):
    before = compress(WORDS)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert compress(WORDS) == before


def test_what_is_longer_than_the_limit_is_not_made():
    with pytest.raises(TooLongError, match=f"over {len(WORDS) - 1} bytes"):
        decompress(b"gzip", gzip.compress(WORDS), len(WORDS) - 1)


@pytest.mark.parametrize(
    ("encoding", "data", "says"),
    [
        (None, gzip.compress(WORDS), "no grpc-encoding; gzip was asked for"),
        (b"snappy", b"x", "grpc-encoding 'snappy'; gzip was asked for"),
        (b"gzip", b"", "cut-off gzip"),
        (b"gzip", zlib.compress(WORDS), "no gzip"),
        (b"gzip", gzip.compress(WORDS)[:-1], "cut-off gzip"),
        (b"gzip", gzip.compress(WORDS) + b"x", "more than gzip"),
        (b"gzip", gzip.compress(WORDS)[:-8] + bytes(8), "no gzip"),
    ],
    ids=["no encoding", "another encoding", "nothing", "zlib", "cut off", "more", "wrong checksum"],
)
def test_what_is_no_gzip_says_why(encoding, data, says):
    with pytest.raises(CompressionError, match=says):
        decompress(encoding, data, 1 << 20)
