"""Where tools live, and the lock that keeps two installers apart."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from holdfast.cli import InputError

VARIABLE = "HOLDFAST_TOOLS"
_LOCK_WAIT_S_MAX = 1800.0
"""A fresh machine builds everything in under ten minutes; thrice that is a stuck installer."""
_LOCK_POLL_S = 0.2


def default_dir() -> Path:
    """The folder of tools: $HOLDFAST_TOOLS, else `.tools` here or in the running checkout, else in the user's data."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).absolute()
    here = Path(".tools").absolute()
    if here.is_dir():
        return here
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / "proto").is_dir():
        return checkout / ".tools"
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data_home) / "holdfast" / "tools"


@contextmanager
def locked(directory: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the folder's lock, created where needed; calls `on_wait` once if another process holds it.

    Raises:
        InputError: the folder cannot be written, or the other process kept the lock for half an hour.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"cannot write to the folder of tools {directory}: {error.strerror}. "
            f"Choose another with --dir or ${VARIABLE}."
        ) from error
    with handle:
        _acquire(handle.fileno(), directory, on_wait)
        yield


def _acquire(descriptor: int, directory: Path, on_wait: Callable[[], None]) -> None:
    deadline = monotonic() + _LOCK_WAIT_S_MAX
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                on_wait()
                told = True
            if monotonic() > deadline:
                raise InputError(
                    f"another 'holdfast tools' has held {directory / '.lock'} for {_LOCK_WAIT_S_MAX:.0f} s. "
                    "End it, then run this again."
                ) from None
            sleep(_LOCK_POLL_S)
        else:
            return
