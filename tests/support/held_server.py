"""The real `holdfast`, whose commits wait for as long as a file is there: `python held_server.py FILE serve …`."""

import sys
import time
from pathlib import Path

from holdfast import cli, failpoints
from holdfast.failpoints import Failpoint

HELD_S_MAX = 60.0
"""Longest wait, so that nothing hangs when the test is gone."""


def hold(file: Path) -> None:
    """Makes commits wait."""

    def wait(point: Failpoint) -> None:
        until_s = time.monotonic() + HELD_S_MAX
        while point is Failpoint.BEFORE_COMMIT and file.exists() and time.monotonic() < until_s:
            time.sleep(0.01)

    failpoints.install(wait)


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
    cli.main(sys.argv[2:])
