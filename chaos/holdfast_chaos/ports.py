"""Loopback ports that stay a run's own: held by locked files, so that parallel runs never share one.

They lie outside the range the kernel hands out to outgoing connections, so a restarted server always gets its port
back. (Binding port 0, closing and reusing the number would be a race that is lost under load.)
"""

import contextlib
import errno
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FIRST, LAST = 20_000, 31_999
"""Below 32 768, where Linux starts handing out ports by itself; macOS and the BSDs start at 49 152."""

_COUNT_MAX: Final = 64


class PortsExhaustedError(Exception):
    """No free port is left in the range, or none can be reserved."""


@dataclass
class Reservation:
    """Ports held until `release`, or until this process ends."""

    ports: Sequence[int]
    _locks: list[int] = field(default_factory=list, repr=False)

    def release(self) -> None:
        """Gives the ports back. Repeatable."""
        while self._locks:
            os.close(self._locks.pop())


def reserve(count: int) -> Reservation:
    """Holds `count` (at most 64) loopback ports on which nothing listens.

    Raises:
        PortsExhaustedError: there are not so many left between 20 000 and 31 999.
    """
    if not 0 <= count <= _COUNT_MAX:
        raise ValueError(f"count is {count}: expected 0 to {_COUNT_MAX}")
    folder = runtime_folder()
    found: list[int] = []
    locks: list[int] = []
    for port in random.sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
        if len(found) == count:
            break
        lock = _lock(folder / f"{port}.lock")
        if lock is None:
            continue
        if _free(port):
            found.append(port)
            locks.append(lock)
        else:
            os.close(lock)
    reservation = Reservation(tuple(found), locks)
    if len(found) < count:
        reservation.release()
        raise PortsExhaustedError(
            f"{count} loopback ports wanted, {len(found)} free between {FIRST} and {LAST}: "
            "end other runs (holdfast recover --all)"
        )
    return reservation


def runtime_folder() -> Path:
    """Where the locks are: one per user, gone with the machine's next start."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "holdfast" if base else Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}"
    folder = folder / "ports"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not base and any(part.lstat().st_uid != os.getuid() for part in (folder.parent, folder)):
            raise PermissionError(errno.EPERM, "another user made this folder")  # who could lead its files anywhere
    except OSError as error:
        raise PortsExhaustedError(
            f"ports cannot be reserved in {folder}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of yours"
        ) from error
    return folder


def _lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _free(port: int) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle to them
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
