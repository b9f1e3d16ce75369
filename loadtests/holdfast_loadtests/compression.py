"""Compressed messages: answers, for which the load asks as most gRPC clients do, and requests where it is to."""

import gzip
import zlib
from typing import Final

ACCEPTED: Final = b"gzip"
"""The value of grpc-accept-encoding; that a message may be plain goes without saying."""

GZIP: Final = b"gzip"
"""The value of grpc-encoding where requests are compressed."""

_GZIP_WBITS: Final = 31
"""zlib's sign for a gzip header."""


class CompressionError(ValueError):
    """A message cannot be decompressed; the text says why."""


class TooLongError(CompressionError):
    """It is longer than the limit, once decompressed."""


def compress(data: bytes) -> bytes:
    """A message by gzip, without a time in it: the same bytes at any time."""
    return gzip.compress(data, mtime=0)


def decompress(encoding: bytes | None, data: bytes, bytes_max: int) -> bytes:
    """A message whose compressed flag is set.

    Args:
        encoding: the answer's grpc-encoding; None where it had none.
        data: the message as it came.
        bytes_max: nothing longer is made of it, however small it came.

    Raises:
        TooLongError: it holds more than `bytes_max`.
        CompressionError: the encoding is not gzip, or the data are none.
    """
    if encoding != b"gzip":
        said = "no grpc-encoding" if encoding is None else f"grpc-encoding {encoding.decode('latin-1')!r}"
        raise CompressionError(f"a compressed message with {said}; gzip was asked for")
    inflater = zlib.decompressobj(_GZIP_WBITS)
    try:
        found = inflater.decompress(data, bytes_max + 1)
    except zlib.error as error:
        raise CompressionError(f"a message of {len(data)} bytes that is no gzip: {error}") from error
    if len(found) > bytes_max:
        raise TooLongError(f"a message of over {bytes_max} bytes once decompressed, from {len(data)}")
    if not inflater.eof or inflater.unused_data:
        raise CompressionError(f"a message of {len(data)} bytes that is cut-off gzip, or more than gzip")
    return found
