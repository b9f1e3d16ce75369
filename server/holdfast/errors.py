"""Why a call was refused: one table for the server, its clients and the documentation.

Each reason says which status code carries it, whether the operation surely did not happen (*definite*; when in doubt
it is indefinite, which is always safe), whose fault it is, what it means and what to do next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, unique

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

DOMAIN = "holdfast"
"""`ErrorInfo.domain` of every error of the service."""

RETRY_AFTER_S = 1.0
"""What RetryInfo advises where the error itself knows no better: the time scale of a restart or a burst."""


VIOLATIONS_BYTES_MAX = 1000
"""Most bytes told of wrong fields. gRPC clients drop trailers above 8 KB, and the status with them; each byte travels
up to six times: in the message (percent-encoded), in the status' copy of it, and in the detail (both in base64).
"""

VIOLATION_BYTES_MAX = 400
"""Longest path, and longest description, of a wrong field; in bytes of UTF-8."""


class Fault(StrEnum):
    """Who can do something about it."""

    CALLER = "caller"
    """The request can never succeed as it is."""
    STATE = "state"
    """The request was fine, the world was not as it supposed."""
    SERVER = "server"
    """The service could not do its part."""


@dataclass(frozen=True, slots=True)
class ReasonInfo:
    """One row of the table. `code` is a number of `google.rpc.Code`."""

    code: int
    definite: bool
    fault: Fault
    meaning: str
    advice: str


@unique
class Reason(Enum):
    """Every reason the service gives, by the name that stands in `ErrorInfo.reason`."""

    INVALID_FIELD = ReasonInfo(
        code_pb2.INVALID_ARGUMENT,
        True,
        Fault.CALLER,
        "A field of the request is outside what the API allows.",
        "Correct the fields that google.rpc.BadRequest names.",
    )
    REQUEST_ID_REUSED = ReasonInfo(
        code_pb2.INVALID_ARGUMENT,
        True,
        Fault.CALLER,
        "The request_id was used before with other content.",
        "Use a fresh request_id for each new request; repeat one only with the same content.",
    )
    AGENT_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND,
        True,
        Fault.STATE,
        "No agent has this name, or it expired more than an hour ago.",
        "Check the name; register the agent.",
    )
    LEASE_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND,
        True,
        Fault.STATE,
        "The lease has ended or never was.",
        "Stop what was held under it, then grant a new one or register again.",
    )
    ACTIVATION_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND, True, Fault.STATE, "No activation has this name.", "Check the name."
    )
    DECISION_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND, True, Fault.STATE, "No decision has this name.", "Check the name."
    )
    HANDOFF_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND, True, Fault.STATE, "No handoff has this name.", "Check the name."
    )
    LOCK_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND, True, Fault.STATE, "Nobody holds a lock of this name.", "Check the name."
    )
    ELECTION_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND, True, Fault.STATE, "No election has this name.", "Check the name."
    )
    SERVICE_NOT_FOUND = ReasonInfo(
        code_pb2.NOT_FOUND,
        True,
        Fault.CALLER,
        "The health check asks for a service that this server does not have.",
        "Ask for one that reflection lists, or for the empty name.",
    )
    AGENT_ALREADY_EXISTS = ReasonInfo(
        code_pb2.ALREADY_EXISTS,
        True,
        Fault.STATE,
        "An agent of this name is LIVE.",
        "Pick another id, present the current fence to take over, or wait for its lease to end.",
    )
    ETAG_MISMATCH = ReasonInfo(
        code_pb2.ABORTED,
        True,
        Fault.STATE,
        "The record changed since it was read.",
        "Read it again and decide anew.",
    )
    TXN_CONFLICT = ReasonInfo(
        code_pb2.ABORTED,
        True,
        Fault.STATE,
        "Others kept changing the same records, and the attempts allowed are used up.",
        "Try again after a random delay.",
    )
    LOCK_HELD = ReasonInfo(
        code_pb2.ABORTED, True, Fault.STATE, "Another holds the lock.", "Wait longer, or try again later."
    )
    REVISION_COMPACTED = ReasonInfo(
        code_pb2.OUT_OF_RANGE,
        True,
        Fault.STATE,
        "The history at this revision has been dropped.",
        "Watch from revision 0 for a snapshot.",
    )
    REVISION_FUTURE = ReasonInfo(
        code_pb2.OUT_OF_RANGE,
        True,
        Fault.CALLER,
        "The revision has not happened yet; it may come from another store.",
        "Watch from revision 0 for a snapshot.",
    )
    FENCE_STALE = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "The fence is not that of the current owner.",
        "Stop: another has taken over. Read the record to see who.",
    )
    DECISION_CLOSED = ReasonInfo(
        code_pb2.FAILED_PRECONDITION, True, Fault.STATE, "The decision is no longer open.", "Read its outcome."
    )
    ACTIVATION_CLOSED = ReasonInfo(
        code_pb2.FAILED_PRECONDITION, True, Fault.STATE, "The activation has ended.", "Read its result."
    )
    ACTIVATION_STATE_CONFLICT = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "The activation's state does not allow the call.",
        "Read the activation; accept it before you work on it.",
    )
    HANDOFF_CLOSED = ReasonInfo(
        code_pb2.FAILED_PRECONDITION, True, Fault.STATE, "The handoff has ended.", "Read its state."
    )
    ALREADY_VOTED = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "The agent has voted, and the decision does not allow a change.",
        "Nothing: the first vote counts.",
    )
    AGENT_BANNED = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "An operator has banned the agent.",
        "Ask the operator to unban it.",
    )
    ADMIN_STATE_CONFLICT = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "The agent's admin state does not allow the call.",
        "Read the agent; UncordonAgent leads back to ENABLED from every state but BANNED.",
    )
    NOT_OWNER = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "What the call names belongs to another.",
        "Use what is yours, or have its owner make the call.",
    )
    NO_ELIGIBLE_AGENT = ReasonInfo(
        code_pb2.FAILED_PRECONDITION,
        True,
        Fault.STATE,
        "No registered agent could ever match the selector.",
        "Widen the selector, or register an agent that matches.",
    )
    SLOTS_EXHAUSTED = ReasonInfo(
        code_pb2.RESOURCE_EXHAUSTED, True, Fault.STATE, "The queue of pending work is full.", "Try again later."
    )
    RATE_LIMITED = ReasonInfo(
        code_pb2.RESOURCE_EXHAUSTED, True, Fault.CALLER, "Too many calls in a short time.", "Slow down."
    )
    QUOTA_EXCEEDED = ReasonInfo(
        code_pb2.RESOURCE_EXHAUSTED,
        True,
        Fault.CALLER,
        "A limit on how much may exist at a time is reached.",
        "Release some, or have the limit raised.",
    )
    NOT_ELECTOR = ReasonInfo(
        code_pb2.PERMISSION_DENIED, True, Fault.CALLER, "The agent is not an elector of the decision.", "Do not vote."
    )
    NOT_BUILT = ReasonInfo(
        code_pb2.UNIMPLEMENTED,
        True,
        Fault.SERVER,
        "The API has this call, this server does not have it yet.",
        "Use a newer server.",
    )
    BREAKER_OPEN = ReasonInfo(
        code_pb2.UNAVAILABLE,
        True,
        Fault.SERVER,
        "A circuit breaker holds calls back after repeated failures.",
        "Try again after the delay in RetryInfo.",
    )
    OVERLOADED = ReasonInfo(
        code_pb2.UNAVAILABLE,
        True,
        Fault.SERVER,
        "More work waits than the server takes on.",
        "Try again after the delay in RetryInfo.",
    )
    NOT_READY = ReasonInfo(
        code_pb2.UNAVAILABLE,
        True,
        Fault.SERVER,
        "The server is starting or draining.",
        "Try again after the delay in RetryInfo, or at another replica.",
    )
    STREAM_DRAINED = ReasonInfo(
        code_pb2.UNAVAILABLE,
        False,
        Fault.SERVER,
        "The server ended the stream because it is shutting down; the last message may not have been answered.",
        "Open the stream again, at another replica or after the delay in RetryInfo.",
    )
    STORE_UNAVAILABLE = ReasonInfo(
        code_pb2.UNAVAILABLE,
        False,
        Fault.SERVER,
        "The store could not confirm the write: it may have happened, whole, or not at all.",
        "Repeat with the same request_id, or read before you repeat.",
    )
    INTERNAL = ReasonInfo(
        code_pb2.INTERNAL,
        False,
        Fault.SERVER,
        "A defect of the server.",
        "Report it with the correlation id; the server's log has the details.",
    )


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is not allowed: its path (`agent.capabilities[2].id`) and what was expected."""

    field: str
    description: str


