"""`holdfast serve`."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import structlog
from click.core import ParameterSource

from holdfast import failpoints
from holdfast.cli import InputError
from holdfast.core.activations.breaker import FAILURES_MAX
from holdfast.service.janitor import RETAIN_REVISIONS_DEFAULT
from holdfast.serving import logs
from holdfast.serving.config import (
    HTTP_DEFAULT,
    LISTEN_DEFAULT,
    STORE_DEFAULT,
    AddressType,
    ServerConfig,
    StoreType,
    read_file,
)


@click.command()
@click.option("--listen", type=AddressType(), default=LISTEN_DEFAULT, show_default=True, help="Where gRPC listens.")
@click.option(
    "--http", type=AddressType(), default=HTTP_DEFAULT, show_default=True, help="Where health and metrics listen."
)
@click.option(
    "--store",
    type=StoreType(),
    default=STORE_DEFAULT,
    show_default=True,
    help="sqlite:PATH, or memory (gone when the server ends).",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with these options as keys; flags win.")
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="Write addresses and pid here as JSON once serving."
)
@click.option(
    "--insecure", is_flag=True, help="Allow addresses other machines can reach: there is no authentication yet."
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Seconds that calls under way are given at shutdown.",
)
@click.option(
    "--retain-revisions",
    type=click.IntRange(1, 1_000_000),
    default=RETAIN_REVISIONS_DEFAULT,
    show_default=True,
    help="Revisions of history kept for watches to resume from.",
)
@click.option(
    "--breaker-failures",
    type=click.IntRange(0, 1_000),
    default=FAILURES_MAX,
    show_default=True,
    help="Failures in a row that open the breaker in front of an agent; 0: it never opens.",
)
@click.option(
    "--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True, help="Least level logged."
)
@click.pass_context
def serve(ctx: click.Context, /, **given: Any) -> None:  # noqa: ANN401 - of the options' types
    """Run the service.

    \b
    Examples:
      holdfast serve
      holdfast serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --store memory --ready-file ready.json
    """
    config = _config(ctx, given)
    config.check()
    logs.configure(config.log_level)
    _arm_failpoints()
    from holdfast.serving.server import run  # grpcio is heavy: --help and wrong arguments need none of it

    asyncio.run(run(config))


def _arm_failpoints() -> None:
    """Lets tests choose where the server dies; says so, in case it was not a test.

    Raises:
        InputError: The environment's choice cannot be read.
    """
    try:
        traps = failpoints.arm(os.environ)
    except failpoints.WrongTrapError as error:
        raise InputError(str(error)) from error
    if traps:
        armed = {point.value: hits for point, hits in traps.items()}
        structlog.get_logger().warning("failpoints_armed", kills_itself_at=armed, variable=failpoints.VARIABLE)


def _config(ctx: click.Context, given: dict[str, Any]) -> ServerConfig:
    path = given.pop("config")
    if path is not None:
        in_file = read_file(path, ctx.command.params, ctx)
        given |= {
            name: value
            for name, value in in_file.items()
            if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE
        }
    ready_file = given["ready_file"]
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise InputError(f"--ready-file {ready_file}: its folder does not exist. Make it, or name another place.")
    if ready_file is not None and ready_file.is_dir():
        raise InputError(f"--ready-file {ready_file}: is a folder. Name a file in it.")
    given["drain_timeout_s"] = given.pop("drain_timeout")
    return ServerConfig(**given)
