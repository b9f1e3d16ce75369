"""What can go wrong with a call, by whose fault it is.

```text
HoldfastError
├── CallerError                     a mistake of this program: the call can never succeed as it is
│   ├── InvalidFieldError
│   ├── RequestIdReusedError
│   ├── ServiceNotFoundError
│   ├── RevisionFutureError
│   ├── RateLimitedError
│   ├── QuotaExceededError
│   └── NotElectorError
├── StateError                      the call was fine, the world was not as it supposed
│   ├── AgentNotFoundError
│   ├── LeaseNotFoundError
│   ├── ActivationNotFoundError
│   ├── DecisionNotFoundError
│   ├── HandoffNotFoundError
│   ├── LockNotFoundError
│   ├── ElectionNotFoundError
│   ├── AgentAlreadyExistsError
│   ├── EtagMismatchError
│   ├── TxnConflictError
│   ├── LockHeldError
│   ├── RevisionCompactedError
│   ├── FenceStaleError
│   ├── DecisionClosedError
│   ├── ActivationClosedError
│   ├── HandoffClosedError
│   ├── AlreadyVotedError
│   ├── AgentBannedError
│   ├── AdminStateConflictError
│   ├── ActivationStateConflictError
│   ├── NotOwnerError
│   ├── NoEligibleAgentError
│   └── SlotsExhaustedError
├── ServerError                     the service could not do its part
│   ├── NotBuiltError
│   ├── BreakerOpenError
│   ├── OverloadedError
│   ├── NotReadyError
│   ├── StreamDrainedError
│   ├── StoreUnavailableError
│   └── InternalError
├── NetworkError                    nobody answered
│   ├── UnreachableError            no connection came about; nothing was sent
│   ├── DisconnectedError           the connection ended while the call was under way
│   └── TimedOutError               no answer came in time
├── HoldError                       what this client holds is no longer proven to be its own
│   ├── SessionLostError            its lease may have ended; its work was told to stop
│   ├── HoldLostError               a lock, leadership or activation was taken away
│   └── SessionEndedError           the session was ended by this program
└── UnexpectedAnswerError           an answer that this version does not know
```

Every name that ends a reason of the table in `holdfast.errors` (FENCE_STALE is `FenceStaleError`) has `.reason`,
`.definite` and `.metadata`. *Definite* says whether the operation surely did not happen; when in doubt it is not.
"""

from collections.abc import Mapping, Sequence

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from holdfast.errors import DOMAIN, Fault, FieldViolation, Reason

_STATUS_KEY = "grpc-status-details-bin"


class HoldfastError(Exception):
    """Anything that the client raises about the service, or about what it holds of it.

    Attributes:
        reason: The name of why, as the table has it; of what only the client knows, a name of its own.
        message: The offending value, why it is refused and what to do next.
        definite: Whether the operation surely did not happen.
        after_doubt: Whether an attempt of the same call before this one may have happened.
        metadata: Further facts for machines.
        field_violations: For INVALID_FIELD, the fields.
        retry_after_s: When the server advises to try again, in seconds; None where it does not.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        definite: bool,
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.definite = definite
        self.after_doubt = False
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class CallerError(HoldfastError):
    """A mistake of this program: the call can never succeed as it is."""


class StateError(HoldfastError):
    """The call was fine, the world was not as it supposed: read it again and decide anew."""


class ServerError(HoldfastError):
    """The service could not do its part."""


class NetworkError(HoldfastError):
    """Nobody answered."""


class UnreachableError(NetworkError):
    """No connection came about; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="UNREACHABLE", definite=True)


class DisconnectedError(NetworkError):
    """The connection ended while the call was under way: it may have happened."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="DISCONNECTED", definite=False)


class TimedOutError(NetworkError):
    """No answer came in time: it may have happened, or may happen yet."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="TIMED_OUT", definite=False)


class HoldError(HoldfastError):
    """What this client holds is no longer proven to be its own; its fence must not be used."""


class SessionLostError(HoldError):
    """The session's lease has ended, or may have: its work was told to stop."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="SESSION_LOST", definite=False)


class HoldLostError(HoldError):
    """A lock, leadership or activation was taken away, or may have been, while the session stands."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="HOLD_LOST", definite=False)


