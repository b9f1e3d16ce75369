"""What a hostile peer can make the codec hold or do is bounded, and every bound is one of `Limits`."""

import gc
import inspect
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields as fields_of
from pathlib import Path

import pytest

from holdfast.http2 import (
    CannotOpenError,
    Connection,
    ConnectionFailedError,
    ErrorCode,
    HeaderDecoder,
    Limits,
    MisuseError,
    Obstacle,
    encode,
)
from holdfast.http2.frames import CONTINUATION, END_HEADERS, HEADERS, PREFACE, PRIORITY, FrameReader, frame
from holdfast.http2.limits import Budget
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
from support.http2_pair import REQUEST, RESPONSE, Happened, Heard

CALM = ErrorCode.ENHANCE_YOUR_CALM


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Deaf(Happened):
    """Events that keep nothing, so that memory is the codec's."""

    def on_stream(self, fields):
        return Heard()

    def on_settings(self, settings):
        pass

    def on_goaway(self, last_stream_id, code, debug):
        pass


def a_server(limits: Limits | None = None, clock: Clock | None = None) -> Connection:
    made = Connection(is_server=True, events=Deaf(), limits=limits, clock=clock or Clock())
    made.receive(PREFACE + settings_frame([]) + SETTINGS_ACK)
    made.take_output()
    return made


def until_refused(connection: Connection, pieces: Iterator[bytes], *, reads: bool = True) -> tuple[int, ErrorCode]:
    """How many pieces a connection took before it failed, and with what code."""
    taken = 0
    try:
        for piece in pieces:
            connection.receive(piece)
            taken += 1
            if reads:
                connection.take_output()
    except ConnectionFailedError as error:
        return taken, error.code
    raise AssertionError(f"took all {taken}")


def ids(first: int = 1) -> Iterator[int]:
    return iter(range(first, 1_000_000, 2))


BLOCK_BOMB = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4_000 + b"\xbe" * 12_000
"""A field of 4 000 bytes goes into the table, and is named 12 000 times: 48 MB of fields in 16 kB."""

FLOODS = {
    "rapid reset (CVE-2023-44487)": (
        lambda: (headers_frames(each, REQUEST) + rst_stream_frame(each, 8) for each in ids()),
        50,
        CALM,
    ),
    "streams that break a rule (CVE-2025-8671)": (
        lambda: (headers_frames(each, REQUEST) + window_update_frame(each, 0) for each in ids()),
        50,
        CALM,
    ),
    "streams beyond those that may be open": (lambda: (headers_frames(each, REQUEST) for each in ids()), 50 + 20, CALM),
    "malformed requests": (lambda: (headers_frames(each, RESPONSE) for each in ids()), 50, CALM),
    "empty DATA (CVE-2019-9518)": (
        lambda: (headers_frames(1, REQUEST) if not n else data_frame(1, b"") for n in range(10_000)),
        40 + 1,
        CALM,
    ),
    "padding alone": (
        lambda: (headers_frames(1, REQUEST) if not n else data_frame(1, b"", padding=9) for n in range(10_000)),
        40 + 1,
        CALM,
    ),
    "PRIORITY (CVE-2019-9513)": (lambda: (frame(PRIORITY, 0, n, bytes(5)) for n in ids()), 40, CALM),
    "unknown frames": (lambda: (frame(0x99, 0, 0, b"x") for _ in range(10_000)), 40, CALM),
    "settings": (lambda: (settings_frame([(4, n)]) for n in range(10_000)), 40, CALM),
    "answers to no settings": (lambda: (SETTINGS_ACK for _ in range(10_000)), 40, CALM),
    "GOAWAY": (lambda: (goaway_frame(0, 0) for _ in range(10_000)), 40, CALM),
    "RST_STREAM of a stream that is gone": (
        lambda: (
            headers_frames(1, REQUEST) + rst_stream_frame(1, 8) if not n else rst_stream_frame(1, 8)
            for n in range(10_000)
        ),
        40 + 1,
        CALM,
    ),
    "WINDOW_UPDATE": (lambda: (window_update_frame(0, 1) for _ in range(10_000)), 60, CALM),
    "a block that is too long": (lambda: iter([headers_frames(1, REQUEST + bytes(20_000))]), 0, CALM),
    "endless CONTINUATION (CVE-2024-27316)": (
        lambda: (frame(CONTINUATION if n else HEADERS, 0, 1, b"\x00\x01a\x01b") for n in range(10_000)),
        8 + 1,
        CALM,
    ),
    "endless CONTINUATION of nothing": (
        lambda: (frame(CONTINUATION if n else HEADERS, 0, 1) for n in range(10_000)),
        8 + 1,
        CALM,
    ),
}

