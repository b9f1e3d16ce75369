"""`holdfast run`: carry an experiment out and judge it."""

import shlex
import sys
from pathlib import Path

import click

from holdfast.cli import InputError
from holdfast_chaos import progress, session
from holdfast_chaos.consoles import wide_console
from holdfast_chaos.experiment import load_experiment
from holdfast_loadtests.access import Tls
from holdfast_slo.report.table import render


@click.command(epilog="Exit codes: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 wrong input, 4 clean-up failed.")
@click.argument("experiment")
@click.option("--target", metavar="HOST:PORT", help="A running service to test, in place of the experiment's target.")
@click.option(
    "--prometheus", metavar="URL", help="A Prometheus that already scrapes the target, in place of the run's own."
)
@click.option("--ca", metavar="FILE", help="TLS, trusting this CA, in place of the experiment's.")
@click.option("--cert", metavar="FILE", help="Own certificate of the load (mTLS).")
@click.option("--key", metavar="FILE", help="Its key.")
@click.option("--seed", type=click.IntRange(min=0), help="Fixes every random choice; default: the experiment's.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the bundle; default: out/<experiment>.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: load.arrivals.0.rate=10/s"
)
@click.option("--json", "as_json", is_flag=True, help="Print verdict.json on stdout and nothing else.")
def run(
    experiment: str,
    target: str | None,
    prometheus: str | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    seed: int | None,
    out: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Load a service, break things, and say whether it kept its objectives.

    EXPERIMENT is a file, or the name of a packaged experiment such as fleet-under-fire.

    \b
    Examples:
      holdfast run fleet-under-fire
      holdfast run my-experiment.yaml --target 127.0.0.1:50051 --out out/mine
      holdfast run fleet-under-fire --set load.arrivals.0.rate=20/s --json | jq .verdict
    """
    if bool(cert) != bool(key):
        raise InputError("--cert and --key go together: a certificate is of no use without its key")
    tls = Tls(ca=ca, cert=cert, key=key) if ca or cert else None
    resolved = load_experiment(experiment, overrides, target=target, seed=seed, tls=tls)
    out = out or Path("out") / resolved.name
    typed = shlex.join(["holdfast", *sys.argv[1:]])
    if as_json:
        verdict = session.carry_out(resolved, out, progress.Silent(), prometheus_url=prometheus, command=typed)
        click.echo(verdict.to_json(), nl=False)
        return verdict.exit_code
    console = wide_console()
    with progress.on_console(console) as shown:
        verdict = session.carry_out(resolved, out, shown, prometheus_url=prometheus, command=typed)
    console.print(render(verdict))
    console.print(f"report: {out / 'report.html'}", highlight=False)
    return verdict.exit_code
