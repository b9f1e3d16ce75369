"""The write-ahead log of the embedded store, as a server that died left it."""

import os
from pathlib import Path


def log_of(path: Path) -> Path:
    """Where SQLite keeps the log of the file at `path`."""
    return path.with_name(f"{path.name}-wal")


def settle(path: Path) -> None:
    """Makes durable what the log of a file holds, and the names of both, before anyone is shown what is in them.

    A server that died between a write and its sync leaves writes that only the kernel's memory holds: the next one
    would read them there, answer from them, and lose them in a power cut. They are not only synced but written again.
    A kernel that failed to sync takes for clean what never came to the disk, and a later sync would spare it
    (https://wiki.postgresql.org/wiki/Fsync_Errors). That is why a server whose sync failed may be started again.

    The bytes are the same, so it does not matter where this is cut short. It needs no room on the disk, unlike moving
    the log into the file. The file needs none of this: whatever it holds that is not durable is in the log still.

    Raises:
        OSError: Nobody knows whether it is durable.
    """
    log = log_of(path)
    if log.exists():
        with log.open("r+b") as file:
            content = file.read()
            file.seek(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
