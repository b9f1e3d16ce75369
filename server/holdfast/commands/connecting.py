"""How commands reach a server, and what its refusals come to.

Exit codes: 0 it is done; 1 the service refused; 2 nobody answered, or nobody knows whether it happened; 3 the arguments
are wrong.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import EXIT_INCONCLUSIVE, InputError
from holdfast.commands.printing import Printer

if TYPE_CHECKING:
    from holdfast.client import Client, HoldfastError

EXIT_REFUSED = 1
"""The service answered, and refused."""

TARGET_DEFAULT = "127.0.0.1:50051"
"""Where `holdfast serve` listens unless told."""

TIMEOUT_S_DEFAULT = 5.0
"""How long a command waits for an answer: a person waits with it."""

Work = Callable[..., Awaitable[None]]
"""A command's body: `async (client, printer, its own arguments)`."""


class RefusedError(click.ClickException):
    """The service answered, and refused."""

    exit_code = EXIT_REFUSED


class UnknownOutcomeError(click.ClickException):
    """Nobody answered, or nobody knows whether it happened."""

    exit_code = EXIT_INCONCLUSIVE


def connected(work: Work) -> Callable[..., None]:
    """Makes a command of a coroutine: with the options that say where the server is and how to print."""

    @click.option("--target", default=TARGET_DEFAULT, show_default=True, envvar="HOLDFAST_TARGET", help="HOST:PORT.")
    @click.option("--namespace", default="default", show_default=True, envvar="HOLDFAST_NAMESPACE", help="Namespace.")
    @click.option(
        "--timeout",
        type=click.FloatRange(0.1, 3600),
        default=TIMEOUT_S_DEFAULT,
        show_default=True,
        help="Seconds to wait for the server.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    @wraps(work)
    def command(target: str, namespace: str, timeout: float, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
        _run(work, target, namespace, timeout, Printer(as_json), arguments)

    return command


def _run(
    work: Work, target: str, namespace: str, timeout_s: float, printer: Printer, arguments: dict[str, Any]
) -> None:
    from holdfast.client import Client, HoldfastError, RetryPolicy, Timeouts  # grpcio is heavy: --help needs none of it

    try:
        timeouts = Timeouts(call_s=timeout_s, attempt_s=timeout_s, connect_s=min(timeout_s, TIMEOUT_S_DEFAULT))
        client = Client(target, namespace=namespace, timeouts=timeouts, retries=RetryPolicy(attempts_max=3))
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        asyncio.run(_with(client, work, printer, arguments))
    except HoldfastError as error:
        raise _ending(error) from error
    except ValueError as error:
        raise InputError(str(error)) from error
    except BrokenPipeError:
        _leave_the_reader_alone()
    except KeyboardInterrupt:
        if not (arguments.get("watch") or work.__name__.startswith("watch")):
            raise  # for what goes on until Ctrl-C, that is its ordinary end


async def _with(client: "Client", work: Work, printer: Printer, arguments: dict[str, Any]) -> None:
    async with client:
        await work(client, printer, **arguments)


def _ending(error: "HoldfastError") -> click.ClickException:
    if error.reason == "INVALID_FIELD":
        return InputError(str(error))
    if error.definite and error.reason != "UNREACHABLE":
        return RefusedError(str(error))
    return UnknownOutcomeError(str(error))


def _leave_the_reader_alone() -> None:
    """The reader has left (`… | head`), which is no failure; what is still to be written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
