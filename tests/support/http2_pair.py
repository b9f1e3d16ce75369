"""Streams and events that write down what they hear, and two ends of the codec that talk to each other."""

from holdfast.http2 import Connection, Events, Fields, Limits, Reset, Settings, Stream, encode

REQUEST = encode(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/a.B/C"),
        (b":authority", b"127.0.0.1:1"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
)
RESPONSE = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = encode([(b"grpc-status", b"0")])


class Heard(Stream):
    """A stream that keeps what it hears, as tuples."""

    def __init__(self) -> None:
        self.heard: list[tuple] = []

    def on_headers(self, fields: Fields, ends: bool) -> None:
        self.heard.append(("headers", fields.pairs, ends))

    def on_data(self, data: bytes, ends: bool) -> None:
        self.heard.append(("data", data, ends))

    def on_reset(self, reset: Reset) -> None:
        self.heard.append(("reset", reset))

    def on_sent(self) -> None:
        self.heard.append(("sent",))

    @property
    def data(self) -> bytes:
        """All data that came."""
        return b"".join(each[1] for each in self.heard if each[0] == "data")

    @property
    def ended(self) -> bool:
        """Whether the peer said that nothing follows."""
        return bool(self.heard) and self.heard[-1][0] != "sent" and self.heard[-1][-1] is True

    @property
    def resets(self) -> list[Reset]:
        """How it ended before its time, at most once."""
        return [each[1] for each in self.heard if each[0] == "reset"]


class Happened(Events):
    """Events that keep what they hear; a server's streams are `Heard`, by id in `streams`."""

    def __init__(self) -> None:
        self.heard: list[tuple] = []
        self.streams: list[Heard] = []

    def on_stream(self, fields: Fields) -> Stream:
        self.streams.append(Heard())
        return self.streams[-1]

    def on_settings(self, settings: Settings) -> None:
        self.heard.append(("settings", settings))

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.heard.append(("goaway", last_stream_id, code, debug))

    def on_pong(self, payload: bytes) -> None:
        self.heard.append(("pong", payload))


class Pair:
    """A client and a server of the codec, with what each heard."""

    def __init__(
        self, client: Limits | None = None, server: Limits | None = None, *, acknowledges: bool = True
    ) -> None:
        self.of_client, self.of_server = Happened(), Happened()
        self.client = Connection(is_server=False, events=self.of_client, limits=client, acknowledges=acknowledges)
        self.server = Connection(is_server=True, events=self.of_server, limits=server, acknowledges=acknowledges)

    def talk(self) -> None:
        """Passes bytes both ways until neither end has any."""
        while self.client.has_output or self.server.has_output:
            self.server.receive(self.client.take_output())
            self.client.receive(self.server.take_output())

    def call(self, data: bytes = b"", *, ends: bool = True) -> tuple[Heard, Heard]:
        """A new call, as its client and its server have it."""
        mine = Heard()
        self.client.open(mine, REQUEST, data, ends=ends)
        self.talk()
        return mine, self.of_server.streams[-1]
