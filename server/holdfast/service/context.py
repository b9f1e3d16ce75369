"""What a handler knows of its call, whatever carries it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call. `correlation_id` is the caller's, or made up; it stands in every log line about the call.

    `client` is the host that the call came from, without its port; empty for a call from the process itself.
    """

    service: str
    method: str
    correlation_id: str
    client: str = ""
