"""`holdfast activations`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.following import follow
from holdfast.commands.printing import Printer, enum_name, id_of, time_of

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.coordination.v1.activation_service_pb2 import Activation

COLUMNS = ("ACTIVATION", "STATE", "AGENT", "ATTEMPT", "PROGRESS", "PRIORITY", "DEADLINE")


@click.group()
def activations() -> None:
    """Pieces of work, and who does them.

    \b
    Examples:
      holdfast activations list --filter 'state = DEAD_LETTERED'
      holdfast activations requeue 4f2a…
      holdfast activations cancel 4f2a… --reason 'not wanted any more'

    Exit codes: 1 refused, 2 nobody answered or the outcome is unknown, 3 wrong arguments.
    """


@activations.command("list")
@click.option("--filter", "only", default="", help="AIP-160.")
@click.option("--watch", is_flag=True, help="Then every change, until Ctrl-C.")
@connected
async def list_activations(client: "Client", printer: Printer, only: str, watch: bool) -> None:
    """List activations.

    \b
    Example:
      holdfast activations list --filter 'state = RUNNING'
    """
    if watch:
        await follow(client.activations.watch(only), printer, COLUMNS, _row)
        return
    printer.rows(COLUMNS, [(each, _row(each)) async for each in client.activations.list(only)])


@activations.command("watch")
@click.option("--filter", "only", default="", help="AIP-160.")
@connected
async def watch_activations(client: "Client", printer: Printer, only: str) -> None:
    """Show what there is, then every change, until Ctrl-C.

    \b
    Example:
      holdfast activations watch --json
    """
    await follow(client.activations.watch(only), printer, COLUMNS, _row)


@activations.command("get")
@click.argument("activation")
@connected
async def get_activation(client: "Client", printer: Printer, activation: str) -> None:
    """Show all of one activation, with payload and result.

    \b
    Example:
      holdfast activations get 4f2a… --json
    """
    printer.resource(await client.activations.get(activation))


@activations.command("cancel")
@click.argument("activation")
@click.option("--reason", default="", help="Why, for the record.")
@connected
async def cancel(client: "Client", printer: Printer, activation: str, reason: str) -> None:
    """End an activation that has not ended; its owner is told to stop.

    \b
    Example:
      holdfast activations cancel 4f2a… --reason 'not wanted any more'
    """
    found = await client.activations.cancel(activation, reason)
    printer.rows(COLUMNS, [(found, _row(found))])


@activations.command("requeue")
@click.argument("activation")
@connected
async def requeue(client: "Client", printer: Printer, activation: str) -> None:
    """Try a dead letter again, with its attempts counted anew.

    \b
    Example:
      holdfast activations requeue 4f2a…
    """
    found = await client.activations.requeue(activation)
    printer.rows(COLUMNS, [(found, _row(found))])


def _row(activation: "Activation") -> Sequence[str]:
    return (
        id_of(activation.name),
        enum_name(activation, "state"),
        id_of(activation.agent),
        f"{activation.attempt}/{activation.retry_policy.max_attempts}",
        f"{activation.progress.percent}% {activation.progress.message}".strip(),
        str(activation.priority),
        time_of(activation, "deadline"),
    )
