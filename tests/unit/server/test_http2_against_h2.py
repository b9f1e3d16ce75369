"""The codec agrees with `h2`, an independent implementation: it talks with it, and judges the same bytes as it does."""

import contextlib
from collections import deque

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.http2 import Connection, ConnectionFailedError, ErrorCode, Limits, encode
from holdfast.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY_FLAG,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FrameReader,
    frame,
)
from holdfast.http2.payloads import (
    data_frame,
    headers_frames,
    ping_frame,
    rst_stream_frame,
    settings_frame,
    window_update_frame,
)
from support.http2_pair import Happened, Heard

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"x")]
RESPONSE = [(b":status", b"200")]

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_."
TOKEN = st.text(LETTERS, min_size=1, max_size=12).map(lambda name: b"x-" + name.encode())
TEXT = st.binary(max_size=40).map(lambda value: value.translate(None, b"\0\r\n").strip(b" \t\v\f"))
FIELDS = st.lists(st.tuples(TOKEN, TEXT), max_size=5)
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Peer:
    """An end made of h2 that takes note of what it hears in the words of `Heard`, by stream."""

    def __init__(self, *, is_client: bool, initial: dict[int, int] | None = None) -> None:
        config = h2.config.H2Configuration(client_side=is_client, header_encoding=False)
        self.connection = h2.connection.H2Connection(config)
        if initial:
            self.connection.local_settings = h2.settings.Settings(client=is_client, initial_values=initial)
        self.connection.initiate_connection()
        self.heard: dict[int, list[tuple]] = {}
        self.pongs: list[bytes] = []
        self._unsent: dict[int, deque[tuple[bytes, bool, list | None]]] = {}

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            self._note(event)
        for stream_id in list(self._unsent):
            self._go_on(stream_id)

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case (
                h2.events.RequestReceived()
                | h2.events.ResponseReceived()
                | h2.events.TrailersReceived()
                | h2.events.InformationalResponseReceived()
            ):
                pairs = tuple((bytes(name), bytes(value)) for name, value in event.headers)
                self._hear(event.stream_id, ("headers", pairs, getattr(event, "stream_ended", None) is not None))
            case h2.events.DataReceived():
                self._hear(event.stream_id, ("data", event.data, event.stream_ended is not None))
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                self._unsent.pop(event.stream_id, None)
                self._hear(event.stream_id, ("reset", int(event.error_code)))
            case h2.events.PingAckReceived():
                self.pongs.append(event.ping_data)

    def _hear(self, stream_id: int, what: tuple) -> None:
        self.heard.setdefault(stream_id, []).append(what)

    def send(self, stream_id: int, data: bytes, *, ends: bool, trailers: list | None = None) -> None:
        self._unsent.setdefault(stream_id, deque()).append((data, ends, trailers))
        self._go_on(stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        self._unsent.pop(stream_id, None)
        self.connection.reset_stream(stream_id, code)

    def _go_on(self, stream_id: int) -> None:
        waiting = self._unsent.get(stream_id)
        while waiting:
            data, ends, trailers = waiting.popleft()
            if trailers is not None:
                self.connection.send_headers(stream_id, trailers, end_stream=True)
                continue
            room = self.connection.local_flow_control_window(stream_id)
            size = min(len(data), max(0, room), self.connection.max_outbound_frame_size)
            if size == len(data):
                self.connection.send_data(stream_id, data, end_stream=ends)
            else:
                if size:
                    self.connection.send_data(stream_id, data[:size])
                waiting.appendleft((data[size:], ends, trailers))
                if not size:
                    return
        self._unsent.pop(stream_id, None)


def merged(heard: list[tuple]) -> list[tuple]:
    """What a stream heard, with neighbouring data joined: how it is cut is the sender's affair."""
    found: list[tuple] = []
    for what in heard:
        if what[0] == "sent":
            continue
        if what[0] == "reset" and not isinstance(what[1], int):
            what = ("reset", int(what[1].code))
        if what[0] == "data" and found and found[-1][0] == "data":
            found[-1] = ("data", found[-1][1] + what[1], what[2])
        elif what[0] != "data" or what[1] or what[2]:
            found.append(what)
    return found


def exchange(ours: Connection, peer: Peer, cut: int) -> None:
    """Passes bytes both ways, in pieces, until neither end has any."""
    while True:
        mine, theirs = ours.take_output(), peer.connection.data_to_send()
        if not mine and not theirs:
            return
        for at in range(0, len(mine), cut):
            peer.receive(mine[at : at + cut])
        for at in range(0, len(theirs), cut):
            ours.receive(theirs[at : at + cut])


CALLS = st.lists(
    st.tuples(
        FIELDS,  # of the request
        st.lists(st.integers(0, 9_000) | st.just(90_000), max_size=2),  # sizes of its data
        FIELDS,  # of the response
        st.lists(st.integers(0, 9_000) | st.just(90_000), max_size=2),
        st.none() | FIELDS.filter(len),  # trailers
        st.sampled_from(["", "", "", "client", "server"]),  # who resets
    ),
    min_size=1,
    max_size=6,
)
CUT = st.sampled_from([1 << 20, 16_384, 1_000, 61])
WINDOW = st.sampled_from([65_535, 1_000, 200_000])


def a_body(sizes: list[int], salt: int) -> list[bytes]:
    """Data of some sizes, in which a place can be told from others."""
    pattern = bytes((salt + at) % 251 for at in range(251))
    return [(pattern * (size // 251 + 1))[:size] for size in sizes]


@MANY
@given(CALLS, CUT, WINDOW, WINDOW)
def test_a_client_is_understood_by_h2_and_understands_it(calls, cut: int, our_window: int, their_window: int) -> None:
    """Whatever is sent, in whatever pieces and windows, each hears exactly what the other said."""
    ours = Connection(is_server=False, events=Happened(), limits=Limits(stream_window_bytes=our_window))
    peer = Peer(is_client=False, initial={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: their_window})
    exchange(ours, peer, cut)  # h2 holds its first windows against who cannot know them yet
    expected: dict[int, tuple[list, list, str]] = {}
    streams: dict[int, Heard] = {}
    for number, (asked, sizes, answered, answers, trailers, resets) in enumerate(calls):
        stream, body = Heard(), a_body(sizes, number)
        ours.open(stream, encode(REQUEST + asked), ends=not body)
        for at, data in enumerate(body):
            ours.send(stream, data, ends=at == len(body) - 1)
        streams[stream.id] = stream
        exchange(ours, peer, cut)
        back = a_body(answers, number + 7)
        expected[stream.id] = (
            [("headers", tuple(REQUEST + asked), not body), ("data", b"".join(body), True)][: 2 if body else 1],
            [("headers", tuple(RESPONSE + answered), not back and trailers is None)]
            + ([("data", b"".join(back), trailers is None)] if back else [])
            + ([("headers", tuple(trailers), True)] if trailers is not None else []),
            resets,
        )
        if resets == "client":
            ours.reset(stream, ErrorCode.CANCEL)
        elif resets == "server":
            peer.reset(stream.id, 2)
        else:
            peer.connection.send_headers(stream.id, RESPONSE + answered, end_stream=not back and trailers is None)
            for at, data in enumerate(back):
                peer.send(stream.id, data, ends=trailers is None and at == len(back) - 1)
            if trailers is not None:
                peer.send(stream.id, b"", ends=True, trailers=trailers)
    ours.ping(b"12345678")
    peer.connection.ping(b"abcdefgh")
    exchange(ours, peer, cut)
    for stream_id, (request, response, resets) in expected.items():
        theirs, mine = merged(peer.heard[stream_id]), merged(streams[stream_id].heard)
        request = [each for each in request if each[0] != "data" or each[1] or each[2]]
        assert theirs == request + ([("reset", 8)] if resets == "client" else [])
        said = [each for each in response if each[0] != "data" or each[1] or each[2]]
        assert mine == ([] if resets == "client" else [("reset", 2)] if resets == "server" else said)
    assert (ours.streams_open, ours.unsent_bytes) == (0, 0)
    assert ("pong", b"12345678") in ours.events.heard
    assert peer.pongs == [b"abcdefgh"]


@MANY
@given(CALLS, CUT, WINDOW, WINDOW)
def test_a_server_is_understood_by_h2_and_understands_it(calls, cut: int, our_window: int, their_window: int) -> None:
    """The same with the ends changed: h2 compresses with a table until it is told not to."""
    events = Happened()
    ours = Connection(is_server=True, events=events, limits=Limits(stream_window_bytes=our_window))
    peer = Peer(is_client=True, initial={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: their_window})
    checks = []
    for number, (asked, sizes, answered, answers, trailers, resets) in enumerate(calls):
        stream_id, body = peer.connection.get_next_available_stream_id(), a_body(sizes, number)
        peer.connection.send_headers(stream_id, REQUEST + asked, end_stream=not body)
        for at, data in enumerate(body):
            peer.send(stream_id, data, ends=at == len(body) - 1)
        exchange(ours, peer, cut)
        stream, back = events.streams[-1], a_body(answers, number + 7)
        assert stream.id == stream_id
        if resets == "client":
            peer.reset(stream_id, 8)
            exchange(ours, peer, cut)
        elif resets == "server":
            ours.reset(stream, ErrorCode.INTERNAL_ERROR)
        else:
            ours.send_headers(stream, encode(RESPONSE + answered), ends=not back and trailers is None)
            for at, data in enumerate(back):
                ours.send(stream, data, ends=trailers is None and at == len(back) - 1)
            if trailers is not None:
                ours.send_headers(stream, encode(trailers), ends=True)
        said = [
            ("headers", tuple(RESPONSE + answered), not back and trailers is None),
            ("data", b"".join(back), bool(back) and trailers is None),
            *([("headers", tuple(trailers), True)] if trailers is not None else []),
        ]
        checks.append((stream, tuple(REQUEST + asked), body, said, resets))
    exchange(ours, peer, cut)
    for stream, fields, body, said, resets in checks:
        asked = [("headers", fields, not body), ("data", b"".join(body), bool(body))]
        asked = [each for each in asked if each[0] != "data" or each[1] or each[2]]
        # A request that had ended is over for its client once the reset is out, and for the server when it comes.
        assert merged(stream.heard) == asked + ([("reset", 8)] if resets == "client" else [])
        said = [each for each in said if each[0] != "data" or each[1] or each[2]]
        heard = merged(peer.heard.get(stream.id, []))
        assert heard == ([] if resets == "client" else [("reset", 2)] if resets == "server" else said)
    assert (ours.streams_open, ours.unsent_bytes) == (0, 0)


# The same bytes, judged by both.

BLOCKS = st.sampled_from(
    [
        encode(REQUEST),
        encode(REQUEST),
        encode([*REQUEST, (b"x", b"y")]),
        encode([(b"x", b"trailer")]),
        encode([REQUEST[0], REQUEST[1], REQUEST[3]]),
        encode(RESPONSE),
        b"\xff\xff\xff\xff\xff\xff",
        b"\x00\x03ab",
        encode(REQUEST) + b"\x00\x01X\x01y",
        encode(REQUEST) + encode([(b"connection", b"close")]),
        encode(REQUEST) + encode([(b"x", b"y"), (b":path", b"/")]),
    ]
)
SETTING = st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 2, 16_384, 1 << 24, 1 << 31]))
IDS = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 0, 2])
FRAMES = st.one_of(
    st.builds(lambda stream_id, block, ends: headers_frames(stream_id, block, ends=ends), IDS, BLOCKS, st.booleans()),
    st.builds(
        lambda stream_id, data, ends, padding: data_frame(stream_id, data, ends=ends, padding=padding),
        IDS,
        st.sampled_from([b"", b"12345", bytes(300)]),
        st.booleans(),
        st.sampled_from([None, None, 0, 9]),
    ),
    st.builds(rst_stream_frame, IDS, st.sampled_from([0, 8, 0xBEEF])),
    st.builds(window_update_frame, IDS, st.sampled_from([1, 65_535, (1 << 31) - 1, 0])),
    st.builds(settings_frame, st.lists(SETTING, max_size=1)),
    st.builds(ping_frame, st.just(b"12345678")),
    st.builds(
        frame,
        st.sampled_from([DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, 0x42]),
        st.sampled_from([0, END_STREAM, END_HEADERS, PADDED, PRIORITY_FLAG, END_HEADERS | PADDED]),
        IDS,
        st.sampled_from([b"", b"\0", b"\5", bytes(4), bytes(5), bytes(8), b"\xff" * 6]),
    ),
)


