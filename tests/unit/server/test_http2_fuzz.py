"""Whatever bytes come, the codec answers by its own errors, the same for any cut, and holds no more than its bounds."""

import contextlib
import random

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.http2 import Connection, ConnectionFailedError, Fields, FrameReader, HeaderDecoder, Limits, encode
from holdfast.http2.encoding import EMPTIES_TABLE
from holdfast.http2.frames import PREFACE, frame
from holdfast.http2.payloads import (
    SETTINGS_ACK,
    data_frame,
    goaway_frame,
    headers_frames,
    ping_frame,
    priority_frame,
    push_promise_frame,
    rst_stream_frame,
    settings_frame,
    window_update_frame,
)
from support.http2_pair import REQUEST, RESPONSE, TRAILERS, Happened, Heard

SOUND = [
    settings_frame([(3, 100), (4, 1 << 20)]),
    SETTINGS_ACK,
    headers_frames(1, REQUEST),
    headers_frames(3, REQUEST, ends=True),
    headers_frames(1, RESPONSE),
    headers_frames(1, TRAILERS, ends=True),
    frame(1, 0, 5, REQUEST[:20]) + frame(9, 4, 5, REQUEST[20:]),
    data_frame(1, b"data"),
    data_frame(1, bytes(2_000), padding=7),
    data_frame(3, b"", ends=True),
    priority_frame(1, 0, 16),
    rst_stream_frame(3, 8),
    push_promise_frame(1, 2, REQUEST),
    ping_frame(bytes(8)),
    goaway_frame(1, 0, b"debug"),
    window_update_frame(0, 1_000),
    window_update_frame(1, 1_000),
    frame(0x42, 0, 1, b"unknown"),
]
"""Every kind of frame, each well made."""


def an_end(*, is_server: bool) -> tuple[Connection, list[Heard], Happened]:
    """A server, or a client that has opened three streams; with the streams it has or will have."""
    events = Happened()
    made = Connection(is_server=is_server, events=events, clock=lambda: 0.0)
    if is_server:
        return made, events.streams, events
    calls = [Heard() for _ in range(3)]
    for call in calls:
        made.open(call, REQUEST, b"data")
    return made, calls, events


def outcome(pieces: list[bytes], *, is_server: bool) -> tuple:
    """What was heard of some bytes, what was answered, and how it failed if it did."""
    made, streams, events = an_end(is_server=is_server)
    failure = None
    try:
        for piece in pieces:
            made.receive(piece)
    except ConnectionFailedError as error:
        failure = (error.code, error.message)
    assert len(made.take_output()) <= 3 * sum(map(len, pieces)) + 4_096
    return [stream.heard for stream in streams], failure, made.streams_open, len(events.heard)


def mangled(dice: random.Random) -> bytes:
    """Sound frames with some bytes changed, lost or added."""
    data = bytearray(b"".join(dice.choices(SOUND, k=dice.randint(1, 12))))
    for _ in range(dice.randint(0, 4)):
        at = dice.randrange(len(data))
        how = dice.randrange(4)
        if how == 0:
            data[at] = dice.randrange(256)
        elif how == 1:
            data[at] ^= 1 << dice.randrange(8)
        elif how == 2:
            del data[at : at + dice.randint(1, 8)]
        else:
            data[at:at] = dice.randbytes(dice.randint(1, 8))
        if not data:
            break
    return bytes(data)


def plain(heard: list) -> list:
    """Without what is compared by identity."""
    return [[repr(each) for each in one] for one in heard]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("is_server", [True, False])
