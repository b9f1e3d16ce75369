"""Watches of resources that are told as they now are."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from holdfast.commands.printing import Printer

if TYPE_CHECKING:
    from holdfast.client import Changes, Snapshot
    from holdfast.coordination.v1.activation_service_pb2 import Activation
    from holdfast.coordination.v1.decision_service_pb2 import Decision

M = TypeVar("M", "Activation", "Decision")


async def follow(
    steps: "AsyncIterator[Snapshot[M] | Changes[M]]",
    printer: Printer,
    columns: Sequence[str],
    row: Callable[[M], Sequence[str]],
) -> None:
    """Prints what there is, then each change. One that is gone has its name alone: its state is not set."""
    from holdfast.client import Snapshot

    async for step in steps:
        if isinstance(step, Snapshot):
            printer.rows(columns, [(each, row(each)) for each in step.items])
            continue
        for each in step.items:
            printer.change("CHANGED" if each.state else "GONE", each, row(each))
