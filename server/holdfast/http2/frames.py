"""Frames of RFC 9113 §4 and §6: their kinds, the 9 bytes in front of each, and a reader that finds them in a stream."""

import struct
from collections.abc import Iterator
from typing import Final

from holdfast.http2.errors import ConnectionFailedError, ErrorCode
from holdfast.http2.limits import FRAME_BYTES_MIN

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

NAMES: Final = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame: RFC 9113 §3.4."""

HEAD_BYTES: Final = 9
HEAD: Final = struct.Struct(">HBBBI")
"""A frame's head: length (its upper 16 bits, then its lower 8), kind, flags, stream id."""

WORD: Final = struct.Struct(">I")


def kind_name(kind: int) -> str:
    """The name of a kind of frame, for messages."""
    return NAMES[kind] if kind < len(NAMES) else f"unknown (0x{kind:x})"


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame's bytes, whatever they mean."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


class FrameReader:
    """Finds frames in bytes that come in pieces. Holds at most one frame that is not complete.

    Args:
        frame_bytes_max: Longest payload taken; it may be changed between frames.

    Attributes:
        data: The bytes that the places given by `feed` are in.
    """

    __slots__ = ("_held", "_wanted", "data", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MIN) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.data = b""
        self._held = bytearray()
        self._wanted = HEAD_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        """Takes bytes, and yields a tuple for each frame that they complete: kind, flags, stream id, start, end.

        The payload is `data[start:end]` of this reader, the whole frame `data[start - 9:end]`; frames that follow one
        another are adjacent there, so that a run of them can be passed on as one slice. Iterate to the end before
        feeding more.

        Raises:
            ConnectionFailedError: FRAME_SIZE_ERROR, as soon as a head names a payload that is too long.
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._wanted:
                return
            data = bytes(held)
            held.clear()
        self.data = data
        unpack = HEAD.unpack_from
        position, there, wanted = 0, len(data), HEAD_BYTES
        while there - position >= HEAD_BYTES:
            upper, lower, kind, flags, stream_id = unpack(data, position)
            size = upper << 8 | lower
            if size > self.frame_bytes_max:
                raise ConnectionFailedError(
                    ErrorCode.FRAME_SIZE_ERROR,
                    f"a {kind_name(kind)} frame of {size} bytes on stream {stream_id & 0x7FFF_FFFF}; "
                    f"{self.frame_bytes_max} are taken",
                )
            start = position + HEAD_BYTES
            end = start + size
            if end > there:
                wanted = HEAD_BYTES + size
                break
            yield kind, flags, stream_id & 0x7FFF_FFFF, start, end
            position = end
        if position < there:
            held += data[position:]
            self._wanted = wanted