SMALL = Limits(
    resets_burst=50,
    idle_frames_burst=40,
    window_updates_burst=60,
    streams_open_max=20,
    answers_waiting_max=30,
)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_refused_at_its_bound(flood: str) -> None:
    """Exactly as many pass as the bound says, and the next ends the connection with ENHANCE_YOUR_CALM."""
    pieces, most, code = FLOODS[flood]
    assert until_refused(a_server(SMALL), pieces()) == (most, code)


def test_answers_to_a_peer_that_does_not_read_are_bounded() -> None:
    """PINGs pass without end while their answers are taken, and not when they are not (CVE-2019-9512)."""
    server, ask = a_server(SMALL), ping_frame(b"12345678")
    for _ in range(1_000):
        server.receive(ask)
        server.take_output()
    assert until_refused(server, iter([ask] * 100), reads=False) == (30, CALM)


def test_a_header_bomb_is_refused_before_it_unfolds() -> None:
    """Fields are counted as they are decoded, and 48 MB of them never exist (CVE-2016-6581)."""
    server = a_server(Limits(header_table_bytes_max=8_192))
    tracemalloc.start()
    try:
        assert until_refused(server, iter([headers_frames(1, BLOCK_BOMB)])) == (0, CALM)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_bound_by_the_second_comes_back_with_time() -> None:
    """What a decent peer does for ever is never refused."""
    clock = Clock()
    server = a_server(Limits(resets_burst=50, resets_per_s=10), clock)
    for stream_id in ids():
        if stream_id > 4_000:
            break
        server.receive(headers_frames(stream_id, REQUEST) + rst_stream_frame(stream_id, 8))
        server.take_output()
        clock.now_s += 0.1
    assert not server.is_closed


def test_a_server_s_resets_are_not_bounded() -> None:
    """A server can only reset what this end opened: a load against a broken one goes on."""
    client = Connection(is_server=False, events=Deaf(), limits=SMALL, clock=Clock())
    client.receive(settings_frame([]) + SETTINGS_ACK)
    for _ in range(2_000):
        call = Heard()
        client.open(call, REQUEST, ends=True)
        client.receive(rst_stream_frame(call.id, 7))
        assert call.resets[0].unprocessed
        client.take_output()
    assert client.streams_open == 0


def test_streams_after_goaway_are_forgotten_at_once() -> None:
    """They cost a server nothing that stays, and are bounded as other streams that come to nothing."""
    server = a_server(SMALL)
    server.go_away()
    assert until_refused(server, (headers_frames(each, REQUEST) for each in ids())) == (50, CALM)
    assert server.streams_open == 0


@pytest.mark.parametrize("size", [1, 7, 16_384])
def test_a_frame_in_pieces_is_held_once(size: int) -> None:
    """However it is cut, the reader holds less than one frame, and gives it whole."""
    reader, data = FrameReader(), data_frame(1, bytes(range(256)) * 64) * 3
    most, found = 0, []
    for at in range(0, len(data), size):
        found += [reader.data[start:end] for *_, start, end in reader.feed(data[at : at + size])]
        most = max(most, reader.held_bytes)
    assert found == [bytes(range(256)) * 64] * 3
    assert most < 9 + 16_384
    assert reader.held_bytes == 0


def test_a_length_that_is_too_large_is_refused_before_the_frame_comes() -> None:
    """Nine bytes are enough to see it."""
    server = a_server()
    assert until_refused(server, iter([bytes((0, 64, 1, 0, 0, 0, 0, 0)), b"\1"])) == (1, ErrorCode.FRAME_SIZE_ERROR)


