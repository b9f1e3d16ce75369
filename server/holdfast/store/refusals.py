"""What a store answers when it cannot do what it is asked."""

from holdfast.errors import HoldfastError, Reason


def unavailable(why: str) -> HoldfastError:
    """Nobody knows whether it is durable, or it surely is not."""
    return HoldfastError(
        Reason.STORE_UNAVAILABLE, f"the store cannot confirm it: {why}. Repeat with the same request_id, or read first."
    )


def overloaded(count: int, size_bytes: int) -> HoldfastError:
    """Too many wait, or too much."""
    return HoldfastError(
        Reason.OVERLOADED,
        f"{count} writes of {size_bytes} bytes wait for the store already; try again after the delay.",
    )


def compacted(revision: int, compact_revision: int) -> HoldfastError:
    """The past asked for was dropped."""
    return HoldfastError(
        Reason.REVISION_COMPACTED,
        f"the history at revision {revision} has been dropped; the oldest left is {compact_revision + 1}.",
        metadata={"compact_revision": str(compact_revision)},
    )


def future(revision: int, current: int) -> HoldfastError:
    """What is asked for has not happened."""
    return HoldfastError(
        Reason.REVISION_FUTURE,
        f"revision {revision} has not happened yet; the newest is {current}.",
        metadata={"revision": str(current)},
    )
