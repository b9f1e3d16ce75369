"""What a handler knows of its call, whatever carries it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call. `correlation_id` is the caller's, or made up; it stands in every log line about the call."""

    service: str
    method: str
    correlation_id: str
