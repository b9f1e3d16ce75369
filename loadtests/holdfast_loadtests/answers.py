"""How a call ended, and what lets one conclude it.

What HTTP/2 says becomes a call's code as in gRPC's PROTOCOL-HTTP2.md and http-grpc-status-mapping.md.
"""

import re
from dataclasses import dataclass
from typing import Final

from holdfast.http2 import Ender, ErrorCode, Fields, Reset, code_name
from holdfast_loadtests.codes import CODES, ErrorClass, Outcome

_HTTP_CODES: Final = {
    400: "Internal",
    401: "Unauthenticated",
    403: "PermissionDenied",
    404: "Unimplemented",
    429: "Unavailable",
    502: "Unavailable",
    503: "Unavailable",
    504: "Unavailable",
}
_RESET_CODES: Final[dict[int, str]] = {
    ErrorCode.REFUSED_STREAM: "Unavailable",
    ErrorCode.CANCEL: "Cancelled",
    ErrorCode.ENHANCE_YOUR_CALM: "ResourceExhausted",
    ErrorCode.INADEQUATE_SECURITY: "PermissionDenied",
}
"""Any other resets are Internal."""

_LOST: Final = (ErrorCode.NO_ERROR, ErrorCode.INTERNAL_ERROR)
"""Codes of a connection's end that was closed or lost; any other names the rule that the server broke."""

_STREAM: Final = re.compile(r"stream \d+")


@dataclass(slots=True)
class Answer:
    """How a call ended.

    `message` is the last one, `details` what the status said, `short` how a stream or a call was cut short, which no
    step expects, whatever its code. `broke` is what broke a call that got no definite answer.
    """

    code: str
    message: bytes | None
    details: str = ""
    short: str = ""
    outcome: Outcome = "ok"
    broke: ErrorClass = ""


def refused(details: str, broke: ErrorClass = "refused") -> Answer:
    """The end of a call that surely did not reach the server."""
    return Answer("Unavailable", None, details, outcome="refused", broke=broke)


def expired(deadline_s: float, was_sent: bool, unsent_bytes: int = 0) -> Answer:
    """The end of a call whose deadline has passed, with so many bytes of its request held back by the server."""
    where = "" if was_sent else " while it waited for a connection or a stream"
    if unsent_bytes:
        where = f" while {unsent_bytes} bytes of the request waited: the server's flow-control window was closed"
    text = f"the deadline of {deadline_s:g} s passed{where}"
    return Answer("DeadlineExceeded", None, text, outcome="indefinite" if was_sent else "refused", broke="deadline")


def given_up(was_sent: bool) -> Answer:
    """The end of a call that was still under way when the load had waited for all of them long enough."""
    if not was_sent:
        return refused("the load ended while it waited for a connection or a stream", "other")
    return _cut_short("Cancelled", "still under way when the load stopped waiting: nobody knows what came of it")


def broken(code: str, details: str, broke: ErrorClass) -> Answer:
    """The end of a call of which nobody knows whether the server carried it out."""
    return Answer(code, None, details, outcome="indefinite", broke=broke)


def over_bound(details: str) -> Answer:
    """The end of a call that was more than this end takes, holds or can hold back."""
    return _cut_short("ResourceExhausted", details)


def _cut_short(code: str, details: str) -> Answer:
    """An end that this end made: a step that expects the server to answer so did not get that answer."""
    return Answer(code, None, details, short=details, outcome="indefinite", broke="other")


def trouble_of(headers: Fields) -> Answer | None:
    """What is wrong with a response's headers; None where nothing is."""
    kind = headers.get(b"content-type") or b""
    if headers.status == 200 and kind.startswith(b"application/grpc"):
        return None
    code = _HTTP_CODES.get(headers.status, "Unknown")
    text = f"HTTP status {headers.status} with content-type {kind.decode('latin-1')!r}: that is no gRPC server's answer"
    return Answer(code, None, text, outcome="definite" if CODES[code] else "indefinite", broke="other")


def of_reset(reset: Reset) -> Answer:
    """The end of a call whose stream ended before its time."""
    # Without the stream's number and by "the server", calls that ended alike are told alike, and counted together.
    text = _STREAM.sub("the stream", reset.message).replace("the peer", "the server", 1)
    if reset.unprocessed:
        is_goaway = "goes away" in reset.message
        return refused(text, "goaway" if is_goaway else "other")
    if reset.by is Ender.CONNECTION and reset.code in _LOST:
        return broken("Unavailable", text, "reset")
    if reset.by is Ender.PEER:
        return broken(_RESET_CODES.get(reset.code, "Internal"), text, "other")
    text = f"the server broke a rule of HTTP/2: {code_name(reset.code)}: {text}"
    return broken("Unavailable" if reset.by is Ender.CONNECTION else "Internal", text, "other")
