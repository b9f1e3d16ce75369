"""`holdfast decisions`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.printing import Printer, enum_name, id_of, time_of
from holdfast.commands.reading import add_reads

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


add_reads(
    decisions,
    COLUMNS,
    _row,
    lists="List decisions.",
    list_example="--filter 'state = AWAITING_FALLBACK'",
    gets="Show all of one decision, with its votes.",
)
