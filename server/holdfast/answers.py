"""The answers kept for request_ids: by key, by age, and by what each namespace holds of them."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast import names
from holdfast.core.state import RequestEntry


@dataclass(slots=True)
class _Held:
    """What one namespace holds: its keys, the oldest first, and the bytes of keys and values."""

    keys: dict[str, None] = field(default_factory=dict)
    size_bytes: int = 0


class Answers:
    """Answers by key, in the order they were given.

    Attributes:
        size_bytes: What they take, with their keys.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._entries: dict[str, RequestEntry] = {}
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answers) and (self._entries, self._held) == (other._entries, other._held)

    __hash__ = None  # type: ignore[assignment] # it changes

    def get(self, key: str) -> RequestEntry | None:
        """The answer kept under a request's key."""
        return self._entries.get(key)

    def put(self, key: str, entry: RequestEntry) -> None:
        """Takes the newest answer in."""
        self.remove(key)
        self._entries[key] = entry
        held = self._held.setdefault(names.parent_of(key), _Held())
        held.keys[key] = None
        held.size_bytes += _size_bytes(key, entry)
        self.size_bytes += _size_bytes(key, entry)

    def remove(self, key: str) -> None:
        """Forgets an answer, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        parent = names.parent_of(key)
        held = self._held[parent]
        del held.keys[key]
        held.size_bytes -= _size_bytes(key, entry)
        self.size_bytes -= _size_bytes(key, entry)
        if not held.keys:
            del self._held[parent]

    def oldest(self) -> Iterator[tuple[str, RequestEntry]]:
        """Keys and answers, the oldest first; good until the next revision."""
        return iter(self._entries.items())

    def beyond(self, count_max: int, bytes_max: int) -> Iterator[str]:
        """Keys to forget, one after the other, until what is left is within both bounds; good until the next revision.

        Each is the oldest of the namespace that then holds the largest share of either bound, so whoever asks for
        much forgets their own.
        """
        count, size_bytes = len(self._entries), self.size_bytes
        if count <= count_max and size_bytes <= bytes_max:
            return
        left = {parent: (len(held.keys), held.size_bytes, iter(held.keys)) for parent, held in self._held.items()}

        def ranked(parent: str) -> tuple[float, str]:
            return -max(left[parent][0] / max(1, count_max), left[parent][1] / max(1, bytes_max)), parent

        most = [ranked(parent) for parent in left]
        heapq.heapify(most)
        while count > count_max or size_bytes > bytes_max:
            parent = most[0][1]
            there, there_bytes, keys = left[parent]
            key = next(keys)
            gone_bytes = _size_bytes(key, self._entries[key])
            yield key
            count, size_bytes = count - 1, size_bytes - gone_bytes
            left[parent] = there - 1, there_bytes - gone_bytes, keys
            heapq.heapreplace(most, ranked(parent))


def _size_bytes(key: str, entry: RequestEntry) -> int:
    return len(key) + len(entry.value)
