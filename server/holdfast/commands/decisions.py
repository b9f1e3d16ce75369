"""`holdfast decisions`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.following import follow
from holdfast.commands.printing import Printer, enum_name, id_of, time_of

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.coordination.v1.decision_service_pb2 import Decision

COLUMNS = ("DECISION", "STATE", "METHOD", "VOTED", "OUTCOME", "DEADLINE", "QUESTION")


@click.group()
def decisions() -> None:
    """Questions put to agents, and what became of them.

    \b
    Examples:
      holdfast decisions list --filter 'state = OPEN'
      holdfast decisions vote 4f2a… --agent reviewer-1 --option yes
      holdfast decisions resolve 4f2a… --option no --rationale 'asked the team'

    Exit codes: 1 refused, 2 nobody answered or the outcome is unknown, 3 wrong arguments.
    """


@decisions.command("list")
@click.option("--filter", "only", default="", help="AIP-160.")
@click.option("--watch", is_flag=True, help="Then every change, until Ctrl-C.")
@connected
async def list_decisions(client: "Client", printer: Printer, only: str, watch: bool) -> None:
    """List decisions.

    \b
    Example:
      holdfast decisions list --filter 'state = AWAITING_FALLBACK'
    """
    if watch:
        await follow(client.decisions.watch(only), printer, COLUMNS, _row)
        return
    printer.rows(COLUMNS, [(decision, _row(decision)) async for decision in client.decisions.list(only)])


@decisions.command("watch")
@click.option("--filter", "only", default="", help="AIP-160.")
@connected
async def watch_decisions(client: "Client", printer: Printer, only: str) -> None:
    """Show what there is, then every change, until Ctrl-C.

    \b
    Example:
      holdfast decisions watch --json
    """
    await follow(client.decisions.watch(only), printer, COLUMNS, _row)


@decisions.command("get")
@click.argument("decision")
@connected
async def get_decision(client: "Client", printer: Printer, decision: str) -> None:
    """Show all of one decision, with its votes.

    \b
    Example:
      holdfast decisions get 4f2a… --json
    """
    printer.resource(await client.decisions.get(decision))


@decisions.command("vote")
@click.argument("decision")
@click.option("--agent", required=True, help="The elector.")
@click.option("--option", required=True, help="The id of what it votes for.")
@click.option("--confidence", type=click.FloatRange(0, 1), help="How sure it is.  [default: 1]")
@click.option("--rationale", default="", help="Why, for the record.")
@connected
async def vote(
    client: "Client",
    printer: Printer,
    decision: str,
    agent: str,
    option: str,
    confidence: float | None,
    rationale: str,
) -> None:
    """Vote in the name of an agent.

    \b
    Example:
      holdfast decisions vote 4f2a… --agent reviewer-1 --option yes
    """
    found = await client.decisions.vote(decision, agent, option, confidence=confidence, rationale=rationale)
    printer.rows(COLUMNS, [(found, _row(found))])


@decisions.command("close")
@click.argument("decision")
@connected
async def close(client: "Client", printer: Printer, decision: str) -> None:
    """End voting now: what the votes say so far, or else the fallback.

    \b
    Example:
      holdfast decisions close 4f2a…
    """
    found = await client.decisions.close(decision)
    printer.rows(COLUMNS, [(found, _row(found))])


@decisions.command("cancel")
@click.argument("decision")
@click.option("--reason", default="", help="Why, for the record.")
@connected
async def cancel(client: "Client", printer: Printer, decision: str, reason: str) -> None:
    """Take a decision back: no result.

    \b
    Example:
      holdfast decisions cancel 4f2a… --reason 'asked twice'
    """
    found = await client.decisions.cancel(decision, reason)
    printer.rows(COLUMNS, [(found, _row(found))])


@decisions.command("resolve")
@click.argument("decision")
@click.option("--option", required=True, help="The id of the option that is taken.")
@click.option("--agent", default="", help="The agent that the fallback names; an operator unless given.")
@click.option("--rationale", default="", help="Why, for the record.")
@connected
async def resolve(client: "Client", printer: Printer, decision: str, option: str, agent: str, rationale: str) -> None:
    """Settle a decision whose vote had no result.

    \b
    Example:
      holdfast decisions resolve 4f2a… --option no
    """
    found = await client.decisions.resolve(decision, option, agent=agent, rationale=rationale)
    printer.rows(COLUMNS, [(found, _row(found))])


def _row(decision: "Decision") -> Sequence[str]:
    return (
        id_of(decision.name),
        enum_name(decision, "state"),
        enum_name(decision, "method"),
        f"{sum(each.votes for each in decision.tally)}/{len(decision.electors)}",
        decision.outcome.option + (" (fallback)" if decision.outcome.by_fallback else ""),
        time_of(decision, "deadline"),
        decision.question,
    )
