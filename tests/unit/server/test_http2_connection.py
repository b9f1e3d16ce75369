"""Two ends of the HTTP/2 codec talk as RFC 9113 says."""

import pytest

from holdfast.http2 import (
    CannotOpenError,
    Connection,
    Ender,
    ErrorCode,
    Events,
    Limits,
    MisuseError,
    Obstacle,
    UnsentFullError,
    encode,
)
from holdfast.http2.frames import GOAWAY, HEAD, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, FrameReader
from holdfast.http2.limits import STREAM_ID_MAX
from holdfast.http2.payloads import (
    SETTINGS_ACK,
    goaway_frame,
    rst_stream_frame,
    settings_frame,
    window_update_frame,
)
from support.http2_pair import REQUEST, RESPONSE, TRAILERS, Heard, Pair


def frames_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """The kinds, streams and payloads in some bytes, without a preface."""
    reader = FrameReader((1 << 24) - 1)
    return [(kind, stream_id, reader.data[start:end]) for kind, _, stream_id, start, end in reader.feed(data)]


def client(limits: Limits | None = None) -> Connection:
    """A client whose server has given no settings but its greeting."""
    made = Connection(is_server=False, events=Events(), limits=limits)
    made.receive(settings_frame([]) + SETTINGS_ACK)
    made.take_output()
    return made


def test_a_call_passes_headers_data_and_trailers() -> None:
    """What one end sends is what the other hears, and both forget the stream."""
    pair = Pair()
    mine, theirs = pair.call(b"question")
    assert theirs.data == b"question"
    assert theirs.ended
    pair.server.send_headers(theirs, RESPONSE)
    pair.server.send(theirs, b"answer")
    pair.server.send_headers(theirs, TRAILERS, ends=True)
    pair.talk()
    assert mine.heard == [
        ("headers", ((b":status", b"200"), (b"content-type", b"application/grpc")), False),
        ("data", b"answer", False),
        ("headers", ((b"grpc-status", b"0"),), True),
    ]
    assert (pair.client.streams_open, pair.server.streams_open) == (0, 0)


def test_data_beyond_the_windows_waits_and_arrives_whole() -> None:
    """A megabyte passes a window of 65 535 bytes in order, and `on_sent` says when it is out."""
    pair = Pair()
    data = bytes(range(256)) * 4096
    mine, theirs = pair.call(data)
    assert theirs.data == data
    assert theirs.ended
    assert ("sent",) in mine.heard
    assert pair.client.unsent_bytes == 0


def test_nothing_exceeds_the_windows_of_a_peer_that_gives_none_back() -> None:
    """Without acknowledgement the sender stops at the stream's window, and goes on by as much as is acknowledged."""
    pair = Pair(acknowledges=False)
    _, theirs = pair.call(bytes(200_000))
    assert len(theirs.data) == 65_535
    pair.server.acknowledge(theirs, 40_000)
    pair.talk()
    assert len(theirs.data) == 65_535 + 40_000
    while not theirs.ended:
        before = len(theirs.data)
        pair.server.acknowledge(theirs, 40_000)
        pair.talk()
        assert before < len(theirs.data) <= before + 40_000
    assert len(theirs.data) == 200_000


def test_streams_that_wait_for_the_connection_take_turns() -> None:
    """Ten streams of which any could use up the connection's window get equal parts of it."""
    window = 10 * 65_535
    made = client()
    made.receive(settings_frame([(4, window)]))
    calls = [Heard() for _ in range(10)]
    for call in calls:
        made.open(call, REQUEST, bytes(window), ends=True)
    made.take_output()
    made.receive(window_update_frame(0, 10 * 16_384))
    sizes: dict[int, int] = {}
    for kind, stream_id, payload in frames_of(made.take_output()):
        if kind == 0:
            sizes[stream_id] = sizes.get(stream_id, 0) + len(payload)
    assert sorted(sizes) == [call.id for call in calls]
    assert set(sizes.values()) == {16_384}


def test_many_small_calls_stay_within_the_window_of_the_connection() -> None:
    """What goes out at once with the headers counts like all other data, on the stream and on the connection."""
    made = client()
    calls = [Heard() for _ in range(80)]
    for call in calls:
        made.open(call, REQUEST, bytes(1_000), ends=True)
    sent = [payload for kind, _, payload in frames_of(made.take_output()) if kind == 0]
    assert sum(map(len, sent)) == 65_535
    assert made.unsent_bytes == 80_000 - 65_535
    assert calls[0].send_window == 65_535 - 1_000


