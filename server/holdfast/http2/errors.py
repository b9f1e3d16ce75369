"""Error codes of RFC 9113 §7, and the exceptions of this package, by whose fault they are.

Http2Error
├── PeerError                the peer broke a rule or a bound
│   ├── ConnectionFailedError    of the connection: nothing more can be read from it
│   └── StreamFailedError        of one stream, which is reset; the connection goes on
└── CallerError              the program that uses the codec asked for what cannot be
    ├── CannotOpenError          no stream can be opened now; `obstacle` says why
    ├── UnsentFullError          too much waits for the peer's windows already
    └── MisuseError              an order that no state of the peer would make right
"""

from enum import Enum, IntEnum


class ErrorCode(IntEnum):
    """Why a stream was reset or a connection ended: RFC 9113 §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def code_name(code: int) -> str:
    """The name of a code, or its number in hexadecimal: peers may send codes that no standard knows."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


class Http2Error(Exception):
    """The root of this package's exceptions."""


class PeerError(Http2Error):
    """The peer broke a rule or a bound; `code` is what it is told, `message` names the value."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class ConnectionFailedError(PeerError):
    """The connection cannot be read any further: RFC 9113 §5.4.1."""


class StreamFailedError(PeerError):
    """One stream is broken, and is reset: RFC 9113 §5.4.2."""

    def __init__(self, code: ErrorCode, message: str, stream_id: int) -> None:
        super().__init__(code, message)
        self.stream_id = stream_id


class CallerError(Http2Error):
    """The caller asked for what cannot be; nothing was sent and nothing changed."""


class Obstacle(Enum):
    """Why no stream can be opened."""

    NO_STREAM_IDS = "every id of this connection is used: open another connection"
    GOING_AWAY = "the peer takes no more streams on this connection (GOAWAY): open another connection"
    CLOSED = "the connection has ended: open another connection"
    STREAMS_FULL = "the peer takes no more streams at a time (SETTINGS_MAX_CONCURRENT_STREAMS): wait for one to end"


class CannotOpenError(CallerError):
    """No stream can be opened now."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle.value)
        self.obstacle = obstacle


class UnsentFullError(CallerError):
    """What the peer's windows hold back has reached `Limits.unsent_bytes_max`."""


class MisuseError(CallerError):
    """An order that no state of the peer would make right, as sending on a stream that was ended."""
