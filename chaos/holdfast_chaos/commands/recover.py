"""`holdfast recover`: undo whatever a dead run left."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from holdfast.cli import InputError
from holdfast_chaos import recovery, runs
from holdfast_chaos.journal import FILE_NAME
from holdfast_chaos.recovery import Report

EXIT_LEFTOVERS = 4
"""Something could not be undone."""


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--all", "end_alive", is_flag=True, help="End runs that are still going, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each run instead of text.")
def recover(folder: Path | None, end_alive: bool, as_json: bool) -> int:
    """Undo whatever dead runs left: faults still in force, processes still running.

    Says what it undid, and what a run's watchdog had undone before. May be repeated; runs that are still going are left
    alone unless --all is given. With DIR (the --out folder of a run), that run only.

    \b
    Examples:
      holdfast recover                     every dead run on this machine
      holdfast recover out/demo            the run of this folder
      holdfast recover --all               end and clean up every run
    \b
    Exit codes: 0 nothing is left; 4 something could not be undone, with the command that removes it.
    """
    reports = [_recover_folder(folder, end_alive)] if folder else [_recover(run, end_alive) for run in runs.known()]
    for report in reports:
        click.echo(json.dumps(_as_json(report)) if as_json else _as_text(report))
    if not reports and not as_json:
        click.echo("Nothing to recover: no run of this user is left.")
    return EXIT_LEFTOVERS if any(report.failures for report in reports) else 0


def _recover(run: runs.Run, end_alive: bool) -> Report:
    return recovery.recover_run(run, end_alive=end_alive)


def _recover_folder(folder: Path, end_alive: bool) -> Report:
    journal = (folder / FILE_NAME).resolve()
    if not journal.is_file():
        raise InputError(
            f"{folder}: no run was here (there is no {FILE_NAME}).\n"
            "Give the folder a run was told with --out, or none to recover every dead run."
        )
    entered = next((run for run in runs.known() if run.journal == journal), None)
    return recovery.recover_journal(journal) if entered is None else _recover(entered, end_alive)


def _as_text(report: Report) -> str:
    lines = [f"Run {report.run_id or 'without an id'} ({report.journal.parent})"]
    if report.alive:
        lines.append("  still going, left alone (end it with: holdfast recover --all)")
    lines += [f"  undone before: {line}" for line in report.undone_before]
    lines += [f"  undone: {line}" for line in report.undone]
    lines += [f"  STILL THERE: {line}" for line in report.failures]
    if report.clean and not report.undone:
        lines.append("  nothing was left to undo")
    return "\n".join(lines)


def _as_json(report: Report) -> dict[str, object]:
    return {**asdict(report), "journal": str(report.journal), "clean": report.clean}
