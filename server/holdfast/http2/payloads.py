"""What is inside frames, kind by kind: RFC 9113 §6.

Builders make whole frames. Readers of payloads check what is said of each by itself, whatever the state of its stream;
they raise ConnectionFailedError with the code that RFC 9113 names.
"""

from collections.abc import Iterable

from holdfast.http2.errors import ConnectionFailedError, ErrorCode, StreamFailedError
from holdfast.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WORD,
    frame,
    kind_name,
)
from holdfast.http2.limits import FRAME_BYTES_MIN, STREAM_ID_MAX

# Builders.


def data_frame(stream_id: int, data: bytes, *, ends: bool = False, padding: int | None = None) -> bytes:
    """A DATA frame; `padding` bytes of padding, 0 to 255, make it a padded one."""
    flags = END_STREAM if ends else 0
    if padding is None:
        return frame(DATA, flags, stream_id, data)
    return frame(DATA, flags | PADDED, stream_id, bytes((padding,)) + data + bytes(padding))


def headers_frames(
    stream_id: int, block: bytes, *, ends: bool = False, frame_bytes_max: int = FRAME_BYTES_MIN
) -> bytes:
    """A header block as one HEADERS frame, and as many CONTINUATION frames as it takes."""
    flags = END_STREAM if ends else 0
    if len(block) <= frame_bytes_max:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    made = [frame(HEADERS, flags, stream_id, block[:frame_bytes_max])]
    for start in range(frame_bytes_max, len(block), frame_bytes_max):
        after = start + frame_bytes_max
        made.append(frame(CONTINUATION, END_HEADERS if after >= len(block) else 0, stream_id, block[start:after]))
    return b"".join(made)


def priority_frame(stream_id: int, depends_on: int, weight: int, *, exclusive: bool = False) -> bytes:
    """A PRIORITY frame, which RFC 9113 deprecates; `weight` is 1 to 256."""
    return frame(PRIORITY, 0, stream_id, WORD.pack(depends_on | exclusive << 31) + bytes((weight - 1,)))


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, WORD.pack(code))


def settings_frame(settings: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame of (identifier, value) pairs."""
    return frame(SETTINGS, 0, 0, b"".join(key.to_bytes(2, "big") + WORD.pack(value) for key, value in settings))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def push_promise_frame(stream_id: int, promised_id: int, block: bytes) -> bytes:
    """A PUSH_PROMISE frame with a whole block."""
    return frame(PUSH_PROMISE, END_HEADERS, stream_id, WORD.pack(promised_id) + block)


def ping_frame(payload: bytes, *, ack: bool = False) -> bytes:
    """A PING frame of 8 bytes, or the answer to one."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway_frame(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, WORD.pack(last_stream_id) + WORD.pack(code) + debug)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, WORD.pack(increment))


# Readers.


def fragment(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """What is left of DATA, HEADERS or PUSH_PROMISE without padding and, of HEADERS, without priority."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise _wrong_size(kind, payload, "at least 1, the length of its padding")
        start, end = 1, end - payload[0]
    if kind == HEADERS and flags & PRIORITY_FLAG:
        start += 5
        if len(payload) < start:
            raise _wrong_size(kind, payload, "at least 5, its priority")
    if start > end:
        raise ConnectionFailedError(
            ErrorCode.PROTOCOL_ERROR,
            f"a {kind_name(kind)} frame of {len(payload)} bytes on stream {stream_id} claims {payload[0]} of padding",
        )
    return payload[start:end]


def check_priority(stream_id: int, payload: bytes) -> None:
    """Looks at the size of PRIORITY; what it says is ignored. Raises StreamFailedError too."""
    if len(payload) != 5:
        raise StreamFailedError(
            ErrorCode.FRAME_SIZE_ERROR, f"a PRIORITY frame of {len(payload)} bytes; it has 5", stream_id
        )


def reset_code(payload: bytes) -> int:
    """The code of RST_STREAM."""
    if len(payload) != 4:
        raise _wrong_size(RST_STREAM, payload, "4")
    return int.from_bytes(payload, "big")


def settings_pairs(flags: int, payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of SETTINGS, in order; none of an acknowledgement."""
    if flags & ACK and payload:
        raise _wrong_size(SETTINGS, payload, "none, as an acknowledgement")
    if len(payload) % 6:
        raise _wrong_size(SETTINGS, payload, "a multiple of 6")
    return [
        (int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        for at in range(0, len(payload), 6)
    ]


def promised(payload: bytes) -> tuple[int, bytes]:
    """The promised stream's id and the block of PUSH_PROMISE, whose padding is off already."""
    if len(payload) < 4:
        raise _wrong_size(PUSH_PROMISE, payload, "at least 4")
    return int.from_bytes(payload[:4], "big") & STREAM_ID_MAX, payload[4:]


def check_ping(payload: bytes) -> None:
    """Looks at the size of PING."""
    if len(payload) != 8:
        raise _wrong_size(PING, payload, "8")


def goaway_parts(payload: bytes) -> tuple[int, int, bytes]:
    """The last stream's id, the code and the debug data of GOAWAY."""
    if len(payload) < 8:
        raise _wrong_size(GOAWAY, payload, "at least 8")
    last_id = int.from_bytes(payload[:4], "big") & STREAM_ID_MAX
    return last_id, int.from_bytes(payload[4:8], "big"), payload[8:]


def window_increment(stream_id: int, payload: bytes) -> int:
    """The increment of WINDOW_UPDATE. Raises StreamFailedError for none on a stream."""
    if len(payload) != 4:
        raise _wrong_size(WINDOW_UPDATE, payload, "4")
    increment = int.from_bytes(payload, "big") & STREAM_ID_MAX
    if increment:
        return increment
    message = f"a WINDOW_UPDATE of 0 on stream {stream_id}"
    if stream_id:
        raise StreamFailedError(ErrorCode.PROTOCOL_ERROR, message, stream_id)
    raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, message)


def _wrong_size(kind: int, payload: bytes, right: str) -> ConnectionFailedError:
    return ConnectionFailedError(
        ErrorCode.FRAME_SIZE_ERROR, f"a {kind_name(kind)} frame of {len(payload)} bytes; it has {right}"
    )
