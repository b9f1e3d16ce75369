"""Settings of RFC 9113 §6.5: what one side tells the other of itself."""

from dataclasses import dataclass
from typing import Final

from holdfast.http2.errors import ConnectionFailedError, ErrorCode
from holdfast.http2.limits import FRAME_BYTES_MIN, FRAME_BYTES_MOST, WINDOW_BYTES_MAX

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

WINDOW_BYTES_DEFAULT: Final = 65_535
"""Window of a stream and of the connection until something else is said: RFC 9113 §6.9.2."""

TABLE_BYTES_DEFAULT: Final = 4_096
"""Size of a header table until something else is said: RFC 9113 §6.5.2."""

UNLIMITED: Final = 1 << 32
"""More than any setting can say; stands for a limit that was not named."""


@dataclass(slots=True, kw_only=True)
class Settings:
    """One side's settings, with the values that hold until others are named."""

    header_table_bytes: int = TABLE_BYTES_DEFAULT
    enable_push: bool = True
    streams_max: int = UNLIMITED
    window_bytes: int = WINDOW_BYTES_DEFAULT
    frame_bytes_max: int = FRAME_BYTES_MIN
    header_list_bytes_max: int = UNLIMITED

    def take(self, key: int, value: int, *, of_server: bool) -> None:
        """Takes one setting over; unknown ones mean nothing.

        Raises:
            ConnectionFailedError: The value is none that RFC 9113 §6.5.2 has.
        """
        if key == HEADER_TABLE_SIZE:
            self.header_table_bytes = value
        elif key == ENABLE_PUSH:
            if value > (0 if of_server else 1):
                raise _wrong("SETTINGS_ENABLE_PUSH", value, "0, or 1 from a client")
            self.enable_push = bool(value)
        elif key == MAX_CONCURRENT_STREAMS:
            self.streams_max = value
        elif key == INITIAL_WINDOW_SIZE:
            if value > WINDOW_BYTES_MAX:
                raise _wrong(
                    "SETTINGS_INITIAL_WINDOW_SIZE", value, f"at most {WINDOW_BYTES_MAX}", ErrorCode.FLOW_CONTROL_ERROR
                )
            self.window_bytes = value
        elif key == MAX_FRAME_SIZE:
            if not FRAME_BYTES_MIN <= value <= FRAME_BYTES_MOST:
                raise _wrong("SETTINGS_MAX_FRAME_SIZE", value, f"{FRAME_BYTES_MIN} to {FRAME_BYTES_MOST}")
            self.frame_bytes_max = value
        elif key == MAX_HEADER_LIST_SIZE:
            self.header_list_bytes_max = value


def _wrong(name: str, value: int, right: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> ConnectionFailedError:
    return ConnectionFailedError(code, f"{name} is {value}; it may be {right}")
