"""What a call's ending means: one table of gRPC codes, and how the transport's own endings are told apart."""

from typing import Final, Literal

Outcome = Literal["ok", "definite", "indefinite", "refused", "never_sent"]
"""`definite`: the server surely answered so. `indefinite`: the call may or may not have happened. `refused`: there was
no connection, so it surely did not reach the server. `never_sent`: the run ended before the generator got to it."""

ErrorClass = Literal["", "reset", "refused", "deadline", "goaway", "other"]

NEVER_SENT: Final = "NeverSent"
"""The code column of a call that was due and not sent; no gRPC code."""

CODES: Final[dict[str, bool]] = {
    "OK": True,
    "Cancelled": False,
    "Unknown": False,
    "InvalidArgument": True,
    "DeadlineExceeded": False,
    "NotFound": True,
    "AlreadyExists": True,
    "PermissionDenied": True,
    "ResourceExhausted": True,
    "FailedPrecondition": True,
    "Aborted": True,
    "OutOfRange": True,
    "Unimplemented": True,
    "Internal": False,
    "Unavailable": False,
    "DataLoss": False,
    "Unauthenticated": True,
}
"""go-grpc's name of every code, in the order of their numbers → whether it is a definite answer. When in doubt it is
not: a transport may give Unavailable, Internal, Unknown or Cancelled to a call that the server has carried out."""

CODE_NAMES: Final = tuple(CODES)

SERVER_FAULTS: Final = frozenset(
    {"Unknown", "DeadlineExceeded", "Unimplemented", "Internal", "Unavailable", "DataLoss"}
)
"""The server's errors by OpenTelemetry's conventions for gRPC servers, as the objective `availability` counts them."""

_RESET_MARKS: Final = (
    "connection reset",
    "broken pipe",
    "socket closed",
    "stream removed",
    "end of file",
    "endpoint closed",
)
_UNSENT_MARKS: Final = (
    "failed to connect",
    "connection refused",
    "name resolution",
    "dns resolution",
    "no route to host",
)


def error_class(code: str, details: str) -> ErrorClass:
    """What broke a call that grpcio made and that got no definite answer; `""` where the server answered.

    Read from the status's text, all that grpcio tells; the load's own calls know it from their frames.
    """
    if CODES.get(code, True):
        return ""
    if code == "DeadlineExceeded":
        return "deadline"
    text = details.lower()
    if "goaway" in text:
        return "goaway"
    if any(mark in text for mark in _RESET_MARKS):
        return "reset"
    return "refused" if any(mark in text for mark in _UNSENT_MARKS) else "other"