def test_kept_blocks_are_bounded() -> None:
    """A peer that never says the same twice is decoded, and kept no more than the bound."""
    limits = Limits(cached_blocks_max=10)
    decoder = HeaderDecoder(limits)
    decoder.allow_table(0)
    for number in range(100):
        block = encode([(b"x", str(number).encode())])
        assert decoder.decode(block) is decoder.decode(block)
        assert len(decoder.kept) <= 10
    long = encode([(b"x", b"y" * 2_000)])
    assert decoder.decode(long) is not decoder.decode(long)


def test_blocks_that_need_the_table_are_not_kept() -> None:
    """With a table the same bytes can mean another field later."""
    decoder = HeaderDecoder(Limits())
    block = b"\x40\x01a\x01b"
    assert decoder.decode(block) is not decoder.decode(block)
    assert decoder.decode(b"\xbe").pairs == ((b"a", b"b"),)
    assert decoder.decode(b"\x40\x01a\x01c").pairs == ((b"a", b"c"),)
    assert decoder.decode(b"\xbe").pairs == ((b"a", b"c"),)


def test_a_sender_that_uses_the_table_has_to_take_the_smaller_one() -> None:
    """RFC 9113 §4.3.1: after the acknowledgement a block must begin with a size, if the table was in use."""
    decoder = HeaderDecoder(Limits())
    decoder.decode(b"\x40\x01a\x01b")
    decoder.allow_table(0)
    with pytest.raises(ConnectionFailedError) as refused:
        decoder.decode(b"\x00\x01a\x01b")
    assert refused.value.code is ErrorCode.COMPRESSION_ERROR
    decoder = HeaderDecoder(Limits())
    decoder.decode(b"\x40\x01a\x01b")
    decoder.allow_table(0)
    assert decoder.decode(b"\x20\x00\x01a\x01b").pairs == ((b"a", b"b"),)
    with pytest.raises(ConnectionFailedError):
        decoder.decode(b"\xbe")


def test_a_block_that_grows_too_long_is_refused_in_its_midst() -> None:
    """Nothing is gathered beyond what a list may hold."""
    pieces = [frame(HEADERS, 0, 1, bytes(10_000)), frame(CONTINUATION, 0, 1, bytes(10_000))]
    assert until_refused(a_server(), iter(pieces)) == (1, CALM)


def test_a_burst_is_saved_up_no_higher_than_its_bound() -> None:
    """After an hour of silence as many pass at once as at the start."""
    clock = Clock()
    budget = Budget("things", 10.0, 50, clock)
    for _ in range(50):
        budget.spend()
    clock.now_s = 3_600.0
    for _ in range(50):
        budget.spend()
    with pytest.raises(ConnectionFailedError, match="more than 50 things at once and 10 a second"):
        budget.spend()


def test_late_data_of_a_stream_that_was_reset_is_given_back() -> None:
    """The connection's window does not shrink with every reset: RFC 9113 §5.1."""
    server = a_server(Limits(connection_window_bytes=65_535))
    for stream_id in range(1, 21, 2):
        server.receive(headers_frames(stream_id, RESPONSE))  # no request, so it is reset
        server.receive(data_frame(stream_id, bytes(16_000)))
    assert not server.is_closed


def test_memory_does_not_grow_with_what_has_been() -> None:
    """After many streams, resets, pings and blocks of their own, a connection holds what it held before."""

    def talk(count: int, first: int) -> None:
        for stream_id in range(first, first + 2 * count, 2):
            block = REQUEST + encode([(b"x-request", str(stream_id).encode())])
            server.receive(headers_frames(stream_id, block) + data_frame(stream_id, bytes(100)))
            server.receive(rst_stream_frame(stream_id, 8) + ping_frame(bytes(8)))
            server.receive(frame(PRIORITY, 0, stream_id, bytes(5)) + window_update_frame(stream_id, 1))
            server.take_output()
            clock.now_s += 1

    clock = Clock()
    limits = Limits(cached_blocks_max=10, resets_remembered_max=100)
    server = a_server(limits, clock)
    talk(500, 1)
    tracemalloc.start()
    try:
        talk(500, 1_001)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        talk(5_000, 2_001)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


