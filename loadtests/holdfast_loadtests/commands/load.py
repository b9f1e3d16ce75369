"""`holdfast load`: load at any gRPC service, from one line."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from holdfast.cli import EXIT_INCONCLUSIVE, InputError
from holdfast_loadtests import spec as load_spec
from holdfast_loadtests.assertions import EXAMPLES, Assertion, parse_assertion
from holdfast_loadtests.engine import LoadError, LoadRun
from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.protosets import read_protoset
from holdfast_loadtests.results import SHARES, Results, results_of
from holdfast_loadtests.security import Security
from holdfast_loadtests.snapshots import Snapshot
from holdfast_loadtests.spec import CONCURRENCY_MAX, LoadSpec
from holdfast_loadtests.summary import unended_text
from holdfast_loadtests.tables import load_table
from holdfast_slo.durations import parse_duration

EXIT_FAIL: Final = 1
SHOWN_NOTES_MAX: Final = 10


@click.command(
    epilog="Exit codes: 0 all that was asserted holds, no answer is other than --check and --expect say, and some are "
    "right; 1 not so; 2 cannot tell: no calls, none answered, calls without an end, a saturated generator, or ended "
    "early; 3 wrong input."
)
@click.argument("target", metavar="HOST:PORT")
@click.argument("call", metavar="PKG.SERVICE/METHOD")
@click.option("--rate", help="Open model: calls fall due at this rate, whether or not answers come: 500, 600/m.")
@click.option("--users", type=click.IntRange(1), help="Closed model: so many call one after the other.")
@click.option("--for", "length", default="10s", show_default=True, help="How long.")
@click.option("--ramp-to", help="The rate at the end, reached steadily.")
@click.option("--poisson", is_flag=True, help="Random arrivals with that rate, not evenly spaced ones.")
@click.option("-d", "--data", "requests", multiple=True, help="The request as JSON, or @FILE; more than one: a stream.")
@click.option("--table", "tables", multiple=True, metavar="NAME=FILE", help="CSV or JSONL for {{NAME.column}}.")
@click.option("--expect", multiple=True, metavar="CODE", help="Codes that are right; default OK.")
@click.option("--check", "checks", multiple=True, metavar="FIELD=VALUE", help="What an OK's message must hold.")
@click.option("--receive", type=click.IntRange(1), help="Streams: end, as OK, after so many messages.")
@click.option(
    "--pace", metavar="on_answer|INTERVAL", help="Streams: when messages after the first go; default at once."
)
@click.option("--deadline", default="20s", show_default=True, help="Of each call.")
@click.option("--compression", type=click.Choice(["gzip"]), help="Compress requests; answers may be anyway.")
@click.option("--connections", type=click.IntRange(1, CONCURRENCY_MAX), help="TCP connections; default 1.")
@click.option("--concurrency", type=click.IntRange(1, CONCURRENCY_MAX), help="Calls at a time; default 2000.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Fixes every random choice.")
@click.option("-H", "--metadata", multiple=True, metavar="NAME:VALUE", help="Metadata of every call; of …-bin, base64.")
@click.option("--tls", is_flag=True, help="TLS, trusting the system's CAs.")
@click.option("--ca", default="", metavar="FILE", help="TLS, trusting this CA.")
@click.option("--cert", default="", metavar="FILE", help="Own certificate (mTLS).")
@click.option("--key", default="", metavar="FILE", help="Its key.")
@click.option("--authority", default="", help="What the server is to be called.")
@click.option(
    "--protoset",
    type=click.Path(exists=True, path_type=Path),
    help="A FileDescriptorSet, where there is no reflection.",
)
@click.option("--assert", "assertions", multiple=True, metavar="EXPR", help=f"What must hold: {EXAMPLES}.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout and nothing else.")
def load(target: str, call: str, as_json: bool, assertions: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401
    """Load a gRPC method and show latencies from the intended start, codes, and how late the generator was.

    Methods and messages are learned from the server by reflection. Requests may have holes: {{uuid}}, {{counter}},
    {{int(1, 6)}}, {{pick(red, green)}}, {{text(20)}}, and the columns of tables.

    \b
    Examples:
      holdfast load --rate 500 --for 30s 127.0.0.1:50051 grpc.health.v1.Health/Check
      holdfast load --users 50 127.0.0.1:50051 pkg.Users/Get -d '{"id": "u-{{int(1, 1000)}}"}' --assert 'p99 < 50ms'
    """
    wanted = [parse_assertion(text) for text in assertions]
    length_s = _length_s(options["length"])
    plan = _plan(target, call, options)
    with tempfile.TemporaryDirectory(prefix="holdfast-load-") as folder:
        try:
            results, ended_early = _carry_out(plan, length_s, Path(folder))
        except LoadError as error:
            click.echo(f"Error: {error}", err=True)
            return EXIT_INCONCLUSIVE
    verdicts = [(assertion, *assertion.judge(results)) for assertion in wanted]
    if as_json:
        found = [{"assertion": one.text, "holds": holds, "observed": text} for one, holds, text in verdicts]
        click.echo(json.dumps({**results.as_json(), "ended_early": ended_early, "assertions": found}))
    else:
        _show(results, verdicts)
    claimed = [not results.wrong] if options["checks"] or options["expect"] else []
    return exit_code_of(results, [*claimed, *(holds for _, holds, _ in verdicts)], ended_early)


def exit_code_of(results: Results, held: Sequence[bool | None], ended_early: bool) -> int:
    """The command's exit code: data that cannot be trusted first, then a violation, then what cannot be told.

    Args:
        results: what the load found.
        held: whether each claim holds, None where that cannot be told.
        ended_early: whether the user ended it.
    """
    if results.saturated or ended_early or not results.ended:
        return EXIT_INCONCLUSIVE
    if False in held:
        return EXIT_FAIL
    answered = results.outcomes.get("ok", 0) + results.outcomes.get("definite", 0)
    if None in held or not answered or results.unended:
        return EXIT_INCONCLUSIVE
    return EXIT_FAIL if results.failed.count == results.ended else 0


def _length_s(text: str) -> float:
    try:
        found = parse_duration(text).total_seconds()
    except ValueError as error:
        raise InputError(f"--for: {error}") from error
    if found <= 0:
        raise InputError("--for: a load takes longer than 0s")
    return found


def _plan(target: str, call: str, options: Mapping[str, Any]) -> LoadPlan:
    tables = {name: load_table(Path(path)) for name, path in _pairs("--table", options["tables"], "=")}
    spec = _spec(call, options)
    load_spec.check(spec, tables)
    host, colon, port = target.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InputError(f"{target!r} is no address: expected HOST:PORT, like 127.0.0.1:50051")
    is_tls = options["tls"] or options["ca"] or options["cert"] or options["key"]
    protoset: Path | None = options["protoset"]
    return LoadPlan(
        target=target,
        spec=spec,
        tables=tables,
        seed=options["seed"],
        descriptors=read_protoset(protoset).file_set if protoset else b"",
        first_phase="load",
        security=Security(options["ca"], options["cert"], options["key"]) if is_tls else None,
        authority=options["authority"],
        metadata=_metadata(options),
        records=False,
    )


def _metadata(options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = tuple(_pairs("--metadata", options["metadata"], ":"))
    try:
        wire_metadata(found)
    except ValueError as error:
        raise InputError(f"--metadata: {error}") from error
    return found


def _pairs(option: str, texts: Sequence[str], mark: str) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        name, there, value = text.partition(mark)
        if not there or not name:
            raise InputError(f"{option} {text!r}: expected NAME{mark}VALUE")
        found.append((name, value))
    return found


def _spec(call: str, options: Mapping[str, Any]) -> LoadSpec:
    if (options["rate"] is None) == (options["users"] is None):
        raise InputError("either --rate (open model) or --users (closed model)")
    bodies = [_request(text) for text in options["requests"]]
    step: dict[str, Any] = {"call": call, "assert": dict(_pairs("--check", options["checks"], "="))}
    step |= {"messages": bodies} if len(bodies) > 1 else {"request": bodies[0] if bodies else {}}
    step |= {"expect": list(options["expect"])} if options["expect"] else {}
    step |= {"receive": options["receive"]} if options["receive"] else {}
    step |= {"pace": options["pace"]} if options["pace"] else {}
    parts: dict[str, Any] = {
        "scenarios": [{"name": "load", "steps": [step]}],
        "deadline": options["deadline"],
        "connections": options["connections"] or 1,
        "compression": options["compression"],
    }
    if options["users"] is not None:
        parts["users"] = options["users"]
    else:
        stretch = {"rate": _rate(options["rate"]), "for": options["length"]}
        stretch |= {"to": _rate(options["ramp_to"])} if options["ramp_to"] else {}
        stretch |= {"process": "poisson"} if options["poisson"] else {}
        parts |= {"arrivals": [stretch], "concurrency": options["concurrency"] or CONCURRENCY_MAX}
    try:
        return LoadSpec.model_validate(parts)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {first['msg']}, got {str(first['input'])[:80]!r}") from error


def _rate(text: str) -> str:
    return text if "/" in text else f"{text}/s"


def _request(text: str) -> object:
    try:
        raw = Path(text[1:]).read_text() if text.startswith("@") else text
        found = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--data {text[:60]!r}: expected a JSON object or @FILE with one: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f'--data {text[:60]!r}: expected a JSON object, like \'{{"name": "x"}}\'')
    return found


def _carry_out(plan: LoadPlan, length_s: float, folder: Path) -> tuple[Results, bool]:
    """Runs the load. Returns what it found, and whether the user ended it before its time."""
    ended_early = False
    with LoadRun.start(plan, folder) as run:
        console = Console(stderr=True)
        try:
            with Live(console=console, transient=True, auto_refresh=False) as live:
                while (left_s := length_s - run.elapsed_s) > 0 and run.alive():
                    time.sleep(min(left_s, 0.25))  # the load runs elsewhere: this is the length that was asked for
                    if console.is_terminal:
                        live.update(_line(run.snapshot(), length_s - run.elapsed_s), refresh=True)
        except KeyboardInterrupt:
            ended_early = True
        return results_of(run.drain(), run.started_s), ended_early


def _line(snapshot: Snapshot, left_s: float) -> Text:
    return Text(
        f"{max(left_s, 0.0):4.0f} s left   {snapshot.rps:8.0f} calls/s   p50 {snapshot.p50_ms:.2f}   "
        f"p95 {snapshot.p95_ms:.2f}   p99 {snapshot.p99_ms:.2f} ms   {snapshot.in_flight} in flight   "
        f"{snapshot.errors} errors   {snapshot.lag_p99_ms:.1f} ms late"
    )


def _show(results: Results, verdicts: Sequence[tuple[Assertion, bool | None, str]]) -> None:
    for line in _lines(results):
        click.echo(line)
    for assertion, holds, found in verdicts:
        mark = {True: "holds", False: "DOES NOT HOLD", None: "CANNOT TELL"}[holds]
        click.echo(f"{assertion.text}: {mark} ({found})")
    if results.saturated:
        click.echo(f"INCONCLUSIVE: {results.saturated}")
    if results.unended:
        click.echo(f"INCONCLUSIVE: {unended_text(results.unended)}")


def _lines(results: Results) -> list[str]:
    latency, lag = results.latency, results.lag
    lag_p99_ms, lag_max_ms = lag.quantiles_us([0.99])[0] / 1000, lag.max_us / 1000
    quantiles = zip(SHARES, latency.quantiles_us(SHARES), strict=True)
    outcomes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(results.outcomes.items()))
    return [
        f"{results.ended} calls in {results.seconds:.1f} s, {results.rps:.1f}/s: {outcomes or 'none'}",
        "",
        "latency, from when a call was due to its end",
        *(f"  p{share * 100:<6g}{value_us / 1000:12.3f} ms" for share, value_us in quantiles),
        f"  max    {latency.max_us / 1000:12.3f} ms",
        "",
        "answers",
        *(f"  {count:9d}  {code:<18} {method}" for (method, code), count in sorted(results.codes.items())),
        *([f"  {results.never_sent:9d}  never sent"] if results.never_sent else []),
        *([f"  {results.unended:9d}  of them still under way at the end (indefinite)"] if results.unended else []),
        *(f"  {count:9d}  wrong: {text}" for text, count in results.notes[:SHOWN_NOTES_MAX]),
        "",
        (
            f"generator: {lag_p99_ms:.2f} ms late at p99, {lag_max_ms:.2f} at most; "
            f"longest stall {results.stall_ms_max:.0f} ms; {results.cpu_share:.0%} of a core"
        ),
    ]
