"""`holdfast tools`: finds or installs the external programs that runs and tests use."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from holdfast.cli import InputError
from holdfast_chaos.tools import TOOLS, ToolStatus, default_dir, status
from holdfast_chaos.tools.install import Step, install, steps_for
from holdfast_chaos.tools.locate import spec_of

_QUIET_LINE_EVERY_S = 15.0
"""How often a log, which cannot rewrite a line, gets a sign of life."""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of tools. Default: $HOLDFAST_TOOLS; else .tools here or in the checkout; "
    "else ~/.local/share/holdfast/tools.",
)
@click.option("--dev", is_flag=True, help="All tools, those that only the project's own tests need included.")
@click.option("--yes", "-y", is_flag=True, help="Install without asking.")
@click.option("--check", is_flag=True, help="Only say what is there; exit 3 if anything is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the final state as JSON on stdout.")
def tools(names: tuple[str, ...], directory: Path | None, dev: bool, yes: bool, check: bool, as_json: bool) -> None:
    """Find the programs that runs need, and install what is missing.

    Looks in the folder of tools, then on PATH. Says exactly what it will install, how and where, before it does;
    does nothing when all are there.

    \b
    Examples:
      holdfast tools                    what runs need; asks before installing
      holdfast tools --yes grpcurl      one tool, without asking
      holdfast tools --check --json     what is there, for a script
    """
    where = (directory or default_dir()).absolute()
    wanted = _wanted(names, dev)
    found = status(where, wanted)
    missing = [one.spec for one in found if one.tool is None]
    if missing and not check:
        steps = steps_for(missing, where)
        _announce(steps)
        _agree(yes)
        install(steps, where, ConsoleProgress())
        found = status(where, wanted)
    _show(found, where, as_json)
    if gone := [one.spec.name for one in found if one.tool is None]:
        raise InputError(f"missing: {', '.join(gone)}. Install with: holdfast tools {' '.join(gone)}")


class ConsoleProgress:
    """Tells on stderr how the installation goes: one line per tool, with a running clock on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._told_at_s = 0.0

    def waiting(self, directory: Path) -> None:
        """Says whom we wait for."""
        click.echo(f"another 'holdfast tools' is installing into {directory}; waiting for it …", err=True)

    def started(self, name: str, doing: str) -> None:
        """Names the tool and what is done."""
        self._told_at_s = 0.0
        click.echo(f"{name}: {doing} …", err=True, nl=not self._terminal)

    def working(self, name: str, elapsed_s: float) -> None:
        """Rewrites the line on a terminal; adds one now and then to a log."""
        if self._terminal:
            click.echo(f"\r\x1b[K{name}: {elapsed_s:.0f} s …", err=True, nl=False)
        elif elapsed_s - self._told_at_s >= _QUIET_LINE_EVERY_S:
            self._told_at_s = elapsed_s
            click.echo(f"{name}: still working, {elapsed_s:.0f} s", err=True)

    def finished(self, name: str, version: str, elapsed_s: float) -> None:
        """Closes the tool's line."""
        start_of_line = "\r\x1b[K" if self._terminal else ""
        click.echo(f"{start_of_line}{name}: {version} in place after {elapsed_s:.0f} s", err=True)


def _wanted(names: Sequence[str], dev: bool) -> list[str]:
    if names:
        return [spec_of(name).name for name in names]
    return [spec.name for spec in TOOLS.values() if dev or spec.by_default]


def _announce(steps: Sequence[Step]) -> None:
    click.echo("Will install, in this order:", err=True)
    for step in steps:
        click.echo(f"  {step}", err=True)


def _agree(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nothing was installed, because there is no terminal to ask on. To go ahead, add --yes.")
    click.confirm("Go ahead?", abort=True, err=True)


def _show(found: Sequence[ToolStatus], directory: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"dir": str(directory), "tools": [_as_dict(one) for one in found]}, indent=2))
        return
    width = max(len(one.spec.name) for one in found)
    for one in found:
        there = f"{one.tool.version:<12} {one.tool.path}" if one.tool else f"missing      needs {one.spec.accepts}"
        click.echo(f"{one.spec.name:<{width}}  {there}")
        for complaint in one.rejected if one.tool is None else ():
            click.echo(f"{'':<{width}}  {complaint}")


def _as_dict(one: ToolStatus) -> dict[str, object]:
    return {
        "name": one.spec.name,
        "purpose": one.spec.purpose,
        "accepts": str(one.spec.accepts),
        "needed_by_runs": one.spec.for_runs,
        "path": str(one.tool.path) if one.tool else None,
        "version": one.tool.version if one.tool else None,
        "rejected": list(one.rejected),
    }