def test_a_stream_without_window_holds_no_other_back() -> None:
    """One stream waits for its own window while another sends."""
    made = client()
    made.receive(window_update_frame(0, 1 << 20))
    slow, fast = Heard(), Heard()
    made.open(slow, REQUEST, bytes(100_000), ends=True)
    made.open(fast, REQUEST, bytes(50_000), ends=True)
    sent = frames_of(made.take_output())
    assert sum(len(payload) for kind, stream_id, payload in sent if (kind, stream_id) == (0, fast.id)) == 50_000
    assert made.unsent_bytes == 100_000 - 65_535


def test_trailers_follow_the_data_that_waits() -> None:
    """Headers ordered after data that waits for a window go out after it."""
    pair = Pair()
    mine, theirs = pair.call(b"x")
    pair.server.send_headers(theirs, RESPONSE)
    pair.server.send(theirs, bytes(300_000))
    pair.server.send_headers(theirs, TRAILERS, ends=True)
    pair.talk()
    assert len(mine.data) == 300_000
    assert mine.heard[-1] == ("headers", ((b"grpc-status", b"0"),), True)
    assert pair.server.streams_open == 0


def test_a_smaller_initial_window_stops_streams_that_are_open() -> None:
    """RFC 9113 §6.9.2: a window can be negative, and must be positive before more is sent."""
    made = client()
    call = Heard()
    made.open(call, REQUEST, bytes(60_000))
    made.receive(settings_frame([(4, 100)]))
    assert call.send_window == 100 - 60_000
    made.send(call, b"more", ends=True)
    made.take_output()
    made.receive(window_update_frame(call.id, 60_000 - 100))
    assert not made.has_output
    made.receive(window_update_frame(call.id, 3))
    assert [payload for kind, _, payload in frames_of(made.take_output()) if kind == 0] == [b"mor"]


def test_what_may_wait_is_bounded_and_a_refused_order_changes_nothing() -> None:
    """Too much for the windows is refused before anything of it is sent."""
    made = client(Limits(unsent_bytes_max=1_000))
    with pytest.raises(UnsentFullError, match="1001 bytes would wait"):
        made.open(Heard(), REQUEST, bytes(65_535 + 1_001), ends=True)
    assert (made.streams_open, made.has_output) == (0, False)
    call = Heard()
    made.open(call, REQUEST, bytes(65_535 + 1_000))
    with pytest.raises(UnsentFullError):
        made.send(call, b"1")
    made.reset(call)
    assert made.unsent_bytes == 0


@pytest.mark.parametrize("most", [0, 1, 7])
def test_no_more_streams_are_opened_than_the_peer_takes(most: int) -> None:
    """SETTINGS_MAX_CONCURRENT_STREAMS holds, and a stream that ends makes room."""
    made = client()
    made.receive(settings_frame([(3, most)]))
    calls = [Heard() for _ in range(most)]
    for call in calls:
        made.open(call, REQUEST, ends=True)
    assert made.streams_free == 0
    with pytest.raises(CannotOpenError) as refused:
        made.open(Heard(), REQUEST)
    assert refused.value.obstacle is Obstacle.STREAMS_FULL
    if calls:
        made.reset(calls[0])
        assert made.streams_free == 1
        made.open(Heard(), REQUEST)


def test_a_server_refuses_streams_beyond_its_bound() -> None:
    """REFUSED_STREAM says that nothing was done about them."""
    pair = Pair(server=Limits(streams_open_max=2))
    calls = [Heard() for _ in range(3)]
    for call in calls:
        pair.client.open(call, REQUEST)
    pair.talk()
    assert [[(reset.code, reset.unprocessed) for reset in call.resets] for call in calls] == [
        [],
        [],
        [(ErrorCode.REFUSED_STREAM, True)],
    ]


def test_a_stream_whose_answer_has_begun_was_looked_at_whatever_the_peer_says() -> None:
    """REFUSED_STREAM, or a GOAWAY below it, after response headers: its caller must not take it for undone."""
    for late in (rst_stream_frame(1, ErrorCode.REFUSED_STREAM), goaway_frame(0, ErrorCode.NO_ERROR, b"")):
        pair = Pair()
        mine, theirs = pair.call()
        pair.server.send_headers(theirs, RESPONSE)
        pair.talk()
        pair.client.receive(late)
        assert [reset.unprocessed for reset in mine.resets] == [False]


