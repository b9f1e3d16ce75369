"""The console that commands print their tables on."""

from rich.console import Console

WIDTH_ELSEWHERE = 120
"""Where output goes to a file or a CI log there is no width to obey, and a table should keep its lines whole."""


def wide_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table elsewhere. Respects NO_COLOR."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, WIDTH_ELSEWHERE))
