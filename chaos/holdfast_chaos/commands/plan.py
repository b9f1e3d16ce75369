"""`holdfast plan`: what a run would do, without touching anything."""

import json

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from holdfast_chaos.consoles import wide_console
from holdfast_chaos.experiment import load_experiment
from holdfast_chaos.planning import Plan, SamplePlan, make_plan


@click.command()
@click.argument("experiment")
@click.option(
    "--target", metavar="HOST:PORT", help="Plan against a running service, in place of the experiment's target."
)
@click.option("--seed", type=click.IntRange(min=0), help="As in `holdfast run`.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: load.arrivals.0.rate=10/s"
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(experiment: str, target: str | None, seed: int | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say what a run would do: targets, blast radius, timeline, samples needed. Touches nothing.

    \b
    Examples:
      holdfast plan fleet-under-fire
      holdfast plan mine.yaml --json | jq .samples
    """
    made = make_plan(load_experiment(experiment, overrides, target=target, seed=seed))
    if as_json:
        click.echo(json.dumps(made.as_json(), indent=2))
    else:
        show(made, wide_console())


def show(made: Plan, console: Console) -> None:
    """Prints a plan for people."""
    console.print(f"[bold]{made.name}[/bold]  {made.length_s:g} s after warm-up, seed {made.seed}", highlight=False)
    lines = [
        ("target", made.target),
        ("starts", ", ".join(made.starts)),
        *(("breaks", line) for line in made.blast_radius),
    ]
    for label, text in lines:
        console.print(f"{label:<8} {escape(text)}", highlight=False)
    console.print(_timeline(made), _samples(made))


def _timeline(made: Plan) -> Table:
    table = Table(title="timeline", title_justify="left", box=None, padding=(0, 2))
    for column in ("from", "to", "phase"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in made.phases:
        table.add_row(f"{phase.start_s:g} s", f"{phase.end_s:g} s", phase.name)
    return table


def _samples(made: Plan) -> Table:
    table = Table(title="samples", title_justify="left", box=None, padding=(0, 2))
    for column in ("objective", "phase", "target", "needed", "waited for", "expected", ""):
        table.add_column(column, justify="left" if column in {"objective", "phase", ""} else "right")
    for sample in made.samples:
        expected = "not known" if sample.expected is None else f"{sample.expected:.0f}"
        table.add_row(
            sample.objective,
            sample.phase,
            f"{sample.target:g}",
            str(sample.needed),
            str(sample.gathered),
            expected,
            _note(sample),
        )
    return table


def _note(sample: SamplePlan) -> str:
    if sample.enough is False and not sample.extended_by_s:
        return "too few: the phase cannot be extended"
    if sample.extended_by_s == float("inf"):
        return "no call of the load counts towards it"
    return f"extended by {sample.extended_by_s:.0f} s" if sample.extended_by_s >= 1 else "enough"
