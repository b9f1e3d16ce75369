"""`keepalive`: leases kept per CPU second of the server, against etcd's LeaseKeepAlive; both pipelined on streams.

Ours at 1 000 leases per message and at one; etcd's API has one per message.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import etcd
from benchmarks.frames import CallFailedError, Connection, connected
from benchmarks.processes import Running, cpu_s, cpu_since_s, pin, start_ours
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.registry.v1 import lease_service_pb2 as messages

LEASES = 1000
STREAMS = 8
DEPTH = 32
"""Messages under way on each stream."""

ROUND_S = 1.0
SERVICE = "/holdfast.registry.v1.LeaseService"


async def run(rounds: int = ROUNDS, round_s: float = ROUND_S, leases: int = LEASES) -> list[Comparison]:
    """Both servers up at once, loaded in turn: first one lease per message, then all of them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        ours, theirs = start_ours(stack, folder), etcd.start(stack, folder)
        names = await grant_ours(ours.address, leases)
        await grant_theirs(theirs.address, leases)
        keep, their_keep = f"{SERVICE}/KeepLeaseAlive", "/etcdserverpb.Lease/LeaseKeepAlive"
        single = [messages.KeepLeaseAliveRequest(leases=[name]).SerializeToString() for name in names]
        bulk = [messages.KeepLeaseAliveRequest(leases=names).SerializeToString()]
        their_single = [etcd.keep_alive(lease) for lease in range(1, leases + 1)]

        def kept(requests: list[bytes], each: int) -> Callable[[], Awaitable[float]]:
            return lambda: kept_per_cpu_s(ours, keep, requests, each, check_ours, round_s)

        async def kept_theirs() -> float:
            return await kept_per_cpu_s(theirs, their_keep, their_single, 1, check_theirs, round_s)

        return [
            Comparison("keepalive", "etcd LeaseKeepAlive", f"leases kept per server CPU second, {what}", "1/s", pairs)
            for what, pairs in [
                (f"{leases} per message", await alternate(kept(bulk, leases), kept_theirs, rounds)),
                ("1 per message", await alternate(kept(single, 1), kept_theirs, rounds)),
            ]
        ]


async def kept_per_cpu_s(
    server: Running, method: str, requests: Sequence[bytes], each: int, check: Callable[[bytes], None], round_s: float
) -> float:
    """Keeps leases for one round on all streams, `each` with every message."""
    async with connected(server.address) as connection:
        before_s, until_s = cpu_s(server.pid), time.perf_counter() + round_s
        streams = [Keeping(connection, method, requests, check, until_s) for _ in range(STREAMS)]
        await asyncio.gather(*(stream.ended for stream in streams))
        return sum(stream.done for stream in streams) * each / cpu_since_s(server.pid, before_s)


class Keeping:
    """One stream, `DEPTH` messages ahead of the answers until the time is up; then the answers that are due come."""

    def __init__(
        self,
        connection: Connection,
        method: str,
        requests: Sequence[bytes],
        check: Callable[[bytes], None],
        until_s: float,
    ) -> None:
        self.done = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._check, self._until_s = requests, check, until_s
        self._stream = connection.open(method, self._answered, self._over)
        self._sent = 0
        for _ in range(DEPTH):
            self._send()

    def _send(self) -> None:
        self._stream.send(self._requests[self._sent % len(self._requests)])
        self._sent += 1

    def _answered(self, answer: bytes) -> None:
        if not self.done:
            self._check(answer)
        self.done += 1
        if time.perf_counter() < self._until_s:
            self._send()
        elif self.done == self._sent and not self.ended.done():
            self._stream.cancel()
            self.ended.set_result(None)

    def _over(self, trailers: bytes) -> None:
        if not self.ended.done():
            self.ended.set_exception(CallFailedError(f"the server ended the stream: {trailers!r}"))


async def grant_ours(address: str, count: int) -> list[str]:
    """Leases that outlast the benchmark; returns their names."""
    request = messages.GrantLeaseRequest(parent="namespaces/bench")
    request.ttl.FromSeconds(3600)
    async with connected(address) as connection:
        call, sent = f"{SERVICE}/GrantLease", request.SerializeToString()
        answers = await asyncio.gather(*(connection.call(call, sent) for _ in range(count)))
        return [messages.GrantLeaseResponse.FromString(answer).lease.name for answer in answers]


async def grant_theirs(address: str, count: int) -> None:
    """Leases 1 … count of etcd."""
    async with connected(address) as connection:
        call = "/etcdserverpb.Lease/LeaseGrant"
        await asyncio.gather(*(connection.call(call, etcd.grant(lease, 3600)) for lease in range(1, count + 1)))


def check_ours(answer: bytes) -> None:
    """Every lease of the message was kept."""
    results = messages.KeepLeaseAliveResponse.FromString(answer).results
    assert results, "an answer without results"
    assert not any(result.status.code for result in results), f"a lease was not kept: {results[0]}"


def check_theirs(answer: bytes) -> None:
    """The lease was kept."""
    assert etcd.kept_ttl_s(answer) > 0, f"etcd did not keep the lease: {answer!r}"
