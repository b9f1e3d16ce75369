"""What the answers of all calls of a generator may hold together: no server can fill its memory."""

from typing import Final

HELD_BYTES_MAX: Final = 512 * 1024 * 1024
"""As much as 32 of the longest messages, far below what a machine that makes load has."""

UNCOUNTED_BYTES_MAX: Final = 64 * 1024
"""A message that came whole, in one frame, and is no longer than this is not counted, which would cost every call: the
2 000 calls at a time that there may be hold 128 MiB of such ones at most."""

LESS_AT_A_TIME: Final = "make fewer calls at a time, or share the load among more workers under Locust"


class Room:
    """Counts the bytes of messages that are not complete, and of complete ones whose call goes on.

    Args:
        bytes_max: a call that takes them over it is to be ended.

    Attributes:
        held_bytes: now.
        refused: how often there was no room: calls whose end says nothing about the server.
    """

    __slots__ = ("_bytes_max", "held_bytes", "refused")

    def __init__(self, bytes_max: int = HELD_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.held_bytes = 0
        self.refused = 0

    def take(self, more_bytes: int) -> bool:
        """Counts so many more, or fewer where negative. Returns whether there is room for them."""
        self.held_bytes += more_bytes
        if more_bytes <= 0 or self.held_bytes <= self._bytes_max:
            return True
        self.refused += 1
        return False

    @property
    def problem(self) -> str:
        """Why a call was ended, and what to do; in whole MiB, so that calls that end alike are told alike."""
        held, may = f"{self.held_bytes / (1 << 20):.0f} MiB", f"{self._bytes_max / (1 << 20):g} MiB"
        return f"the answers under way hold {held}, and may hold {may}: {LESS_AT_A_TIME}"
