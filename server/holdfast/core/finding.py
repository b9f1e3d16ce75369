"""Finding what a call is about, and saying what is not so about it."""

from holdfast.core.state import AgentEntry, Reader
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent


def find(reader: Reader, name: str) -> AgentEntry:
    """The agent of this name, expired ones included.

    Raises:
        HoldfastError: AGENT_NOT_FOUND.
    """
    entry = reader.agent(name)
    if entry is None:
        raise agent_not_found(name)
    return entry


def agent_not_found(name: str) -> HoldfastError:
    """AGENT_NOT_FOUND."""
    return HoldfastError(
        Reason.AGENT_NOT_FOUND,
        f"no agent {name!r}: it never registered, was deregistered, or expired more than an hour ago.",
        subject=name,
    )


def check_fence(agent: Agent, fence: int) -> None:
    """Refuses a fence that is not of the current incarnation; 0 is none and is let through.

    Raises:
        HoldfastError: FENCE_STALE.
    """
    if fence and fence != agent.fence:
        raise HoldfastError(
            Reason.FENCE_STALE,
            f"fence {fence} is not that of the current incarnation of {agent.name}, {agent.fence}.",
            subject=agent.name,
            metadata={"current_fence": str(agent.fence)},
        )


def check_etag(agent: Agent, etag: str) -> None:
    """Refuses an etag that is not the current one; an empty one is let through.

    Raises:
        HoldfastError: ETAG_MISMATCH.
    """
    if etag and etag != agent.etag:
        raise HoldfastError(
            Reason.ETAG_MISMATCH,
            f"etag {etag!r} is not that of {agent.name}, {agent.etag!r}; read it again.",
            subject=agent.name,
        )