class HoldfastError(Exception):
    """A refusal with a reason of the table.

    Args:
        reason: Why.
        message: The offending value, why it is refused and what to do next, in a sentence or two.
        subject: The resource it is about, by name.
        field_violations: For INVALID_FIELD, the fields.
        retry_after_s: When to try again; UNAVAILABLE errors advise `RETRY_AFTER_S` without it.
        metadata: Further facts for machines, as strings.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        subject: str = "",
        field_violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.subject = subject
        self.field_violations = tuple(field_violations)
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return f"{self.reason.name}: {self.message}"

    def __copy__(self) -> "HoldfastError":
        """The same refusal for another caller: an error that is raised takes on where."""
        return HoldfastError(
            self.reason,
            self.message,
            subject=self.subject,
            field_violations=self.field_violations,
            retry_after_s=self.retry_after_s,
            metadata=self.metadata,
        )

    def to_status(self) -> Status:
        """The error as `google.rpc.Status`: ErrorInfo first, then the detail that fits its code."""
        info = ErrorInfo(reason=self.reason.name, domain=DOMAIN, metadata=self.metadata)
        details: list[Message] = [info]
        fitting = self._fitting_detail()
        if fitting is not None:
            details.append(fitting)
        return Status(code=self.reason.value.code, message=self.message, details=[_pack(detail) for detail in details])

    def _fitting_detail(self) -> Message | None:
        detail: Message | None = None
        match self.reason.value.code:
            case code_pb2.INVALID_ARGUMENT:
                detail = BadRequest(
                    field_violations=[
                        BadRequest.FieldViolation(field=each.field, description=each.description)
                        for each in self.field_violations
                    ]
                )
            case code_pb2.NOT_FOUND | code_pb2.ALREADY_EXISTS | code_pb2.ABORTED:
                detail = ResourceInfo(resource_name=self.subject, description=self.message)
            case code_pb2.FAILED_PRECONDITION:
                violation = {"type": self.reason.name, "subject": self.subject, "description": self.message}
                detail = PreconditionFailure(violations=[violation])
            case code_pb2.RESOURCE_EXHAUSTED:
                detail = QuotaFailure(violations=[{"subject": self.subject, "description": self.message}])
            case code_pb2.UNAVAILABLE:
                delay_s = RETRY_AFTER_S if self.retry_after_s is None else self.retry_after_s
                detail = RetryInfo(retry_delay=Duration(seconds=int(delay_s), nanos=int(delay_s % 1 * 1e9)))
            case _:
                pass
        return detail


def invalid_field(field: str, description: str) -> HoldfastError:
    """INVALID_FIELD about one field."""
    return invalid_fields([FieldViolation(field, description)])


def invalid_fields(violations: Sequence[FieldViolation]) -> HoldfastError:
    """INVALID_FIELD about several fields at once: as many as fit, the first in any case, though shortened."""
    told: list[FieldViolation] = []
    room_bytes = VIOLATIONS_BYTES_MAX
    for each in violations:
        short = FieldViolation(_shortened(each.field), _shortened(each.description))
        room_bytes -= len(short.field.encode()) + len(short.description.encode())
        if told and room_bytes < 0:
            break
        told.append(short)
    message = "; ".join(f"{each.field}: {each.description}" for each in told)
    if len(told) < len(violations):
        message += f"; and {len(violations) - len(told)} more"
    return HoldfastError(Reason.INVALID_FIELD, message, field_violations=told)


def _shortened(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= VIOLATION_BYTES_MAX:
        return text
    return encoded[: VIOLATION_BYTES_MAX - 3].decode(errors="ignore") + "…"


def _pack(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
