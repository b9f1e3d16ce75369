"""One gRPC call on an HTTP/2 stream: messages and trailers in, an `Answer` out.

What HTTP/2 says becomes a call's code as in gRPC's PROTOCOL-HTTP2.md and http-grpc-status-mapping.md.
"""

import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote

from holdfast.http2 import Ender, ErrorCode, Fields, Reset, Stream, code_name
from holdfast_loadtests.codes import CODE_NAMES, CODES, ErrorClass, Outcome
from holdfast_loadtests.compression import CompressionError, TooLongError, decompress

if TYPE_CHECKING:
    from holdfast_loadtests.links import Link

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest message taken; gRPC's own clients take 4 MiB. A longer one ends its call, not the load."""

DETAILS_CHARS_MAX: Final = 1_000

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

    `message` is the last one, `details` what the status said, `short` how a stream was cut short. `broke` is what broke
    a call that got no definite answer.
    """

    code: str
    message: bytes | None
    details: str = ""
    short: str = ""
    outcome: Outcome = "ok"
    broke: ErrorClass = ""


OnEnd = Callable[[Answer], None]


class Carrier(Protocol):
    """What carries calls: a channel."""

    minds_ends: bool
    """Whether it wants to hear of every call that ends."""

    def cancel(self, exchange: "Exchange", code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Tells the server that a call is of no interest any more."""

    def ended(self) -> None:
        """A call has ended."""

    def is_past(self, at_s: float) -> bool:
        """Whether it is that late, by the clock of deadlines."""
        ...


class Exchange(Stream):
    """A call that is under way, or waits for a connection.

    Args:
        carrier: what it is sent by.
        on_end: hears how it ended, once.
        receive: for streams: ended as OK after so many messages; None waits for the server's status.
        takes_many: whether the method answers with a stream.
    """

    __slots__ = (
        "_carrier",
        "_count",
        "_headers",
        "_last",
        "_on_end",
        "_part",
        "_receive",
        "_takes_many",
        "_trouble",
        "lane",
        "link",
    )

    is_whole = True
    """Whether nothing follows the data it is opened with."""

    def __init__(self, carrier: Carrier, on_end: OnEnd, receive: int | None, takes_many: bool) -> None:
        self._carrier = carrier
        self._on_end = on_end
        self._receive = receive
        self._takes_many = takes_many
        self._count = 0
        self._last: bytes | None = None
        self._part: bytearray | None = None
        self._headers: Fields | None = None
        self._trouble: Answer | None = None
        self.lane: MutableMapping[Exchange, float] | None = None
        self.link: Link | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.lane is None

    def on_headers(self, fields: Fields, ends: bool) -> None:
        """The response's headers, or its trailers."""
        status = fields.status
        if 100 <= status < 200:
            return
        if status:
            self._headers = fields
            self._trouble = _trouble_of(fields)
        if ends:
            self._end_answered(self._status(fields))

    def on_data(self, data: bytes, ends: bool) -> None:
        """A piece of the messages."""
        if self._trouble is None:
            part = self._part
            if part is None and len(data) >= 5 and data[0] == 0 and int.from_bytes(data[1:5], "big") == len(data) - 5:
                self._take(data[5:])  # nearly always: one whole message in a frame
            elif data:
                self._gather(data)
        if ends and not self.is_over:
            self._end_answered(self._trouble or _broken("Unknown", "the stream ended without a status", "other"))

    def on_reset(self, reset: Reset) -> None:
        """The stream ended before its time."""
        lane = self.lane
        if reset.code == ErrorCode.CANCEL and lane is not None and self._carrier.is_past(lane[self]):
            # Servers end a call so at its deadline, which they may notice first; grpc's own clients read it so, too.
            self.end(_broken("DeadlineExceeded", "the server cancelled the call at its deadline", "deadline"))
        else:
            self.end(_of_reset(reset))

    def _end_answered(self, answer: Answer) -> None:
        """The server has said all of its answer, perhaps before it took all of the request: the rest is not sent."""
        if self.is_sending:
            self._carrier.cancel(self, ErrorCode.NO_ERROR)
        self.end(answer)

    def end(self, answer: Answer) -> None:
        """Ends it; the first end counts."""
        lane = self.lane
        if lane is None:
            return
        self.lane = None
        lane.pop(self, None)
        if self._carrier.minds_ends:
            self._carrier.ended()
        self._on_end(answer)

    def _gather(self, data: bytes) -> None:
        part = self._part
        if part is None:
            part = self._part = bytearray()
        part += data
        position, there = 0, len(part)
        while there - position >= 5 and not self.is_over:
            size = int.from_bytes(part[position + 1 : position + 5], "big")
            if size > MESSAGE_BYTES_MAX:
                self.stop(_too_long(f"a message of {size} bytes; at most {MESSAGE_BYTES_MAX} are taken"))
            elif there - position - 5 < size:
                break
            else:
                message = bytes(part[position + 5 : position + 5 + size])
                if part[position]:
                    self._take_compressed(message)
                else:
                    self._take(message)
                position += 5 + size
        del part[:position]
        if not part:
            self._part = None

    def _take_compressed(self, message: bytes) -> None:
        encoding = self._headers.get(b"grpc-encoding") if self._headers is not None else None
        try:
            plain = decompress(encoding, message, MESSAGE_BYTES_MAX)
        except TooLongError as error:
            self.stop(_too_long(str(error)))
        except CompressionError as error:
            self.stop(_broken("Internal", str(error), "other"))
        else:
            self._take(plain)

    def _take(self, message: bytes) -> None:
        self._last = message
        self._count += 1
        if self._count == self._receive:
            self.stop(Answer("OK", message))
        elif self._count > 1 and not self._takes_many:
            self.stop(_broken("Internal", "more than one message to a call that has one answer", "other"))

    def stop(self, answer: Answer) -> None:
        """Ends it before the server does."""
        self._carrier.cancel(self)
        self.end(answer)

    def _status(self, trailers: Fields) -> Answer:
        text = trailers.get(b"grpc-status")
        if text is None:
            return self._trouble or _broken("Unknown", "the answer ended without a grpc-status", "other")
        if text == b"0":
            if self._count == 0 and not self._takes_many:
                return _broken("Internal", "OK without a message", "other")
            if self._part:
                return _broken("Internal", "the answer ended within a message", "other")
            short = self._receive is not None and self._count < self._receive
            missing = f"the stream ended after {self._count} of {self._receive} messages" if short else ""
            return Answer("OK", self._last, short=missing)
        number = int(text) if text.isdigit() and len(text) < 4 else -1
        code = CODE_NAMES[number] if 0 <= number < len(CODE_NAMES) else "Unknown"
        details = unquote((trailers.get(b"grpc-message") or b"").decode("latin-1"), errors="replace")
        if code == "Unknown" and number != 2:
            details = f"grpc-status is {text!r}, which no code has. {details}"
        if CODES[code]:
            return Answer(code, None, details[:DETAILS_CHARS_MAX], outcome="definite")
        broke: ErrorClass = "deadline" if code == "DeadlineExceeded" else "other"
        return Answer(code, None, details[:DETAILS_CHARS_MAX], outcome="indefinite", broke=broke)


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
    return _broken("Cancelled", "still under way when the load stopped waiting: nobody knows what came of it", "other")


