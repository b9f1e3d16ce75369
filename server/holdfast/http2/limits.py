"""Bounds on what a peer can make this end hold or do, each with where its default comes from."""

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.http2.errors import ConnectionFailedError, ErrorCode

WINDOW_BYTES_MAX = (1 << 31) - 1
"""Largest flow-control window: RFC 9113 §6.9.1."""

FRAME_BYTES_MIN, FRAME_BYTES_MOST = 16_384, (1 << 24) - 1
"""Between these SETTINGS_MAX_FRAME_SIZE may be: RFC 9113 §6.5.2."""

STREAM_ID_MAX = (1 << 31) - 1
"""Largest stream id: RFC 9113 §5.1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection takes from its peer. What breaks a bound ends the stream or the connection, never quietly."""

    frame_bytes_max: int = FRAME_BYTES_MIN
    """Payload of one frame; the least that RFC 9113 §4.2 allows, and what most peers keep."""

    header_list_bytes_max: int = 16_384
    """Fields of one section as RFC 9113 §6.5.2 counts them, 32 bytes each on top of their text. gRPC's C core refuses
    metadata above 16 KiB. A block that is longer than the list it may hold is refused before it is decoded."""

    header_table_bytes_max: int = 0
    """Header table that the peer's blocks may use. None makes every block stand for itself, so that the fields of those
    that come again are found by their bytes."""

    continuation_frames_max: int = 8
    """CONTINUATION frames of one block, as nghttp2 has since CVE-2024-28182; two carry all that a list may hold."""

    streams_open_max: int = 100
    """Streams the peer may have open at a time; RFC 9113 §6.5.2 advises against less. Those beyond are refused."""

    stream_window_bytes: int = 65_535
    """Bytes of one stream that the peer may send before some are given back: RFC 9113 §6.9.2."""

    connection_window_bytes: int = 1 << 20
    """The same for all streams together; at least 65 535, which every peer may send unasked."""

    resets_per_s: float = 100.0
    resets_burst: int = 1_000
    """Streams of a client that come to nothing: reset by it (CVE-2023-44487), or by this end because it broke a rule or
    the bound on open streams (CVE-2025-8671). The burst is nghttp2's; its 33 a second would cut off gRPC callers that
    hedge. A server may reset each stream once; more of its resets are idle frames."""

    idle_frames_per_s: float = 1_000.0
    idle_frames_burst: int = 1_000
    """Frames that move nothing: empty DATA, empty fragments of headers, PRIORITY, unknown kinds, answers to nothing
    (CVE-2019-9513, CVE-2019-9518). Decent peers send a handful in the life of a connection."""

    window_updates_per_s: float = 100_000.0
    window_updates_burst: int = 100_000
    """WINDOW_UPDATE frames. A peer that reads one small message at a time sends as many as it gets messages."""

    answers_waiting_max: int = 1_000
    """Acknowledgements of PING and SETTINGS, and RST_STREAM frames, that were not taken for sending yet: a peer that
    asks and does not read fills memory (CVE-2019-9512, CVE-2019-9515). nghttp2 has 1 000, Go 10 000. As many as a peer
    likes may pass while it reads: grpc-go sends a PING for every round trip with data."""

    resets_remembered_max: int = 1_000
    """Streams reset by this end whose late frames are known to be harmless. Older ones get the benefit of the doubt."""

    unsent_bytes_max: int = 16 << 20
    """Bytes that may wait on this end for the peer's windows, over all streams: four messages of gRPC's largest."""

    cached_blocks_max: int = 256
    cached_block_bytes_max: int = 1_024
    """Header blocks whose fields are kept by their bytes, where no table is in use; when full, it begins anew."""

    def __post_init__(self) -> None:
        """Raises ValueError for a bound that RFC 9113 does not have."""
        _between("frame_bytes_max", self.frame_bytes_max, FRAME_BYTES_MIN, FRAME_BYTES_MOST)
        _between("stream_window_bytes", self.stream_window_bytes, 0, WINDOW_BYTES_MAX)
        _between("connection_window_bytes", self.connection_window_bytes, 65_535, WINDOW_BYTES_MAX)
        _between("streams_open_max", self.streams_open_max, 0, (1 << 32) - 1)
        _between("header_list_bytes_max", self.header_list_bytes_max, 1, (1 << 32) - 1)


def _between(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}: give {least} to {most}")


class Budget:
    """So many a second, and a burst saved up: what a peer may do without being asked.

    Args:
        what: What is counted, for the message.
        per_s: How many come back each second.
        burst: How many may be saved.
        clock: A monotonic clock, in seconds.
    """

    __slots__ = ("_burst", "_clock", "_left", "_per_s", "_since_s", "_what")

    def __init__(self, what: str, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._what = what
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._since_s = clock()

    def spend(self) -> None:
        """Counts one. Raises ConnectionFailedError, ENHANCE_YOUR_CALM, once there are too many."""
        if self._left < 1:
            now_s = self._clock()
            self._left = min(self._burst, self._left + (now_s - self._since_s) * self._per_s)
            self._since_s = now_s
            if self._left < 1:
                raise ConnectionFailedError(
                    ErrorCode.ENHANCE_YOUR_CALM,
                    f"more than {self._burst} {self._what} at once and {self._per_s:g} a second",
                )
        self._left -= 1
