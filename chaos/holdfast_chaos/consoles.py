"""The console that commands print their tables on."""

import os
import sys

from rich.console import Console

WIDTH_ELSEWHERE = 120
"""Where output goes to a file or a CI log there is no width to obey, and a table should keep its lines whole."""


class _Patient(Console):
    """A console whose reader may leave: what is printed for them must not end what goes on."""

    def on_broken_pipe(self) -> None:
        """Drops the rest (`holdfast run … | head`); rich would exit with 1, which claims a proven violation."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def wide_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table elsewhere. Respects NO_COLOR."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a mark that an old terminal cannot show is no reason to fail
    console = _Patient()
    return console if console.is_terminal else _Patient(width=max(console.width, WIDTH_ELSEWHERE))