def _broken(code: str, details: str, broke: ErrorClass) -> Answer:
    return Answer(code, None, details, outcome="indefinite", broke=broke)


def _too_long(details: str) -> Answer:
    return _broken("ResourceExhausted", details, "other")


def _trouble_of(headers: Fields) -> Answer | None:
    """What is wrong with a response's headers; None where nothing is."""
    kind = headers.get(b"content-type") or b""
    if headers.status == 200 and kind.startswith(b"application/grpc"):
        return None
    code = _HTTP_CODES.get(headers.status, "Unknown")
    text = f"HTTP status {headers.status} with content-type {kind.decode('latin-1')!r}: that is no gRPC server's answer"
    return Answer(code, None, text, outcome="definite" if CODES[code] else "indefinite", broke="other")


def _of_reset(reset: Reset) -> Answer:
    # Without the stream's number and by "the server", calls that ended alike are told alike, and counted together.
    text = _STREAM.sub("the stream", reset.message).replace("the peer", "the server", 1)
    if reset.unprocessed:
        is_goaway = "goes away" in reset.message
        return refused(text, "goaway" if is_goaway else "other")
    if reset.by is Ender.CONNECTION and reset.code in _LOST:
        return _broken("Unavailable", text, "reset")
    if reset.by is Ender.PEER:
        return _broken(_RESET_CODES.get(reset.code, "Internal"), text, "other")
    text = f"the server broke a rule of HTTP/2: {code_name(reset.code)}: {text}"
    return _broken("Unavailable" if reset.by is Ender.CONNECTION else "Internal", text, "other")
