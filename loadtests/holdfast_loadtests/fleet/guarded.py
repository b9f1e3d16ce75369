"""A resource outside the service that fences protect, as docs/client.md advises: it refuses all but the largest.

One file for each thing written to, a line for each write it accepted: the largest fence so far is on the last line.
It outlives every process of the fleet, and serves them one at a time by a lock of the operating system.
"""

import fcntl
from pathlib import Path


class GuardedResource:
    """Things in a folder that any process may write to, each under a fence."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, thing: str, fence: int, writer: str) -> bool:
        """Writes to a thing; False where a greater fence has been there before."""
        with (self._folder / thing).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, or its process dies
            file.seek(0)
            lines = file.read().splitlines()
            if lines and int(lines[-1].split()[0]) > fence:
                return False
            file.write(f"{fence} {writer}\n")
        return True
