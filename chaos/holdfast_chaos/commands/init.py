"""`holdfast init`: a first experiment for a service that is running."""

from pathlib import Path

import click

from holdfast.cli import InputError
from holdfast_chaos.first_experiment import first_experiment
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.reflection import fetch
from holdfast_loadtests.targets import target_of


@click.command(epilog="Exit codes: 0 written, 3 wrong input; nothing was written.")
@click.argument("target", metavar="HOST:PORT")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("experiment.yaml"), show_default=True, help="The file."
)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
@click.option(
    "--protoset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A FileDescriptorSet, where there is no reflection.",
)
def init(target: str, out: Path, force: bool, protoset: Path | None) -> None:
    """Write a first experiment for the service at HOST:PORT, from what it says of itself by reflection.

    It calls every method that by its name only reads, with a request to be filled in, and slows the network down.

    \b
    Examples:
      holdfast init 127.0.0.1:9000
      holdfast plan experiment.yaml
    """
    if out.exists() and not force:
        raise InputError(f"{out} is there already: give another --out, or --force to replace it")
    descriptors = Descriptors(protoset.read_bytes()) if protoset else fetch(target_of(target))
    text = first_experiment(target, descriptors)
    try:
        out.write_text(text)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    click.echo(f"{out}: look at its requests, then: holdfast plan {out}")
