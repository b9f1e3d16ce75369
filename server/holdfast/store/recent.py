"""The newest changes, in memory for all watchers together."""

from collections import deque
from collections.abc import Sequence

from holdfast.store.interface import Change

COUNT_MAX = 4096
"""Most changes kept; a watcher that is further behind reads them back from the engine."""

BYTES_MAX = 64 << 20
"""Most bytes of the changes kept."""


class RecentChanges:
    """A row of changes without holes, the oldest of which go when there are too many."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._size_bytes = 0

    def extend(self, changes: Sequence[Change]) -> None:
        """Adds the changes that follow."""
        self._changes.extend(changes)
        self._size_bytes += sum(change.size_bytes for change in changes)
        while len(self._changes) > COUNT_MAX or self._size_bytes > BYTES_MAX:
            self._size_bytes -= self._changes.popleft().size_bytes

    def after(self, revision: int, limit: int) -> Sequence[Change]:
        """At most `limit` changes that follow a revision; none if the first of them is not kept."""
        if not self._changes or self._changes[0].revision > revision + 1:
            return ()
        first = revision + 1 - self._changes[0].revision
        return [self._changes[index] for index in range(first, min(first + limit, len(self._changes)))]
