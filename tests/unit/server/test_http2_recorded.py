"""Conversations recorded between real programs are read whole, and as `h2` reads them."""

from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from holdfast.http2 import BlockAssembler, Connection, Fields, FrameReader, HeaderDecoder, Limits
from holdfast.http2.frames import CONTINUATION, DATA, END_HEADERS, HEADERS, PREFACE
from holdfast.http2.payloads import fragment
from support.http2_pair import Happened, Heard
from support.http2_recording import FOLDER, OF_CLIENT, read

RECORDINGS = sorted(FOLDER.glob("*.bin"))

WIDE = Limits(
    frame_bytes_max=1 << 23,
    header_list_bytes_max=1 << 16,
    header_table_bytes_max=1 << 16,
    streams_open_max=1_000,
    stream_window_bytes=(1 << 31) - 1,
    connection_window_bytes=(1 << 31) - 1,
)
"""As much as the recorded ends allowed each other; these two are told the acknowledgements of those."""


class Seen:
    """What a side sent, as a proxy sees it: frames by their places, and a decoded copy of each header block."""

    def __init__(self) -> None:
        self._reader = FrameReader(WIDE.frame_bytes_max)
        self._blocks = BlockAssembler(WIDE)
        self._decoder = HeaderDecoder(WIDE, WIDE.header_table_bytes_max)
        self._preface = len(PREFACE)
        self.passed = b""
        self.fields: list[tuple[int, Fields]] = []
        self.data: dict[int, bytes] = {}

    def take(self, side: int, data: bytes) -> None:
        if side == OF_CLIENT:
            dropped, self._preface = data[: self._preface], max(0, self._preface - len(data))
            self.passed += dropped
            data = data[len(dropped) :]
        for kind, flags, stream_id, start, end in self._reader.feed(data):
            payload = self._reader.data[start:end]
            self.passed += self._reader.data[start - 9 : end]
            if kind == DATA:
                self.data[stream_id] = self.data.get(stream_id, b"") + fragment(kind, flags, stream_id, payload)
            elif kind in (HEADERS, CONTINUATION):
                self._take_headers(kind, flags, stream_id, payload)

    def _take_headers(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == CONTINUATION:
            block = self._blocks.go_on(payload, is_last=bool(flags & END_HEADERS))
        elif flags & END_HEADERS:
            block = fragment(kind, flags, stream_id, payload)
        else:
            self._blocks.begin(stream_id, fragment(kind, flags, stream_id, payload), ends=bool(flags & 1))
            block = None
        if block is not None:
            self.fields.append((stream_id, self._decoder.decode(block)))


POST = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]


def by_h2(reads: list[tuple[int, bytes]], side: int) -> tuple[list[tuple[int, tuple]], dict[int, bytes], list[int]]:
    """The fields, data and resets that h2, as the other end, finds in what one side sent."""
    config = h2.config.H2Configuration(client_side=side != OF_CLIENT, header_encoding=False)
    connection = h2.connection.H2Connection(config)
    sizes = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30, h2.settings.SettingCodes.MAX_FRAME_SIZE: 1 << 23}
    connection.local_settings = h2.settings.Settings(client=side != OF_CLIENT, initial_values=sizes)
    connection.initiate_connection()
    connection.max_inbound_frame_size = 1 << 23
    connection.increment_flow_control_window((1 << 31) - 1 - 65_535)
    opened: set[int] = set()
    fields, data, resets = [], {}, []
    reader, preface = FrameReader(1 << 23), len(PREFACE)
    for each, chunk in reads:
        if each != side:
            if each != OF_CLIENT:
                continue
            begins, preface = preface, max(0, preface - len(chunk))
            for kind, _, stream_id, _, _ in reader.feed(chunk[begins:]):
                if kind == HEADERS and stream_id not in opened:
                    opened.add(stream_id)
                    connection.send_headers(stream_id, POST)
            continue
        for event in connection.receive_data(chunk):
            if isinstance(event, h2.events.DataReceived):
                data[event.stream_id] = data.get(event.stream_id, b"") + event.data
            elif isinstance(event, h2.events.StreamReset):
                resets.append(event.stream_id)
            elif hasattr(event, "headers"):
                fields.append((event.stream_id, tuple((bytes(name), bytes(value)) for name, value in event.headers)))
    return fields, data, resets


def by_stream(fields: list[tuple[int, tuple]]) -> dict[int, list[tuple]]:
    found: dict[int, list[tuple]] = {}
    for stream_id, pairs in fields:
        found.setdefault(stream_id, []).append(pairs)
    return found


def some(data: dict[int, bytes]) -> dict[int, bytes]:
    """Without streams that had none."""
    return {stream_id: found for stream_id, found in data.items() if found}


def ours(reads: list[tuple[int, bytes]]) -> tuple[Happened, dict[int, Heard], Connection, Connection]:
    """A server that gets what the client sent, and a client that opens what it opened and gets what the server sent."""
    events, calls = Happened(), {}
    server = Connection(is_server=True, events=events, limits=WIDE)
    client = Connection(is_server=False, events=Happened(), limits=WIDE)
    client._streams_allowed = 1_000
    for side, data in reads:
        if side == OF_CLIENT:
            before = len(events.streams)
            server.receive(data)
            for _ in events.streams[before:]:
                call = Heard()
                client.open(call, b"", b"")
                calls[call.id] = call
        else:
            client.receive(data)
        server.take_output()
        client.take_output()
    return events, calls, server, client


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("cut", [0, 1, 7, 1_000])
def test_a_recorded_conversation_is_read_as_h2_reads_it(path: Path, cut: int) -> None:
    """Both roles, and a proxy between them, find the fields and data that h2 finds, however the bytes are cut."""
    reads = read(path)
    if cut:
        reads = [(side, data[at : at + cut]) for side, data in reads for at in range(0, len(data), cut)]
    events, calls, server, client = ours(reads)
    assert not server.is_closed
    assert not client.is_closed
    for side, streams in ((OF_CLIENT, events.streams), (1, calls.values())):
        fields, data, resets = by_h2(reads, side)
        assert fields
        headers = [(each.id, what[1]) for each in streams for what in each.heard if what[0] == "headers"]
        assert by_stream(headers) == by_stream(fields)
        assert some({each.id: each.data for each in streams}) == some(data)
        assert sorted(each.id for each in streams if each.resets) == sorted(resets)
        seen, sent = Seen(), [chunk for each, chunk in reads if each == side]
        for chunk in sent:
            seen.take(side, chunk)
        assert seen.passed == b"".join(sent)
        assert [(stream_id, found.pairs) for stream_id, found in seen.fields] == fields
        assert not any(found.problem for _, found in seen.fields)
        assert some(seen.data) == some(data)


def test_there_are_recordings_of_three_clients_and_two_servers() -> None:
    """grpcio, grpc-go and nghttp2 as clients; grpc-go and grpcio as servers."""
    assert [path.stem for path in RECORDINGS] == ["grpc-go-to-grpcio", "grpcio-to-grpc-go", "nghttp2-to-grpcio"]