def test_resets_that_are_remembered_are_bounded() -> None:
    """Frames late for a stream whose reset was forgotten still harm nobody."""
    client = Connection(is_server=False, events=Deaf(), limits=Limits(resets_remembered_max=10), clock=Clock())
    client.receive(settings_frame([]) + SETTINGS_ACK)
    for _ in range(100):
        call = Heard()
        client.open(call, REQUEST)
        client.reset(call)
        client.take_output()
    assert client._past.resets_count == 10
    for stream_id in range(1, 200, 2):
        client.receive(headers_frames(stream_id, RESPONSE) + data_frame(stream_id, b"late", ends=True))
    assert not client.is_closed


def test_every_bound_says_where_it_comes_from() -> None:
    """Each field of Limits is followed by its reason, alone or with the one below."""
    source = inspect.getsource(Limits)
    for field in fields_of(Limits):
        after = source.split(f"    {field.name}: ", 1)[1].split("\n", 1)[1]
        first = after.lstrip()
        assert first.startswith(('"""', *(f"{other.name}:" for other in fields_of(Limits)))), field.name


def test_a_block_in_small_pieces_passes_below_the_bound() -> None:
    """Eight CONTINUATION frames are taken."""
    server = a_server()
    pieces = [REQUEST[:9]] + [REQUEST[at : at + 9] for at in range(9, 72, 9)] + [REQUEST[72:]]
    server.receive(frame(HEADERS, 1, 1, pieces[0]))
    for piece in pieces[1:-1]:
        server.receive(frame(CONTINUATION, 0, 1, piece))
    server.receive(frame(CONTINUATION, END_HEADERS, 1, pieces[-1]))
    assert server.streams_open == 1


def test_every_bound_is_documented_with_its_default() -> None:
    """docs/http2.md has a row for each field of Limits, and no other."""
    page = (Path(__file__).parents[3] / "docs" / "http2.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    found = {name.strip(" `"): int(value.replace(" ", "")) for name, value in rows}
    assert found == {field.name: field.default for field in fields_of(Limits)}


def test_resets_that_cross_are_no_flood() -> None:
    """Both ends may reset the same stream at once, as deadlines make them, more often than any bound on idle frames."""
    server = a_server(Limits(resets_burst=10_000))
    events, mine = server.events, []
    events.on_stream = lambda _fields: mine.append(Heard()) or mine[-1]
    for stream_id in range(1, 6_000, 2):
        server.receive(headers_frames(stream_id, REQUEST))
        server.reset(mine[-1])
        server.take_output()
        server.receive(rst_stream_frame(stream_id, 8))
    assert (server.is_closed, server.streams_open) == (False, 0)


def test_a_server_may_reset_each_stream_once_and_more_is_a_flood() -> None:
    """A reset may cross the stream's end; of those beyond one for each stream, the bound on idle frames holds."""
    client = Connection(is_server=False, events=Happened(), limits=SMALL, clock=Clock())
    client.receive(settings_frame([]))
    for stream_id in range(1, 11, 2):
        client.open(Heard(), REQUEST, ends=True)
        client.receive(rst_stream_frame(stream_id, 8))
    assert until_refused(client, iter([rst_stream_frame(1, 8)] * 1_000)) == (5 + 40, CALM)


def test_a_client_may_begin_at_any_odd_stream_and_ends_with_the_last() -> None:
    client = Connection(is_server=False, events=Happened(), first_stream_id=(1 << 31) - 3)
    client.receive(settings_frame([]))
    assert client.stream_ids_left == 2
    for _ in range(2):
        client.open(Heard(), REQUEST, ends=True)
    with pytest.raises(CannotOpenError) as refused:
        client.open(Heard(), REQUEST, ends=True)
    assert refused.value.obstacle is Obstacle.NO_STREAM_IDS
    for wrong in (0, 2, -1, (1 << 31) + 1):
        with pytest.raises(MisuseError):
            Connection(is_server=False, events=Happened(), first_stream_id=wrong)
