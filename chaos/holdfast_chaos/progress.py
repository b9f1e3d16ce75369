"""What a person sees while a run goes on: a live panel on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from holdfast_loadtests.snapshots import Snapshot

LINE_EVERY_S = 5.0
"""How often a line is printed where there is no terminal to redraw."""


@dataclass
class Scene:
    """What is going on right now."""

    phase: str = "starting"
    phase_ends_s: float = 0.0
    phase_length_s: float = 0.0
    note: str = ""
    sent: int = 0
    errors: int = 0
    rps: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    lag_p99_ms: float = 0.0

    def follow(self, snapshot: Snapshot) -> None:
        """Takes over the load's numbers."""
        self.sent, self.errors, self.rps = snapshot.sent, snapshot.errors, snapshot.rps
        self.p50_ms, self.p95_ms, self.lag_p99_ms = snapshot.p50_ms, snapshot.p95_ms, snapshot.lag_p99_ms

    def remaining_s(self, now_s: float) -> float:
        """Seconds until the phase ends as planned; 0 once that has passed."""
        return max(0.0, self.phase_ends_s - now_s)


class Progress(Protocol):
    """Where a run tells what it does."""

    def say(self, line: str) -> None:
        """Something happened that a person would want to know."""

    def show(self, scene: Scene) -> None:
        """The scene changed."""


class Silent:
    """Tells nobody; for `--json`."""

    def say(self, line: str) -> None:
        """Nothing."""

    def show(self, scene: Scene) -> None:
        """Nothing."""


class Lines:
    """A line for each event, and one for the scene every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_line_s = 0.0
        self._phase = ""

    def say(self, line: str) -> None:
        """Prints the line at once."""
        self._console.print(Text(line))

    def show(self, scene: Scene) -> None:
        """Prints the scene when the phase changed or the last line is old."""
        now_s = time.monotonic()
        if scene.phase != self._phase or now_s >= self._next_line_s:
            self._phase = scene.phase
            self._next_line_s = now_s + LINE_EVERY_S
            self._console.print(Text(f"  {scene.phase:<24} {_load_line(scene)}"))


class Panel:
    """A live panel: the phase and how much of it is left, and the load in numbers."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def say(self, line: str) -> None:
        """Prints the line above the panel."""
        self._live.console.print(Text(line))

    def show(self, scene: Scene) -> None:
        """Redraws the panel."""
        self._live.update(_panel(scene, time.time()))


@contextmanager
def on_console(console: Console) -> Iterator[Progress]:
    """The progress that fits the console: live on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Panel(live)


def _panel(scene: Scene, now_s: float) -> Group:
    done_s = scene.phase_length_s - scene.remaining_s(now_s)
    row = Table.grid(padding=(0, 2))
    row.add_row(
        Text(scene.phase, style="bold red" if scene.phase.startswith("fault:") else "bold"),
        ProgressBar(total=max(scene.phase_length_s, 0.001), completed=done_s, width=30),
        Text(f"{scene.remaining_s(now_s):3.0f} s left" if scene.phase_length_s else scene.note),
    )
    return Group(row, Text(_load_line(scene), style="dim"))


def _load_line(scene: Scene) -> str:
    return (
        f"{scene.sent:>7} calls  {scene.rps:6.0f}/s  {scene.errors:>5} errors  "
        f"p50 {scene.p50_ms:7.1f} ms  p95 {scene.p95_ms:7.1f} ms  generator lag p99 {scene.lag_p99_ms:5.1f} ms"
    )
