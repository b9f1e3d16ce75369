"""Each rule of RFC 9113 that a peer can break is answered by the code that it names, for stream or connection."""

from collections.abc import Callable

import pytest

from holdfast.http2 import Connection, ConnectionFailedError, Ender, ErrorCode, Limits, encode
from holdfast.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WORD,
    FrameReader,
    frame,
)
from holdfast.http2.payloads import (
    SETTINGS_ACK,
    data_frame,
    goaway_frame,
    headers_frames,
    ping_frame,
    rst_stream_frame,
    settings_frame,
    window_update_frame,
)
from support.http2_pair import REQUEST, RESPONSE, TRAILERS, Happened, Heard

P, F, S, C = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED, ErrorCode.COMPRESSION_ERROR
W, CALM = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.ENHANCE_YOUR_CALM

WINDOW_MAX = (1 << 31) - 1


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def a_server(limits: Limits | None = None, clock: Clock | None = None) -> tuple[Connection, Happened]:
    """A server that was greeted, with its events."""
    events = Happened()
    made = Connection(is_server=True, events=events, limits=limits, clock=clock or Clock())
    made.receive(PREFACE + settings_frame([]) + SETTINGS_ACK)
    made.take_output()
    return made, events


def a_client(limits: Limits | None = None) -> tuple[Connection, Heard]:
    """A client that was greeted, with a stream that has sent its request, and so has id 1."""
    made = Connection(is_server=False, events=Happened(), limits=limits, clock=Clock())
    made.receive(settings_frame([]) + SETTINGS_ACK)
    call = Heard()
    made.open(call, REQUEST, ends=True)
    made.take_output()
    return made, call


def request(stream_id: int, *, ends: bool = False, block: bytes = REQUEST) -> bytes:
    return headers_frames(stream_id, block, ends=ends)


def all_frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """The kinds, streams and payloads in some output; the preface of a client is left out."""
    reader = FrameReader()
    found = reader.feed(data.removeprefix(PREFACE))
    return [(kind, stream_id, reader.data[start:end]) for kind, _, stream_id, start, end in found]


def told(data: bytes) -> list[tuple[int, int, int]]:
    """The RST_STREAM and GOAWAY frames in some output: kind, stream and code."""
    place = {RST_STREAM: 0, GOAWAY: 4}
    return [
        (kind, stream_id, int.from_bytes(payload[place[kind] : place[kind] + 4], "big"))
        for kind, stream_id, payload in all_frames(data)
        if kind in place
    ]


def without(name: bytes) -> bytes:
    """A request's block that lacks a field."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"x")]
    return encode([field for field in fields if field[0] != name])


def with_field(name: bytes, value: bytes) -> bytes:
    """A request's block with one more field."""
    return REQUEST + encode([(name, value)])


