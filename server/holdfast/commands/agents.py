"""`holdfast agents`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.printing import Printer, enum_name, id_of, time_of

if TYPE_CHECKING:
    from holdfast.admin.v1.quota_service_pb2 import Breaker
    from holdfast.client import Client
    from holdfast.registry.v1.agent_pb2 import Agent

BREAKER_COLUMNS = ("AGENT", "BREAKER", "FAILURES", "SINCE", "TRIES AGAIN")
COLUMNS = ("AGENT", "LIVENESS", "ADMIN", "STATUS", "TIER", "SLOTS", "CAPABILITIES")


@click.group()
def agents() -> None:
    """Who is there, and what operators decide about them.

    \b
    Examples:
      holdfast agents list --filter 'tier = 1_CORE labels.team = core'
      holdfast agents watch --json | jq .name
      holdfast agents drain builder-1 --reason 'new kernel'

    Filters: docs/filters.md. Exit codes: 1 refused, 2 nobody answered or the outcome is unknown, 3 wrong arguments.
    """


@agents.command("list")
@click.option("--filter", "only", default="", help="AIP-160; EXPIRED ones are left out unless it names liveness.")
@click.option("--watch", is_flag=True, help="Then every change, until Ctrl-C.")
@connected
async def list_agents(client: "Client", printer: Printer, only: str, watch: bool) -> None:
    """List agents.

    \b
    Examples:
      holdfast agents list --filter 'capabilities:code-review'
      holdfast agents list --filter 'liveness = EXPIRED'
      holdfast agents list --watch
    """
    if watch:
        await _follow(client, printer, only)
        return
    printer.rows(COLUMNS, [(agent, _row(agent)) async for agent in client.agents.list(only)])


@agents.command("watch")
@click.option("--filter", "only", default="", help="AIP-160.")
@connected
async def watch_agents(client: "Client", printer: Printer, only: str) -> None:
    """Show who is there, then every change, until Ctrl-C. Goes on over restarts of the server.

    \b
    Example:
      holdfast agents watch --filter 'labels.team = core'
    """
    await _follow(client, printer, only)


@agents.command("get")
@click.argument("agent")
@connected
async def get_agent(client: "Client", printer: Printer, agent: str) -> None:
    """Show all of one agent, by id or full name.

    \b
    Example:
      holdfast agents get builder-1 --json
    """
    printer.resource(await client.agents.get(agent))


def _operators(verb: str, what: str) -> None:
    """Adds what operators may decide."""

    async def decide(client: "Client", printer: Printer, agent: str, reason: str) -> None:
        decided = await getattr(client.agents, verb)(agent, reason)
        printer.rows(COLUMNS, [(decided, _row(decided))])

    decide.__doc__ = f"{what}\n\n\b\nExample:\n  holdfast agents {verb} builder-1 --reason 'new kernel'\n"
    reason = click.option("--reason", default="", help="Why, for the record.")
    agents.command(verb)(click.argument("agent")(reason(connected(decide))))


_operators("cordon", "No new work for an agent.")
_operators("uncordon", "Let an agent take work again.")
_operators("drain", "No new work for an agent, and let it finish what it has.")
_operators("ban", "Shut an agent out: it may not register again.")
_operators("unban", "Let a banned agent back in, cordoned.")


@agents.command("breakers")
@click.option("--filter", "only", default="", help="AIP-160.")
@connected
async def list_breakers(client: "Client", printer: Printer, only: str) -> None:
    """List the breakers in front of agents that were ever given work.

    \b
    Example:
      holdfast agents breakers --filter 'state = OPEN'
    """
    printer.rows(BREAKER_COLUMNS, [(each, _breaker_row(each)) async for each in client.breakers.list(only)])


@agents.command("reset-breaker")
@click.argument("agent")
@connected
async def reset_breaker(client: "Client", printer: Printer, agent: str) -> None:
    """Let work through to an agent again, and count its failures anew.

    \b
    Example:
      holdfast agents reset-breaker builder-1
    """
    breaker = await client.breakers.reset(agent)
    printer.rows(BREAKER_COLUMNS, [(breaker, _breaker_row(breaker))])


async def _follow(client: "Client", printer: Printer, only: str) -> None:
    from holdfast.client import Changes, Snapshot

    async for step in client.agents.watch(only):
        match step:
            case Snapshot(_, there):
                printer.rows(COLUMNS, [(agent, _row(agent)) for agent in there])
            case Changes(_, events):
                for event in events:
                    printer.change(enum_name(event, "type"), event.agent, _row(event.agent))


def _breaker_row(breaker: "Breaker") -> Sequence[str]:
    return (
        id_of(breaker.agent),
        enum_name(breaker, "state"),
        str(breaker.failures),
        time_of(breaker, "update_time"),
        time_of(breaker, "retry_time"),
    )


def _row(agent: "Agent") -> Sequence[str]:
    return (
        id_of(agent.name),
        enum_name(agent, "liveness"),
        enum_name(agent, "admin_state"),
        enum_name(agent, "status"),
        enum_name(agent, "tier"),
        str(agent.max_concurrency),
        ", ".join(capability.id for capability in agent.capabilities),
    )
