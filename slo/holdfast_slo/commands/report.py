"""`holdfast report`: a run's report, rendered again."""

from pathlib import Path

import click
from rich.console import Console

from holdfast.cli import InputError
from holdfast_slo.report import read_bundle, write_views
from holdfast_slo.report.table import render


@click.command(short_help="Render a run's report again.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Render report.html, junit.xml and summary.md of the run in DIR again, from its verdict.json and timeline.json.

    Ends with 0 whatever the verdict: it judges nothing anew.

    \b
    Example:
      holdfast report out/demo
    """
    verdict, timeline = read_bundle(directory)
    try:
        write_views(directory, verdict, timeline)
    except OSError as error:
        raise InputError(f"{directory}: cannot write the report: {error.strerror}. Check the permissions.") from error
    Console().print(render(verdict))
    click.echo(f"{directory / 'report.html'}")