def test_stream_ids_run_out_in_sight() -> None:
    """The last id is used, and the next order says why it cannot be."""
    made = client()
    made._next_id = STREAM_ID_MAX
    assert (made.stream_ids_left, made.streams_free) == (1, 1)
    last = Heard()
    made.open(last, REQUEST, ends=True)
    assert last.id == STREAM_ID_MAX
    assert (made.stream_ids_left, made.streams_free) == (0, 0)
    with pytest.raises(CannotOpenError) as refused:
        made.open(Heard(), REQUEST)
    assert refused.value.obstacle is Obstacle.NO_STREAM_IDS


def test_goaway_ends_what_the_peer_will_not_look_at_and_lets_the_rest_end() -> None:
    """Streams above its last id may be tried again; others go on; none can be opened."""
    pair = Pair()
    kept, theirs = pair.call()
    pair.server.go_away(ErrorCode.NO_ERROR, b"drain")
    late = Heard()
    pair.client.open(late, REQUEST, ends=True)
    pair.talk()
    assert [(reset.by, reset.unprocessed) for reset in late.resets] == [(Ender.PEER, True)]
    assert ("goaway", kept.id, 0, b"drain") in pair.of_client.heard
    with pytest.raises(CannotOpenError) as refused:
        pair.client.open(Heard(), REQUEST)
    assert refused.value.obstacle is Obstacle.GOING_AWAY
    pair.server.send_headers(theirs, RESPONSE, ends=True)
    pair.talk()
    assert kept.ended


def test_the_last_stream_of_goaway_never_grows() -> None:
    """RFC 9113 §6.8: a drain says the largest id first and the last that came then; later ones are dropped."""
    pair = Pair()
    pair.call(ends=False)
    pair.server.go_away(last_stream_id=STREAM_ID_MAX)
    pair.server.go_away()
    sent = pair.server.take_output()
    pair.client.open(Heard(), REQUEST, ends=True)
    pair.server.receive(pair.client.take_output())
    pair.server.go_away()
    sent += pair.server.take_output()
    said = [int.from_bytes(payload[:4], "big") for kind, _, payload in frames_of(sent) if kind == GOAWAY]
    assert said == [STREAM_ID_MAX, 1, 1]
    assert len(pair.of_server.streams) == 1


def test_a_reset_is_heard_by_the_other_end_alone() -> None:
    """The end that resets hears nothing more, whatever is on its way; the other hears why."""
    pair = Pair()
    mine, theirs = pair.call()
    pair.server.send_headers(theirs, RESPONSE)
    pair.server.send(theirs, b"late")
    pair.client.reset(mine)
    pair.client.reset(mine)
    pair.talk()
    assert mine.heard == []
    assert [(reset.code, reset.by) for reset in theirs.resets] == [(ErrorCode.CANCEL, Ender.PEER)]
    assert (pair.client.streams_open, pair.server.streams_open) == (0, 0)
    with pytest.raises(MisuseError, match="is gone"):
        pair.server.send(theirs, b"more")


def test_nothing_is_sent_on_a_stream_that_was_ended() -> None:
    """An order after the last is refused, with the stream unchanged."""
    pair = Pair()
    mine, _ = pair.call(ends=True)
    with pytest.raises(MisuseError, match="was ended by this end"):
        pair.client.send(mine, b"more")
    assert not pair.client.has_output


def test_the_end_of_the_transport_is_heard_by_every_stream() -> None:
    """Each hears once, and nothing can be opened."""
    pair = Pair()
    mine, _ = pair.call()
    pair.client.receive(goaway_frame(1, 0)[:5])
    pair.client.received_end()
    pair.client.lost()
    assert [(reset.by, reset.unprocessed) for reset in mine.resets] == [(Ender.CONNECTION, False)]
    assert "within a frame, 5 bytes into it" in mine.resets[0].message
    with pytest.raises(CannotOpenError) as refused:
        pair.client.open(Heard(), REQUEST)
    assert refused.value.obstacle is Obstacle.CLOSED


def test_a_ping_is_answered_and_its_answer_heard() -> None:
    """Either end may ask."""
    pair = Pair()
    pair.talk()
    pair.client.ping(b"12345678")
    pair.talk()
    pair.server.ping(b"abcdefgh")
    pair.talk()
    assert pair.of_client.heard[-1] == ("pong", b"12345678")
    assert pair.of_server.heard[-1] == ("pong", b"abcdefgh")
    with pytest.raises(MisuseError, match="8 bytes, not 3"):
        pair.client.ping(b"123")