def first_told(data: bytes) -> tuple[int, int] | None:
    """The stream and code of the first RST_STREAM or GOAWAY in some output; 0 is the connection."""
    reader = FrameReader()
    for kind, _, stream_id, start, end in reader.feed(data.removeprefix(PREFACE)):
        payload = reader.data[start:end]
        if kind == RST_STREAM:
            return stream_id, int.from_bytes(payload, "big")
        if kind == GOAWAY:
            return 0, int.from_bytes(payload[4:8], "big")
    return None


def of_ours(frames: list[bytes]) -> tuple[list[tuple], tuple[int, int] | None, int]:
    """What streams heard up to the first error, what was told of it, and how many frames that took."""
    events = Happened()
    ours = Connection(is_server=True, events=events)
    ours.receive(PREFACE + settings_frame([]))
    error, count = None, 0
    while count < len(frames) and not error:
        ours.take_output()
        with contextlib.suppress(ConnectionFailedError):
            ours.receive(frames[count])
        error, count = first_told(ours.take_output()), count + 1
    heard = [(stream.id, what) for stream in events.streams for what in merged(stream.heard) if what[0] != "reset"]
    return heard, error, count


def of_h2(frames: list[bytes]) -> tuple[list[tuple], tuple[int, int] | None, int]:
    """The same of h2."""
    peer = Peer(is_client=False)
    peer.receive(PREFACE + settings_frame([]))
    error, count = None, 0
    while count < len(frames) and not error:
        peer.connection.clear_outbound_data_buffer()
        with contextlib.suppress(h2.exceptions.ProtocolError):
            peer.receive(frames[count])
        error, count = first_told(peer.connection.data_to_send()), count + 1
    heard = [(key, what) for key, all_of in peer.heard.items() for what in merged(all_of) if what[0] != "reset"]
    return heard, error, count


