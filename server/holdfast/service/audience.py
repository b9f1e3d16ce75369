"""Everybody who watches a replica: how many there may be, and room for what is on its way to them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import HoldfastError, Reason
from holdfast.service.room import Room

WATCHERS_MAX = 10_000
"""Most watches at a time on one replica, of all kinds. One host may have half of them, so that others can still watch.
"""


class Audience:
    """The watches that run, of all kinds.

    Attributes:
        count: How many.
        watchers_max: See `WATCHERS_MAX`.
        room: For large messages to them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.watchers_max = WATCHERS_MAX
        self.room = Room()
        self._by_client = Counter[str]()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Counts a watch while it runs; without a client, only among all.

        Raises:
            HoldfastError: QUOTA_EXCEEDED.
        """
        if self.count >= self.watchers_max:
            raise _too_many(self.watchers_max, "this replica")
        if client and self._by_client[client] >= self.watchers_max // 2:
            raise _too_many(self.watchers_max // 2, client)
        self.count += 1
        self._by_client[client] += 1
        try:
            yield
        finally:
            self.count -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def _too_many(limit: int, whose: str) -> HoldfastError:
    message = f"{limit} watches of {whose} run already; end some, or ask another replica."
    return HoldfastError(Reason.QUOTA_EXCEEDED, message, subject=whose)