CONNECTION_OF_SERVER = {
    "DATA on stream 0 (6.1)": (data_frame(0, b"x"), P),
    "DATA on an idle stream (5.1)": (data_frame(1, b"x"), P),
    "DATA whose padding is longer than it (6.1)": (request(1) + frame(DATA, PADDED, 1, b"\x05abc"), P),
    "DATA with no length of its padding (4.2)": (request(1) + frame(DATA, PADDED, 1), F),
    "HEADERS on stream 0 (6.2)": (request(0), P),
    "HEADERS on stream 0, not whole": (frame(HEADERS, 0, 0, REQUEST), P),
    "HEADERS on an even stream (5.1.1)": (request(2), P),
    "HEADERS on a stream below, which was jumped over (5.1.1)": (request(7) + request(5), P),
    "DATA on a stream that the client reset (5.1)": (request(1) + rst_stream_frame(1, 8) + data_frame(1, b"x"), S),
    "HEADERS whose padding is longer than it (6.2)": (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + REQUEST), P),
    "HEADERS too short for its priority (4.2)": (frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 1, b"1234"), F),
    "HEADERS that are no block (4.3)": (request(1, block=b"\xff\xff\xff\xff\xff\xff\xff"), C),
    "a block that is cut off (4.3)": (request(1, block=b"\x00\x03ab"), C),
    "a block with an index that is not there (4.3)": (request(1, block=b"\xff\x01"), C),
    "a block that takes a larger table than there may be (4.3)": (request(1, block=b"\x3f\xe1\x1f\xff"), C),
    "a frame within a block (6.10)": (frame(HEADERS, 0, 1, REQUEST) + ping_frame(bytes(8)), P),
    "CONTINUATION of another stream (6.10)": (frame(HEADERS, 0, 1, REQUEST) + frame(CONTINUATION, 4, 3, b""), P),
    "an unknown frame within a block (5.5)": (frame(HEADERS, 0, 1, REQUEST) + frame(0x42, 0, 1), P),
    "CONTINUATION of nothing (6.10)": (frame(CONTINUATION, END_HEADERS, 1, b""), P),
    "CONTINUATION after the end of a block (6.10)": (request(1) + frame(CONTINUATION, END_HEADERS, 1, b""), P),
    "PRIORITY on stream 0 (6.3)": (frame(PRIORITY, 0, 0, bytes(5)), P),
    "PRIORITY of a wrong size on an idle stream (6.3)": (frame(PRIORITY, 0, 1, bytes(4)), F),
    "RST_STREAM on stream 0 (6.4)": (rst_stream_frame(0, 8), P),
    "RST_STREAM on an idle stream (6.4)": (rst_stream_frame(1, 8), P),
    "RST_STREAM of a wrong size (6.4)": (request(1) + frame(RST_STREAM, 0, 1, b"123"), F),
    "SETTINGS on a stream (6.5)": (frame(SETTINGS, 0, 1), P),
    "SETTINGS acknowledged with a payload (6.5)": (frame(SETTINGS, ACK, 0, bytes(6)), F),
    "SETTINGS of a wrong size (6.5)": (frame(SETTINGS, 0, 0, bytes(5)), F),
    "SETTINGS_ENABLE_PUSH of 2 (6.5.2)": (settings_frame([(2, 2)]), P),
    "SETTINGS_INITIAL_WINDOW_SIZE of 2^31 (6.5.2)": (settings_frame([(4, 1 << 31)]), W),
    "SETTINGS_MAX_FRAME_SIZE too small (6.5.2)": (settings_frame([(5, 16_383)]), P),
    "SETTINGS_MAX_FRAME_SIZE too large (6.5.2)": (settings_frame([(5, 1 << 24)]), P),
    "SETTINGS that overflow a stream's window (6.9.2)": (
        request(1) + window_update_frame(1, WINDOW_MAX - 65_535) + settings_frame([(4, 65_536)]),
        W,
    ),
    "PUSH_PROMISE from a client (8.4)": (request(1) + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + REQUEST), P),
    "PING on a stream (6.7)": (frame(PING, 0, 1, bytes(8)), P),
    "PING of a wrong size (6.7)": (frame(PING, 0, 0, bytes(7)), F),
    "GOAWAY on a stream (6.8)": (frame(GOAWAY, 0, 1, bytes(8)), P),
    "GOAWAY of a wrong size (6.8)": (frame(GOAWAY, 0, 0, bytes(7)), F),
    "WINDOW_UPDATE of 0 on the connection (6.9)": (window_update_frame(0, 0), P),
    "WINDOW_UPDATE of a wrong size (6.9)": (frame(WINDOW_UPDATE, 0, 0, b"123"), F),
    "WINDOW_UPDATE on an idle stream (5.1)": (window_update_frame(1, 1), P),
    "WINDOW_UPDATE that overflows the connection's (6.9.1)": (window_update_frame(0, WINDOW_MAX), W),
    "a frame that is too large (4.2)": (frame(DATA, 0, 1, bytes(16_385)), F),
    "an unknown frame that is too large (4.2)": (frame(0x42, 0, 0, bytes(16_385)), F),
}