def test_the_same_block_gives_the_same_fields_once_no_table_is_in_use() -> None:
    """What a program reads out of a block can be kept by its Fields object."""
    pair = Pair()
    found = []
    for _ in range(3):
        mine, theirs = pair.call()
        pair.server.send_headers(theirs, RESPONSE)
        pair.server.send_headers(theirs, encode([(b"grpc-status", b"0"), (b"x", b"y" * 200)]), ends=True)
        pair.talk()
        found.append([each[1] for each in mine.heard])
    assert found[1] == found[0]
    assert [one is other for one, other in zip(found[1], found[2], strict=True)] == [True, True]


def test_the_first_block_of_each_end_gives_the_table_up() -> None:
    """RFC 7541 §6.3: so no later SETTINGS_HEADER_TABLE_SIZE of the peer has to be answered by a size."""
    pair = Pair()
    pair.talk()
    calls = [Heard(), Heard()]
    for call in calls:
        pair.client.open(call, REQUEST, b"data", ends=True)
    sent = pair.client.take_output()
    assert [payload for kind, _, payload in frames_of(sent) if kind == 1] == [b"\x20" + REQUEST, REQUEST]
    pair.server.receive(sent)
    for stream in pair.of_server.streams:
        pair.server.send_headers(stream, RESPONSE, ends=True)
    blocks = [payload for kind, _, payload in frames_of(pair.server.take_output()) if kind == 1]
    assert blocks == [b"\x20" + RESPONSE, RESPONSE]


def test_callbacks_may_give_orders_in_the_midst_of_reading() -> None:
    """A stream that resets itself, opens another or closes the connection when it hears something breaks nothing."""

    class Restless(Heard):
        def on_headers(self, fields, ends):
            super().on_headers(fields, ends)
            pair.client.reset(self)
            pair.client.open(other, REQUEST, b"next", ends=True)

        def on_data(self, data, ends):
            raise AssertionError("data after the reset")

    pair, other = Pair(), Heard()
    restless = Restless()
    pair.client.open(restless, REQUEST, ends=True)
    pair.talk()
    theirs = pair.of_server.streams[0]
    pair.server.send_headers(theirs, RESPONSE)
    pair.server.send(theirs, b"data", ends=True)
    pair.talk()
    assert pair.of_server.streams[1].data == b"next"


def test_a_bug_in_a_callback_ends_the_connection_and_comes_out() -> None:
    """Nothing goes on from a state that nobody knows."""

    class Buggy(Heard):
        def on_headers(self, fields, ends):
            raise ZeroDivisionError

    pair = Pair()
    pair.client.open(Buggy(), REQUEST, ends=True)
    pair.talk()
    pair.server.send_headers(pair.of_server.streams[0], RESPONSE)
    with pytest.raises(ZeroDivisionError):
        pair.talk()
    assert pair.client.is_closed
    assert [kind for kind, _, _ in frames_of(pair.client.take_output())] == [GOAWAY]


def test_the_greeting_says_the_bounds() -> None:
    """A peer that keeps to what it is told never meets a bound of settings."""
    limits = Limits(frame_bytes_max=20_000, header_list_bytes_max=9_000, streams_open_max=5, stream_window_bytes=77)
    server = Connection(is_server=True, events=Events(), limits=limits)
    greeting = frames_of(server.take_output())
    assert [kind for kind, _, _ in greeting] == [SETTINGS, WINDOW_UPDATE]
    found = {
        int.from_bytes(greeting[0][2][at : at + 2], "big"): int.from_bytes(greeting[0][2][at + 2 : at + 6], "big")
        for at in range(0, len(greeting[0][2]), 6)
    }
    assert found == {1: 0, 3: 5, 4: 77, 5: 20_000, 6: 9_000}


def test_an_impossible_bound_is_refused_by_name() -> None:
    """Limits that RFC 9113 does not have are the program's mistake."""
    with pytest.raises(ValueError, match="frame_bytes_max is 16383: give 16384 to 16777215"):
        Limits(frame_bytes_max=16_383)


def test_frames_have_the_bytes_of_the_standard() -> None:
    """RFC 9113 §4.1: length, type, flags, stream id."""
    assert window_update_frame(3, 5) == bytes.fromhex("000004 08 00 00000003 00000005")
    assert HEAD.size == 9
    assert (RST_STREAM, PING) == (3, 6)
