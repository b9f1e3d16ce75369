"""What locks of a simulation guard: it keeps the largest fence it has seen, and refuses smaller ones."""

from collections import defaultdict

from support.history import History


class Guarded:
    """Resources by name. They see fences, and nothing of the service.

    Args:
        history: Where every write is written down, accepted or not.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._fences = defaultdict[str, int](int)

    def write(self, process: str, resource: str, fence: int) -> bool:
        """Writes under a fence; False if a larger one was here."""
        is_accepted = fence >= self._fences[resource]
        self._fences[resource] = max(fence, self._fences[resource])
        self._history.guarded_write(process, resource, fence, is_accepted=is_accepted)
        return is_accepted