STREAM_OF_SERVER = {
    "DATA after END_STREAM (5.1)": (request(1, ends=True) + data_frame(1, b"x"), S),
    "HEADERS after END_STREAM (5.1)": (request(1, ends=True) + request(1), S),
    "a second HEADERS without END_STREAM (8.1)": (request(1) + headers_frames(1, TRAILERS), P),
    "trailers with a pseudo-field (8.1)": (request(1) + request(1, ends=True), P),
    "PRIORITY of a wrong size (6.3)": (request(1) + frame(PRIORITY, 0, 1, bytes(4)), F),
    "WINDOW_UPDATE of 0 (6.9)": (request(1) + window_update_frame(1, 0), P),
    "WINDOW_UPDATE that overflows (6.9.1)": (request(1) + window_update_frame(1, WINDOW_MAX), W),
    "a request without :method (8.3.1)": (request(1, block=without(b":method")), P),
    "a request without :scheme (8.3.1)": (request(1, block=without(b":scheme")), P),
    "a request without :path (8.3.1)": (request(1, block=without(b":path")), P),
    "a request with an empty :path (8.3.1)": (request(1, block=without(b":path") + encode([(b":path", b"")])), P),
    "CONNECT with a :path (8.5)": (request(1, block=encode([(b":method", b"CONNECT"), (b":path", b"/")])), P),
    "an upper-case name (8.2.1)": (request(1, block=with_field(b"X-y", b"1")), P),
    "a name with a space (8.2.1)": (request(1, block=with_field(b"x y", b"1")), P),
    "a name with a colon (8.2.1)": (request(1, block=with_field(b"x:y", b"1")), P),
    "an empty name (8.2.1)": (request(1, block=with_field(b"", b"1")), P),
    "a value with a line feed (8.2.1)": (request(1, block=with_field(b"x", b"a\nb")), P),
    "a value with a NUL (8.2.1)": (request(1, block=with_field(b"x", b"a\0b")), P),
    "a value that begins with a space (8.2.1)": (request(1, block=with_field(b"x", b" a")), P),
    "a value that ends with a tab (8.2.1)": (request(1, block=with_field(b"x", b"a\t")), P),
    "connection: (8.2.2)": (request(1, block=with_field(b"connection", b"close")), P),
    "transfer-encoding: (8.2.2)": (request(1, block=with_field(b"transfer-encoding", b"chunked")), P),
    "te: gzip (8.2.2)": (request(1, block=without(b"") + encode([(b"te", b"gzip")])), P),
    "an unknown pseudo-field (8.3)": (request(1, block=encode([(b":x", b"1")]) + REQUEST), P),
    "a pseudo-field after others (8.3)": (request(1, block=encode([(b"x", b"1")]) + REQUEST), P),
    "a pseudo-field twice (8.3)": (request(1, block=encode([(b":path", b"/a")]) + without(b"")), P),
    ":status in a request (8.3)": (request(1, block=encode([(b":status", b"200")]) + REQUEST), P),
    "more content than content-length (8.1.1)": (
        request(1, block=with_field(b"content-length", b"3")) + data_frame(1, b"1234"),
        P,
    ),
    "less content than content-length (8.1.1)": (
        request(1, block=with_field(b"content-length", b"3")) + data_frame(1, b"12", ends=True),
        P,
    ),
    "no content for content-length (8.1.1)": (
        request(1, block=with_field(b"content-length", b"3"), ends=True),
        P,
    ),
    "two values of content-length (8.1.1)": (
        request(1, block=with_field(b"content-length", b"3") + encode([(b"content-length", b"4")])),
        P,
    ),
    "content-length of words (8.1.1)": (request(1, block=with_field(b"content-length", b"many")), P),
}

