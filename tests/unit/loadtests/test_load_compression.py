"""Compressed answers: what is decompressed, and what is refused."""

import gzip
import zlib

import pytest

from holdfast_loadtests.compression import CompressionError, TooLongError, decompress

WORDS = b"to and fro " * 1000


def test_gzip_gives_back_what_was_compressed():
    assert decompress(b"gzip", gzip.compress(WORDS), len(WORDS)) == WORDS
    assert decompress(b"gzip", gzip.compress(b""), 0) == b""


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