def test_mangled_streams_raise_nothing_but_their_own_errors(seed: int, is_server: bool) -> None:
    """A hundred mangled streams a seed: they end in ConnectionFailedError or not at all, however they are cut."""
    dice = random.Random(seed)
    for _ in range(100):
        data = (PREFACE if is_server and dice.random() < 0.95 else b"") + SOUND[0] + mangled(dice)
        heard, failure, *rest = outcome([data], is_server=is_server)
        cut = sorted(dice.choices(range(len(data)), k=dice.randint(1, 20)))
        pieces = [data[start:end] for start, end in zip([0, *cut], [*cut, len(data)], strict=True)]
        in_pieces, failure_in_pieces, *rest_in_pieces = outcome(pieces, is_server=is_server)
        if failure is None or "came where" not in failure[1]:  # a wrong preface is quoted as far as it had come
            assert (plain(heard), failure, rest) == (plain(in_pieces), failure_in_pieces, rest_in_pieces), (seed, data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_noise_raises_nothing_but_its_own_errors(data: bytes, is_server: bool) -> None:
    """Bytes of no meaning, as first frames and after a greeting."""
    for before in (b"", PREFACE + SOUND[0] if is_server else SOUND[0]):
        made, _, _ = an_end(is_server=is_server)
        with contextlib.suppress(ConnectionFailedError):
            made.receive(before + data)
        assert len(made.take_output()) < 8_192


@settings(max_examples=500, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.sampled_from([0, 4_096]))
def test_noise_is_no_header_block_or_fields(blocks: list[bytes], table_bytes: int) -> None:
    """Any bytes decode to fields within the bound, or to ConnectionFailedError."""
    decoder = HeaderDecoder(Limits(header_list_bytes_max=500), table_bytes)
    with contextlib.suppress(ConnectionFailedError):
        for block in blocks:
            fields = decoder.decode(block)
            assert sum(32 + len(name) + len(value) for name, value in fields.pairs) <= 500


@pytest.mark.parametrize("seed", range(10))
def test_mangled_blocks_are_no_blocks_or_fields(seed: int) -> None:
    """Blocks by a real encoder, with Huffman codes and a table, and some bits changed."""
    dice = random.Random(seed)
    encoder = hpack.Encoder()
    for _ in range(200):
        decoder = HeaderDecoder(Limits())
        block = bytearray(encoder.encode([(b":status", b"200"), (b"x-a", dice.randbytes(9).hex().encode())]))
        for _ in range(dice.randint(1, 3)):
            block[dice.randrange(len(block))] ^= 1 << dice.randrange(8)
        with contextlib.suppress(ConnectionFailedError):
            decoder.decode(bytes(block))


NAMES = st.sampled_from([b":status", b":path", b"te", b"content-type", b"authorization", b"x-y", b"z" * 300])
LENGTHS = [0, 1, 126, 127, 128, 16_000]
VALUES = st.sampled_from([b"200", b"/", b"trailers", *(b"a" * length for length in LENGTHS)]) | st.binary(max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.lists(st.tuples(NAMES, VALUES), max_size=3))
def test_an_encoded_block_means_its_fields_to_another_decoder(first: list, then: list) -> None:
    """Also joined, also behind the size of the table, and at any time: it touches no table."""
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    for block, fields in [
        (encode(first), first),
        (encode(first) + encode(then), first + then),
        (EMPTIES_TABLE + encode(then), then),
        (encode(first), first),
    ]:
        assert [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)] == fields


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=5))
def test_fields_are_well_formed_or_say_why_not(pairs: list[tuple[bytes, bytes]]) -> None:
    """Any names and values are judged, and kept as they came."""
    fields = Fields(pairs)
    assert fields.pairs == tuple(pairs)
    assert isinstance(fields.problem, str)
    for name, value in pairs if not fields.problem else []:
        assert value in fields.all(name)
        assert fields.get(name) == fields.all(name)[0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, (1 << 31) - 1), st.binary(max_size=50)),
        max_size=8,
    ),
    st.integers(1, 40),
)
def test_a_reader_gives_the_frames_that_were_written(frames: list[tuple[int, int, int, bytes]], cut: int) -> None:
    """Whatever their kinds and flags, and however they are cut; and their places give the same bytes again."""
    data = b"".join(frame(*each) for each in frames)
    reader, found, again = FrameReader(), [], b""
    for at in range(0, len(data), cut):
        for kind, flags, stream_id, start, end in reader.feed(data[at : at + cut]):
            found.append((kind, flags, stream_id, reader.data[start:end]))
            again += reader.data[start - 9 : end]
    assert (found, again, reader.held_bytes) == (frames, data, 0)


def test_the_first_of_several_values_is_got() -> None:
    """As gRPC reads metadata that comes twice; all of them can be had."""
    fields = Fields([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert (fields.get(b"a"), fields.all(b"a"), fields.get(b"c")) == (b"1", [b"1", b"3"], None)


def test_secrets_are_never_indexed() -> None:
    """RFC 7541 §7.1.3: no proxy may put them into a table; by default those of `authorization`."""
    (field,) = hpack.Decoder().decode(encode([(b"authorization", b"Bearer x")]), raw=True)
    assert not field.indexable
    (field,) = hpack.Decoder().decode(encode([(b"x-key", b"y")], secret=(b"x-key",)), raw=True)
    assert not field.indexable
    (field,) = hpack.Decoder().decode(encode([(b"x-key", b"y")]), raw=True)
    assert field.indexable
