"""Work under test at a replica: the states it goes through, and the refusals that leave it as it was."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.errors import Reason
from holdfast.store.interface import Store
from support.refusing import Refusing, refusing
from support.replica import Clock, Replica, replica
from support.same_view import assert_view_is_what_the_store_says
from support.working import Work

PENDING, ASSIGNED, RUNNING, BACKOFF, SUCCEEDED, FAILED, DEAD, CANCELLED, TIMED_OUT = (
    pb.ACTIVATION_STATE_PENDING,
    pb.ACTIVATION_STATE_ASSIGNED,
    pb.ACTIVATION_STATE_RUNNING,
    pb.ACTIVATION_STATE_BACKOFF,
    pb.ACTIVATION_STATE_SUCCEEDED,
    pb.ACTIVATION_STATE_FAILED,
    pb.ACTIVATION_STATE_DEAD_LETTERED,
    pb.ACTIVATION_STATE_CANCELLED,
    pb.ACTIVATION_STATE_TIMED_OUT,
)

Say = Callable[[Work, pb.Activation], Awaitable[pb.Activation]]

SAYINGS: dict[str, Say] = {
    "accept": Work.accept,
    "decline": Work.decline,
    "heartbeat": Work.heartbeat,
    "complete": Work.complete,
    "fail": Work.fail,
}
"""What an owner says of its work."""


@contextlib.asynccontextmanager
async def working(store: Store | None = None, clock: Clock | None = None) -> AsyncIterator[tuple[Replica, Work]]:
    """A replica and its work; at the end the view is what the store says."""
    async with replica(store, clock) as here:
        yield here, Work(here)
        await assert_view_is_what_the_store_says(here.registry)


def refused(reason: Reason, here: Replica, activation: pb.Activation | None = None) -> Refusing:
    """The block is refused for a reason, and leaves the record as it was."""
    return refusing(reason, here, partial(Work(here).read, activation) if activation is not None else None)
