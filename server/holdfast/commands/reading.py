"""What the groups of commands that only read have in common: `list`, `watch` and `get`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from holdfast.commands.connecting import connected
from holdfast.commands.following import follow
from holdfast.commands.printing import Printer

if TYPE_CHECKING:
    from holdfast.client import Client


def add_reads(
    group: click.Group,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    *,
    lists: str,
    list_example: str,
    gets: str,
) -> None:
    """Adds them to a group that is named as the client's attribute for its resources, in the plural.

    Args:
        group: The group.
        columns: Of the table.
        row: Of one resource.
        lists: What `list` does.
        list_example: Its arguments in the example.
        gets: What `get` does.
    """
    name = str(group.name)

    async def list_all(client: "Client", printer: Printer, only: str, watch: bool) -> None:
        there = getattr(client, name)
        if watch:
            await follow(there.watch(only), printer, columns, row)
        else:
            printer.rows(columns, [(each, row(each)) async for each in there.list(only)])

    async def watch_all(client: "Client", printer: Printer, only: str) -> None:
        await follow(getattr(client, name).watch(only), printer, columns, row)

    async def get_one(client: "Client", printer: Printer, resource: str) -> None:
        printer.resource(await getattr(client, name).get(resource))

    only = click.option("--filter", "only", default="", help="AIP-160.")
    watch = click.option("--watch", is_flag=True, help="Then every change, until Ctrl-C.")
    resource = click.argument("resource", metavar=name.removesuffix("s").upper())
    list_all.__doc__ = _help(lists, f"{name} list {list_example}")
    watch_all.__doc__ = _help("Show what there is, then every change, until Ctrl-C.", f"{name} watch --json")
    get_one.__doc__ = _help(gets, f"{name} get 4f2a… --json")
    group.command("list")(only(watch(connected(list_all))))
    group.command("watch")(only(connected(watch_all)))
    group.command("get")(resource(connected(get_one)))


def _help(what: str, example: str) -> str:
    return f"{what}\n\n\b\nExample:\n  holdfast {example}\n"
