"""Messages as gRPC frames them: a byte that says whether it is compressed, four bytes of length, the message."""

from collections.abc import Sequence

from holdfast_loadtests.compression import compress


def frame(bodies: Sequence[bytes], compressed: bool = False) -> bytes:
    """Messages, framed, one after the other; each compressed by gzip if they are to be."""
    if compressed:
        return b"".join([b"\1" + len(data).to_bytes(4, "big") + data for data in map(compress, bodies)])
    if len(bodies) == 1:
        return b"\0" + len(bodies[0]).to_bytes(4, "big") + bodies[0]
    return b"".join([b"\0" + len(body).to_bytes(4, "big") + body for body in bodies])


def cut(data: bytes) -> list[bytes]:
    """What `frame` joined, one by one, each still framed."""
    found = []
    position = 0
    while position < len(data):
        end = position + 5 + int.from_bytes(data[position + 1 : position + 5], "big")
        found.append(data[position:end])
        position = end
    return found
