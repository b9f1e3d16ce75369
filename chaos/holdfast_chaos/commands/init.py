"""`holdfast init`: a first experiment for a service that is running."""

import os
from pathlib import Path

import click

from holdfast.cli import InputError
from holdfast_chaos.first_experiment import first_experiment, services_called
from holdfast_chaos.first_objectives import first_objectives
from holdfast_loadtests.protosets import read_protoset
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
    """Write a first experiment and objectives for the service at HOST:PORT, from what it says of itself by reflection.

    The experiment calls every method that by its name only reads, with a request to be filled in, and slows the network
    down. The objectives, availability and latency of the services called, are OpenSLO files beside it; those that are
    there already stay as they are.

    \b
    Examples:
      holdfast init 127.0.0.1:9000
      holdfast plan experiment.yaml
    """
    if out.exists() and not force:
        raise InputError(f"{out} is there already: give another --out, or --force to replace it")
    descriptors = read_protoset(protoset) if protoset else fetch(target_of(target))
    named = os.path.relpath(protoset.resolve(), out.resolve().parent) if protoset else ""
    text = first_experiment(target, descriptors, named)
    objectives = {out.parent / name: text for name, text in first_objectives(services_called(descriptors)).items()}
    missing = {path: text for path, text in objectives.items() if not path.exists()}
    for path, content in {**missing, out: text}.items():
        try:
            path.write_text(content)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    for path in objectives:
        click.echo(f"{path}: " + ("set its target" if path in missing else "was there, and stays as it is"))
    click.echo(f"{out}: look at its requests, then: holdfast plan {out}")
