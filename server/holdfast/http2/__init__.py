"""A sans-I/O HTTP/2 codec (RFC 9113), for clients, servers, and proxies that look into frames.

Bytes go in, calls of your methods and bytes come out; sockets, clocks and what the calls mean are yours. It is bounded
in everything that it reads (`Limits`), and knows nothing of gRPC.

A client subclasses `Stream`, one object for each call, and hears of what comes by its methods:

    block = encode([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"x"), …])

    class Call(Stream):
        def on_headers(self, fields, ends): …     # fields.get(b"grpc-status"), fields.status, fields.pairs
        def on_data(self, data, ends): …
        def on_reset(self, reset): …              # reset.code, reset.by, reset.unprocessed: may be tried again

    connection = Connection(is_server=False, events=Events())
    connection.open(Call(), block, message, ends=True)      # CannotOpenError.obstacle says why not
    transport.write(connection.take_output())               # whenever `has_output`: after orders, after `receive`
    connection.receive(data)                                # ConnectionFailedError: send what is left, and close

- A block is encoded once and sent with any number of calls; blocks may be joined: `block + encode([(b"x", b"1")])`.
- `open` raises CannotOpenError at the peer's SETTINGS_MAX_CONCURRENT_STREAMS, after its GOAWAY, and when the stream ids
  are used up; `streams_free` and `stream_ids_left` tell before. Until the peer's settings come, 100 may be open.
- `send` and `send_headers` go on with a stream, `reset` ends it. What the peer's windows hold back is kept, bounded by
  `Limits.unsent_bytes_max`, and sent when they open; then `Stream.on_sent`.
- The peer's windows are given back as data comes, or, with `acknowledges=False`, by `acknowledge`.
- PING and SETTINGS are answered; `ping` asks, `Events.on_pong` hears. `Events.on_goaway`, `Events.on_settings`.
- `lost` and `received_end` tell it that the transport ended; `close` and `go_away` tell the peer.
- The same `Fields` object comes again for the same block, so what is read out of it can be kept by it.

A server implements `Events.on_stream(fields) -> Stream`, and answers by `send_headers`, `send`, and `send_headers` with
`ends=True` for trailers.

A proxy that passes frames on uses the layers below: `FrameReader` gives the place of each frame in the bytes,
`payloads` reads and builds every kind, `BlockAssembler` and `HeaderDecoder` decode a copy of each header block.
"""

from holdfast.http2.connection import Connection
from holdfast.http2.encoding import encode
from holdfast.http2.endpoint import Events
from holdfast.http2.errors import (
    CallerError,
    CannotOpenError,
    ConnectionFailedError,
    ErrorCode,
    Http2Error,
    MisuseError,
    Obstacle,
    PeerError,
    StreamFailedError,
    UnsentFullError,
    code_name,
)
from holdfast.http2.fields import Fields
from holdfast.http2.frames import FrameReader
from holdfast.http2.headers import BlockAssembler, HeaderDecoder
from holdfast.http2.limits import Limits
from holdfast.http2.settings import Settings
from holdfast.http2.streams import Ender, Reset, Stream

__all__ = [
    "BlockAssembler",
    "CallerError",
    "CannotOpenError",
    "Connection",
    "ConnectionFailedError",
    "Ender",
    "ErrorCode",
    "Events",
    "Fields",
    "FrameReader",
    "HeaderDecoder",
    "Http2Error",
    "Limits",
    "MisuseError",
    "Obstacle",
    "PeerError",
    "Reset",
    "Settings",
    "Stream",
    "StreamFailedError",
    "UnsentFullError",
    "code_name",
    "encode",
]