CONNECTION_OF_CLIENT = {
    "HEADERS on a stream that was never opened (5.1)": (headers_frames(3, RESPONSE), P),
    "HEADERS on an even stream (5.1.1)": (headers_frames(2, RESPONSE), P),
    "PUSH_PROMISE though SETTINGS_ENABLE_PUSH is 0 (6.6)": (frame(PUSH_PROMISE, 4, 1, WORD.pack(2) + REQUEST), P),
    "SETTINGS_ENABLE_PUSH of 1 from a server (6.5.2)": (settings_frame([(2, 1)]), P),
    "a frame on a stream that has ended (5.1)": (headers_frames(1, RESPONSE, ends=True) + data_frame(1, b"x"), S),
}

STREAM_OF_CLIENT = {
    "DATA before the response (8.1)": (data_frame(1, b"x"), P),
    "trailers before the response (8.1)": (headers_frames(1, TRAILERS, ends=True), P),
    "a request as response (8.3)": (headers_frames(1, REQUEST), P),
    ":status of two digits (8.3.2)": (headers_frames(1, encode([(b":status", b"20")])), P),
    ":status below 100 (8.3.2)": (headers_frames(1, encode([(b":status", b"099")])), P),
    "status 101 (8.6)": (headers_frames(1, encode([(b":status", b"101")])), P),
    "an informational response that ends (8.1)": (headers_frames(1, encode([(b":status", b"103")]), ends=True), P),
    "trailers with :status (8.1)": (headers_frames(1, RESPONSE) + headers_frames(1, RESPONSE, ends=True), P),
    "a second response without END_STREAM (8.1)": (headers_frames(1, RESPONSE) + headers_frames(1, TRAILERS), P),
    "less content than content-length (8.1.1)": (
        headers_frames(1, RESPONSE + encode([(b"content-length", b"3")])) + data_frame(1, b"12", ends=True),
        P,
    ),
}


def feed(connection: Connection, pieces: list[bytes]) -> None:
    for piece in pieces:
        connection.receive(piece)


def expect_failure(connection: Connection, pieces: list[bytes], code: ErrorCode) -> None:
    """The connection fails with a code, says so to the peer, and is closed."""
    with pytest.raises(ConnectionFailedError) as failed:
        feed(connection, pieces)
    assert failed.value.code is code, failed.value
    assert told(connection.take_output())[-1][::2] == (GOAWAY, code)
    assert connection.is_closed
    feed(connection, pieces)
    assert not connection.has_output


def whole(data: bytes) -> list[bytes]:
    return [data]


