"""What a peer did wrong, in words: the errors of reading a connection, each with the code that RFC 9113 has."""

from holdfast.http2.errors import ConnectionFailedError, ErrorCode, StreamFailedError
from holdfast.http2.fields import Fields
from holdfast.http2.frames import CONTINUATION, SETTINGS, kind_name


def failed(code: ErrorCode, message: str) -> ConnectionFailedError:
    """The connection has failed."""
    return ConnectionFailedError(code, message)


def check_expected(expected: int, kind: int, stream_id: int) -> None:
    """Raises ConnectionFailedError unless a frame is of the kind that has to come."""
    if kind != expected:
        raise unexpected(expected, kind, stream_id)


def unexpected(expected: int | None, kind: int, stream_id: int) -> ConnectionFailedError:
    """A frame that may not come now; `expected` is the only kind that may, None if CONTINUATION may not."""
    got = f"a {kind_name(kind)} frame on stream {stream_id}"
    if expected == SETTINGS:
        return failed(ErrorCode.PROTOCOL_ERROR, f"{got} came first; it must be SETTINGS")
    if expected == CONTINUATION:
        return failed(ErrorCode.PROTOCOL_ERROR, f"{got} within the headers of a stream; CONTINUATION of it must come")
    return failed(ErrorCode.PROTOCOL_ERROR, f"{got} that continues nothing")


def on_stream_0(kind: int) -> ConnectionFailedError:
    """A frame of a stream that names none."""
    return failed(ErrorCode.PROTOCOL_ERROR, f"a {kind_name(kind)} frame on stream 0; it belongs to a stream")


def on_stream(kind: int, stream_id: int) -> ConnectionFailedError:
    """A frame of the connection that names a stream."""
    return failed(ErrorCode.PROTOCOL_ERROR, f"a {kind_name(kind)} frame on stream {stream_id}; it belongs to stream 0")


def never_opened(kind: int, stream_id: int) -> ConnectionFailedError:
    """A frame of a stream that is idle, or was jumped over: RFC 9113 §5.1 and §5.1.1."""
    message = f"a {kind_name(kind)} frame on stream {stream_id}, which was never opened"
    return failed(ErrorCode.PROTOCOL_ERROR, message)


def malformed(stream_id: int, fields: Fields, wanted: str) -> StreamFailedError:
    """A field section that is none, or not the one that has to come: RFC 9113 §8.1.1."""
    why = fields.problem or (
        f"{fields.kind} fields came" if fields.kind != wanted else f"status {fields.status or 'none'} at the wrong time"
    )
    return StreamFailedError(
        ErrorCode.PROTOCOL_ERROR, f"the {wanted} headers of stream {stream_id} are malformed: {why}", stream_id
    )
