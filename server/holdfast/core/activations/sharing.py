"""Who has been given how much: requesters take turns, and nobody gains by coming late."""

from collections import Counter

REQUESTERS_MAX = 10_000
"""Requesters remembered without waiting work; beyond, they are forgotten and count as new."""


class Shares:
    """Activations given, by namespace and requester, of those who wait or did so lately."""

    def __init__(self) -> None:
        self._served: Counter[tuple[str, str]] = Counter()
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._floor: Counter[str] = Counter()

    def lead(self, parent: str, requester: str) -> int:
        """How many a requester was given; what counts is the difference from others of the namespace."""
        return self._served[parent, requester]

    def join(self, parent: str, requester: str) -> None:
        """One more of a requester's waits; who has waited for none begins where the others are."""
        whose = (parent, requester)
        if not self._waiting[whose]:
            self._served[whose] = max(self._served[whose], self._floor[parent])
        self._waiting[whose] += 1

    def leave(self, parent: str, requester: str) -> None:
        """One less waits."""
        whose = (parent, requester)
        self._waiting[whose] -= 1
        if not self._waiting[whose]:
            del self._waiting[whose]
            if len(self._served) > REQUESTERS_MAX + len(self._waiting):
                for other in [each for each in self._served if each not in self._waiting]:
                    del self._served[other]

    def serve(self, parent: str, requester: str) -> None:
        """A requester was given one."""
        whose = (parent, requester)
        self._floor[parent] = max(self._floor[parent], self._served[whose])
        self._served[whose] += 1
