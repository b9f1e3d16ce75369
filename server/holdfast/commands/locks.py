"""`holdfast locks`."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from holdfast.commands.connecting import connected
from holdfast.commands.printing import Printer, enum_name, id_of, time_of

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.coordination.v1.lock_service_pb2 import Lock

COLUMNS = ("LOCK", "STATE", "HOLDER", "FENCE", "WAITERS", "SINCE")

LOOK_EVERY_S = 1.0
"""How often `watch` lists: locks have no watch of their own."""


@click.group()
def locks() -> None:
    """Who holds which lock, and taking one away.

    \b
    Examples:
      holdfast locks list
      holdfast locks force-release deploy --reason 'holder hangs'

    Exit codes: 1 refused, 2 nobody answered or the outcome is unknown, 3 wrong arguments.
    """


@locks.command("list")
@click.option("--filter", "only", default="", help="AIP-160.")
@click.option("--watch", is_flag=True, help="Then every change, until Ctrl-C.")
@connected
async def list_locks(client: "Client", printer: Printer, only: str, watch: bool) -> None:
    """List locks that are not free.

    \b
    Example:
      holdfast locks list --filter 'state = DELAYED'
    """
    if watch:
        await _follow(client, printer, only)
        return
    printer.rows(COLUMNS, [(lock, _row(lock)) async for lock in client.locks.list(only)])


@locks.command("watch")
@click.option("--filter", "only", default="", help="AIP-160.")
@connected
async def watch_locks(client: "Client", printer: Printer, only: str) -> None:
    """Show what is held, then every change, until Ctrl-C. Looks once a second: shorter holds may go unseen.

    \b
    Example:
      holdfast locks watch
    """
    await _follow(client, printer, only)


@locks.command("get")
@click.argument("lock")
@connected
async def get_lock(client: "Client", printer: Printer, lock: str) -> None:
    """Show all of one lock.

    \b
    Example:
      holdfast locks get deploy
    """
    printer.resource(await client.locks.get(lock))


@locks.command("force-release")
@click.argument("lock")
@click.option("--reason", default="", help="Why, for the record.")
@connected
async def force_release(client: "Client", printer: Printer, lock: str, reason: str) -> None:
    """Take a lock away from whoever holds it. Whoever it was may not know yet: only its fence protects what it guards.

    \b
    Example:
      holdfast locks force-release deploy --reason 'holder hangs'
    """
    found = await client.locks.force_release(lock, reason)
    printer.rows(COLUMNS, [(found, _row(found))])


async def _follow(client: "Client", printer: Printer, only: str) -> None:
    before: dict[str, Lock] | None = None
    while True:
        there = {lock.name: lock async for lock in client.locks.list(only)}
        if before is None:
            printer.rows(COLUMNS, [(lock, _row(lock)) for lock in there.values()])
        else:
            for lock in there.values():
                if before.get(lock.name) != lock:
                    printer.change("CHANGED", lock, _row(lock))
            for name in before.keys() - there.keys():
                printer.change("GONE", before[name], _row(before[name]))
        before = there
        await asyncio.sleep(LOOK_EVERY_S)


def _row(lock: "Lock") -> Sequence[str]:
    return (
        id_of(lock.name),
        enum_name(lock, "state"),
        lock.holder,
        str(lock.fence),
        str(lock.waiters),
        time_of(lock, "acquire_time"),
    )