def split(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("by", [whole, split])
@pytest.mark.parametrize("rule", CONNECTION_OF_SERVER)
def test_a_client_that_breaks_the_connection_is_told_why(rule: str, by: Callable[[bytes], list[bytes]]) -> None:
    """GOAWAY with the code of the rule, whether the bytes come at once or one by one."""
    data, code = CONNECTION_OF_SERVER[rule]
    expect_failure(a_server()[0], by(data), code)


@pytest.mark.parametrize("late", [request(1), data_frame(1, b"x")])
def test_a_stream_that_both_ends_ended_takes_nothing_more(late: bytes) -> None:
    """RFC 9113 §5.1: STREAM_CLOSED, of the connection."""
    server, events = a_server()
    server.receive(request(1, ends=True))
    server.send_headers(events.streams[0], RESPONSE, ends=True)
    expect_failure(server, [late], S)


@pytest.mark.parametrize("by", [whole, split])
@pytest.mark.parametrize("rule", STREAM_OF_SERVER)
def test_a_client_that_breaks_a_stream_loses_it_alone(rule: str, by: Callable[[bytes], list[bytes]]) -> None:
    """RST_STREAM with the code of the rule; its stream hears if there was one, and others go on."""
    data, code = STREAM_OF_SERVER[rule]
    server, events = a_server()
    feed(server, by(data))
    assert told(server.take_output()) == [(RST_STREAM, 1, code)]
    assert [[(reset.code, reset.by) for reset in stream.resets] for stream in events.streams] == [
        [(code, Ender.CODEC)] for _ in events.streams
    ]
    assert server.streams_open == 0
    server.receive(data_frame(1, b"late") + headers_frames(1, TRAILERS, ends=True) + request(3, ends=True))
    assert events.streams[-1].ended
    assert told(server.take_output()) == []


@pytest.mark.parametrize("by", [whole, split])
@pytest.mark.parametrize("rule", CONNECTION_OF_CLIENT)
def test_a_server_that_breaks_the_connection_is_told_why(rule: str, by: Callable[[bytes], list[bytes]]) -> None:
    """GOAWAY with the code of the rule, and every call hears."""
    data, code = CONNECTION_OF_CLIENT[rule]
    client, call = a_client()
    expect_failure(client, by(data), code)
    assert len(call.resets) == (0 if call.ended else 1)


@pytest.mark.parametrize("by", [whole, split])
@pytest.mark.parametrize("rule", STREAM_OF_CLIENT)
def test_a_server_that_breaks_a_stream_loses_it_alone(rule: str, by: Callable[[bytes], list[bytes]]) -> None:
    """RST_STREAM with the code of the rule, and the call hears it once."""
    data, code = STREAM_OF_CLIENT[rule]
    client, call = a_client()
    feed(client, by(data))
    assert told(client.take_output()) == [(RST_STREAM, 1, code)]
    assert [(reset.code, reset.by) for reset in call.resets] == [(code, Ender.CODEC)]
    client.receive(data_frame(1, b"late", ends=True))
    assert (client.streams_open, client.is_closed) == (0, False)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x", bytes(24)])
def test_what_is_no_http2_is_refused_at_its_first_wrong_byte(first: bytes) -> None:
    """RFC 9113 §3.4: a wrong preface is a connection error."""
    server = Connection(is_server=True, events=Happened())
    expect_failure(server, split(first), P)


@pytest.mark.parametrize("first", [ping_frame(bytes(8)), SETTINGS_ACK, frame(0x42, 0, 0), goaway_frame(0, 0)])
@pytest.mark.parametrize("is_server", [True, False])
def test_the_first_frame_gives_settings(first: bytes, is_server: bool) -> None:
    """RFC 9113 §3.4, for either end."""
    end = Connection(is_server=is_server, events=Happened())
    expect_failure(end, [(PREFACE if is_server else b"") + first], P)


def test_a_stream_s_window_is_enforced() -> None:
    """One byte more than the window of a stream ends the stream, and counts on the connection."""
    server, events = a_server()
    server._acknowledges = False
    server.receive(request(1) + b"".join(data_frame(1, bytes(13_107)) for _ in range(5)))
    assert len(events.streams[0].data) == 65_535
    server.receive(data_frame(1, b"x"))
    assert told(server.take_output()) == [(RST_STREAM, 1, W)]


def test_the_connection_s_window_is_enforced() -> None:
    """One byte more than the window of the connection ends it."""
    server, _ = a_server(Limits(connection_window_bytes=65_535))
    server._acknowledges = False
    server.receive(request(1) + request(3) + b"".join(data_frame(1, bytes(13_107)) for _ in range(5)))
    expect_failure(server, [data_frame(3, b"x")], W)


def test_a_smaller_window_holds_from_its_acknowledgement_on_and_stops_nobody() -> None:
    """A client may use the first window until it knows of a smaller one, and is given all of it back."""
    events = Happened()
    server = Connection(is_server=True, events=events, limits=Limits(stream_window_bytes=1_000))
    server.receive(PREFACE + settings_frame([]) + request(1))
    server.receive(b"".join(data_frame(1, bytes(13_107)) for _ in range(5)))
    server.receive(SETTINGS_ACK)
    updates = [payload for kind, stream_id, payload in all_frames(server.take_output()) if (kind, stream_id) == (8, 1)]
    assert sum(int.from_bytes(each, "big") for each in updates) == 65_535
    server._acknowledges = False
    server.receive(data_frame(1, bytes(1_000)))
    assert events.streams[0].resets == []
    server.receive(data_frame(1, b"x"))
    assert events.streams[0].resets[0].code is W


def test_padding_counts_in_the_windows_and_is_given_back() -> None:
    """RFC 9113 §6.9.1: what the program never sees it need not acknowledge."""
    server, events = a_server()
    server._acknowledges = False
    server.receive(request(1) + b"".join(data_frame(1, b"x", padding=255) for _ in range(200)))
    stream = events.streams[0]
    assert len(stream.data) == 200
    (update,) = [payload for kind, _, payload in all_frames(server.take_output()) if kind == WINDOW_UPDATE]
    lot = int.from_bytes(update, "big")
    assert lot % 256 == 0
    assert lot > 32_767
    assert stream.received - stream.given_back == 200


ALLOWED = {
    "PRIORITY on an idle stream (5.1)": frame(PRIORITY, 0, 9, bytes(5)),
    "an unknown frame (5.5)": frame(0x42, 0xFF, 77, b"whatever"),
    "an unknown setting (6.5.2)": settings_frame([(0x42, 7), (0xFFFF, 0xFFFF_FFFF)]),
    "unknown flags (4.1)": frame(PING, 0xFE, 0, bytes(8)),
    "the reserved bit (4.1)": frame(PING, 0, 1 << 31, bytes(8)),
    "CONTINUATION of nothing more": frame(HEADERS, 0, 1, REQUEST) + frame(CONTINUATION, END_HEADERS, 1),
    "padding of 255 bytes": request(1) + data_frame(1, b"x", padding=255),
    "padding that fills the frame": request(1) + data_frame(1, b"", padding=3),
    "HEADERS with priority and padding": frame(
        HEADERS, END_HEADERS | PADDED | PRIORITY_FLAG, 1, b"\x02" + bytes(5) + REQUEST + bytes(2)
    ),
    "WINDOW_UPDATE and RST_STREAM after END_STREAM (5.1)": request(1, ends=True)
    + window_update_frame(1, 5)
    + rst_stream_frame(1, 0)
    + window_update_frame(1, 5)
    + rst_stream_frame(1, 0),
    "ids that are jumped over (5.1.1)": request(5) + request(77),
    "CONNECT (8.5)": request(1, block=encode([(b":method", b"CONNECT"), (b":authority", b"x:1")])),
    "the same content-length twice (8.1.1)": request(
        1, block=with_field(b"content-length", b"1") + encode([(b"content-length", b"1")])
    )
    + data_frame(1, b"x", ends=True),
    "an empty value": request(1, block=with_field(b"x", b"")),
    "GOAWAY with debug data, twice": goaway_frame(0, 0, b"bye") + goaway_frame(0, 0xDEAD, b""),
    "a table of 0 taken in the first block": request(1, block=b"\x20" + REQUEST),
    "RST_STREAM with an unknown code (7)": request(1) + rst_stream_frame(1, 0xDEAD_BEEF),
}


@pytest.mark.parametrize("by", [whole, split])
@pytest.mark.parametrize("what", ALLOWED)
def test_what_the_standard_allows_is_no_error(what: str, by: Callable[[bytes], list[bytes]]) -> None:
    """Nothing is reset and the connection goes on."""
    server, events = a_server()
    feed(server, by(ALLOWED[what] + request(99, ends=True)))
    assert told(server.take_output()) == []
    assert events.streams[-1].ended


def test_a_response_to_head_has_a_content_length_and_no_content() -> None:
    """A client cannot see the method in a block that was encoded before, so it takes a response without content."""
    client, call = a_client()
    client.receive(headers_frames(1, RESPONSE + encode([(b"content-length", b"3")])) + frame(DATA, END_STREAM, 1))
    assert call.ended
    assert call.resets == []


def test_informational_responses_come_before_the_response() -> None:
    """RFC 9113 §8.1: any number of them."""
    client, call = a_client()
    hint = headers_frames(1, encode([(b":status", b"103")]))
    client.receive(hint + hint + headers_frames(1, RESPONSE, ends=True))
    assert [each[1][0][1] for each in call.heard] == [b"103", b"103", b"200"]
    assert client.streams_open == 0