P, F, S, C = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED, ErrorCode.COMPRESSION_ERROR
DIFFERENT = {
    (C, P): "RFC 9113 §4.3 has COMPRESSION_ERROR for a block that cannot be decoded; h2 has no code for it",
    (P, F): "a frame of a wrong size on a wrong stream: either may be named",
    (F, P): "the same",
    (S, F): "the same",
    (F, S): "the same",
    (P, S): "§6.10 has PROTOCOL_ERROR for a CONTINUATION of nothing, §5.1.1 for HEADERS of a stream jumped over",
}


def is_of_idle_stream(frame_bytes: bytes) -> bool:
    """RST_STREAM of an idle stream, which h2 lets pass: RFC 9113 §6.4 has PROTOCOL_ERROR for it."""
    return frame_bytes[3] == RST_STREAM


def up_to_goaway(frames: list[bytes]) -> list[bytes]:
    """The frames up to a GOAWAY: RFC 9113 §6.8 lets its sender go on with streams of its own, and h2 takes no more."""
    ends = [index for index, each in enumerate(frames) if each[3] == GOAWAY and each[5:9] == bytes(4)]
    return frames[: ends[0] + 1] if ends else frames


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(FRAMES, min_size=1, max_size=8).map(up_to_goaway))
def test_the_same_bytes_are_judged_as_h2_judges_them(frames: list[bytes]) -> None:
    """Streams hear the same up to the first error, which has the same code but for what is listed.

    h2 ends the connection for most of what RFC 9113 lets end a stream alone, and here does; and h2 ends a stream where
    RFC 9113 lets a late frame end the connection, and here does.
    """
    heard, error, count = of_ours(frames)
    their_heard, their_error, their_count = of_h2(frames[:count])
    assert (heard, count) == (their_heard, their_count)
    if error and not their_error:
        assert is_of_idle_stream(frames[count - 1])
    elif error != their_error:
        assert error
        assert their_error
        assert error[1] == their_error[1] or (error[1], their_error[1]) in DIFFERENT
