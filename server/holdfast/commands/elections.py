"""`holdfast elections`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.printing import Printer, id_of, time_of

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.coordination.v1.election_service_pb2 import Leadership

COLUMNS = ("ELECTION", "LEADER", "FENCE", "VALUE", "SINCE")


@click.group()
def elections() -> None:
    """Who leads.

    \b
    Examples:
      holdfast elections get scheduler
      holdfast elections watch scheduler

    Exit codes: 1 refused, 2 nobody answered or the outcome is unknown, 3 wrong arguments.
    """


@elections.command("get")
@click.argument("election")
@connected
async def get_leader(client: "Client", printer: Printer, election: str) -> None:
    """Show who leads.

    \b
    Example:
      holdfast elections get scheduler --json
    """
    found = await client.elections.get(election)
    printer.rows(COLUMNS, [(found, _row(found))])


@elections.command("watch")
@click.argument("election")
@connected
async def watch_leader(client: "Client", printer: Printer, election: str) -> None:
    """Show who leads, then every change, until Ctrl-C.

    \b
    Example:
      holdfast elections watch scheduler
    """
    async for leadership in client.elections.observe(election):
        printer.change("LEADS" if leadership.leader else "VACANT", leadership, _row(leadership))


def _row(leadership: "Leadership") -> Sequence[str]:
    return (
        id_of(leadership.election),
        leadership.leader or "-",
        str(leadership.fence),
        leadership.value.decode(errors="replace"),
        time_of(leadership, "elect_time"),
    )
