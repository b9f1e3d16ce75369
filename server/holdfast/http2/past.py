"""What is remembered of streams that are over, within bounds: which late frames are harmless (RFC 9113 §5.1)."""

from collections import deque

from holdfast.http2.errors import ErrorCode
from holdfast.http2.frames import HEADERS, kind_name
from holdfast.http2.violations import failed, never_opened

GAPS_MAX = 100
"""Ranges of ids that a client jumped over which are remembered, to name the error right when one comes late."""


class PastStreams:
    """Streams that this end reset, and ids that were jumped over.

    Args:
        resets_max: How many resets are remembered. Streams up to the last that was forgotten get the benefit of the
            doubt.
    """

    __slots__ = ("_forgotten_up_to", "_gaps", "_resets", "_resets_max")

    def __init__(self, resets_max: int) -> None:
        self._resets_max = resets_max
        self._resets: dict[int, None] = {}
        self._forgotten_up_to = 0
        self._gaps: deque[tuple[int, int]] = deque(maxlen=GAPS_MAX)

    @property
    def resets_count(self) -> int:
        """How many resets are remembered."""
        return len(self._resets)

    def was_reset(self, stream_id: int) -> bool:
        """Whether this end has reset a stream, as far as it remembers."""
        return stream_id in self._resets

    def reset(self, stream_id: int) -> None:
        """This end has reset a stream, or will not look at it: the peer may send more before it hears."""
        self._resets[stream_id] = None
        if len(self._resets) > self._resets_max:
            oldest = next(iter(self._resets))
            del self._resets[oldest]
            self._forgotten_up_to = max(self._forgotten_up_to, oldest)

    def jumped(self, below: int, above: int) -> None:
        """The peer opened a stream without those between: they are closed."""
        self._gaps.append((below, above))

    def check_late(self, kind: int, stream_id: int) -> None:
        """Lets a frame of a stream that is over pass if the peer may have sent it before it heard of the reset.

        Raises:
            ConnectionFailedError: STREAM_CLOSED; PROTOCOL_ERROR for the first headers of a stream that was jumped over.
        """
        if stream_id in self._resets or stream_id <= self._forgotten_up_to:
            return
        if kind == HEADERS and any(below < stream_id < above for below, above in self._gaps):
            raise never_opened(kind, stream_id)
        raise failed(ErrorCode.STREAM_CLOSED, f"a {kind_name(kind)} frame on stream {stream_id}, which has ended")