class SessionEndedError(HoldError):
    """The session, lock or leadership was given back by this program."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="SESSION_ENDED", definite=False)


class UnexpectedAnswerError(HoldfastError):
    """An answer that this version of the client does not know: of a newer server, a proxy, or another service."""


class InvalidFieldError(CallerError):
    """A field of the request is outside what the API allows."""


class RequestIdReusedError(CallerError):
    """The request_id was used before with other content."""


class ServiceNotFoundError(CallerError):
    """The health check asks for a service that this server does not have."""


class RevisionFutureError(CallerError):
    """The revision has not happened yet; it may come from another store."""


class RateLimitedError(CallerError):
    """Too many calls in a short time."""


class QuotaExceededError(CallerError):
    """A limit on how much may exist at a time is reached."""


class NotElectorError(CallerError):
    """The agent is not an elector of the decision."""


class AgentNotFoundError(StateError):
    """No agent has this name, or it expired more than an hour ago."""


class LeaseNotFoundError(StateError):
    """The lease has ended or never was."""


class ActivationNotFoundError(StateError):
    """No activation has this name."""


class DecisionNotFoundError(StateError):
    """No decision has this name."""


class HandoffNotFoundError(StateError):
    """No handoff has this name."""


class LockNotFoundError(StateError):
    """No lock has this name."""


class ElectionNotFoundError(StateError):
    """No election has this name."""


class AgentAlreadyExistsError(StateError):
    """An agent of this name is LIVE."""


class EtagMismatchError(StateError):
    """The record changed since it was read."""


class TxnConflictError(StateError):
    """Others kept changing the same records, and the attempts allowed are used up."""


class LockHeldError(StateError):
    """Another holds the lock."""


class RevisionCompactedError(StateError):
    """The history at this revision has been dropped."""


class FenceStaleError(StateError):
    """The fence is not that of the current owner."""


class DecisionClosedError(StateError):
    """The decision is no longer open."""


class ActivationClosedError(StateError):
    """The activation has ended."""


class HandoffClosedError(StateError):
    """The handoff has ended."""


class AlreadyVotedError(StateError):
    """The agent has voted, and the decision does not allow a change."""


class AgentBannedError(StateError):
    """An operator has banned the agent."""


class AdminStateConflictError(StateError):
    """The agent's admin state does not allow the call."""


class ActivationStateConflictError(StateError):
    """The activation's state does not allow the call."""


class NotOwnerError(StateError):
    """What the call names belongs to another."""


class NoEligibleAgentError(StateError):
    """No registered agent could ever match the selector."""


class SlotsExhaustedError(StateError):
    """The queue of pending work is full."""


class NotBuiltError(ServerError):
    """The API has this call, this server does not have it yet."""


class BreakerOpenError(ServerError):
    """A circuit breaker holds calls back after repeated failures."""


class OverloadedError(ServerError):
    """More work waits than the server takes on."""


class NotReadyError(ServerError):
    """The server is starting or draining."""


class StreamDrainedError(ServerError):
    """The server ended the stream because it is shutting down; the last message may not have been answered."""


class StoreUnavailableError(ServerError):
    """The store could not confirm the write: it may have happened, whole, or not at all."""


class InternalError(ServerError):
    """A defect of the server."""


BY_REASON: Mapping[str, type[HoldfastError]] = {
    reason: each
    for group in (CallerError, StateError, ServerError)
    for each in group.__subclasses__()
    if (reason := "".join(f"_{c}" if c.isupper() else c.upper() for c in each.__name__.removesuffix("Error"))[1:])
}
"""The class of each reason of the table."""

_TABLE = {each.name: each.value for each in Reason}
_BY_FAULT = {Fault.CALLER: CallerError, Fault.STATE: StateError, Fault.SERVER: ServerError}


def from_rpc_error(error: grpc.aio.AioRpcError, what: str) -> HoldfastError:
    """The exception of what gRPC raised; `what` says which call it was and to whom."""
    trailers = dict(error.trailing_metadata() or ())
    packed = trailers.get(_STATUS_KEY, b"")
    try:
        status = Status.FromString(packed if isinstance(packed, bytes) else packed.encode())
    except DecodeError:
        status = Status()
    return from_status(status) or _without_reason(error, what)


def from_status(status: Status) -> HoldfastError | None:
    """The exception of a `google.rpc.Status`; None unless it has a reason of this service."""
    info, advice, fields = ErrorInfo(), RetryInfo(), BadRequest()
    for detail in status.details:
        for kind in (info, advice, fields):
            detail.Unpack(kind)
    if info.domain != DOMAIN or not info.reason:
        return None
    row = _TABLE.get(info.reason)
    kind = BY_REASON.get(info.reason) or (_BY_FAULT[row.fault] if row else UnexpectedAnswerError)
    return kind(
        status.message,
        reason=info.reason,
        definite=row is not None and row.definite,
        metadata=info.metadata,
        field_violations=[FieldViolation(each.field, each.description) for each in fields.field_violations],
        retry_after_s=advice.retry_delay.ToMilliseconds() / 1000 if advice.HasField("retry_delay") else None,
    )


def _without_reason(error: grpc.aio.AioRpcError, what: str) -> HoldfastError:
    """What gRPC itself says: it cannot tell whether the call reached the service."""
    code, said = error.code(), (error.details() or "").strip()
    match code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimedOutError(
                f"{what}: no answer in time. Read before you repeat, unless the call is safe to repeat."
            )
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return DisconnectedError(f"{what}: the connection ended ({said}). Read before you repeat.")
        case _:
            hint = " Is that a Holdfast server?" if code is grpc.StatusCode.UNIMPLEMENTED else ""
            return UnexpectedAnswerError(f"{what}: {code.name}: {said}.{hint}", reason=code.name, definite=False)
