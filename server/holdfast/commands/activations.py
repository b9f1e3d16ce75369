"""`holdfast activations`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.printing import Printer, enum_name, id_of, time_of
from holdfast.commands.reading import add_reads

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


add_reads(
    activations,
    COLUMNS,
    _row,
    lists="List activations.",
    list_example="--filter 'state = RUNNING'",
    gets="Show all of one activation, with payload and result.",
)
