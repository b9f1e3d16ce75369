"""`keepalive`: leases kept per CPU second of the server, against etcd's LeaseKeepAlive; both pipelined on streams.

Ours at 1 000 leases per message and at one; etcd's API has one per message.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import grpc.aio

from benchmarks import etcd
from benchmarks.register_durable import pin, start
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.registry.v1 import lease_service_pb2 as messages

LEASES = 1000
STREAMS = 8
DEPTH = 32
"""Messages under way on each stream."""

ROUND_S = 1.0
SERVICE = "/holdfast.registry.v1.LeaseService"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def run(rounds: int = ROUNDS, round_s: float = ROUND_S, leases: int = LEASES) -> list[Comparison]:
    """Both servers up at once, loaded in turn: first one lease per message, then all of them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pin(os.getpid(), -1)
        serve = ["-m", "holdfast", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        ours = start(stack, folder, "ours", [*serve, "--store", f"sqlite:{folder / 'h.db'}"])
        our_pid = int(json.loads((folder / "ours.json").read_text())["pid"])
        theirs, process = etcd.start(stack, folder)
        pin_threads(process.pid, 0)
        names = await grant_ours(ours, leases)
        await grant_theirs(theirs, leases)
        keep, their_keep = f"{SERVICE}/KeepLeaseAlive", "/etcdserverpb.Lease/LeaseKeepAlive"
        single = [messages.KeepLeaseAliveRequest(leases=[name]).SerializeToString() for name in names]
        bulk = [messages.KeepLeaseAliveRequest(leases=names).SerializeToString()]
        their_single = [etcd.keep_alive(lease) for lease in range(1, leases + 1)]

        def kept(requests: list[bytes], each: int) -> Callable[[], Awaitable[float]]:
            return lambda: kept_per_cpu_s(ours, keep, requests, each, our_pid, check_ours, round_s)

        async def kept_theirs() -> float:
            return await kept_per_cpu_s(theirs, their_keep, their_single, 1, process.pid, check_theirs, round_s)

        return [
            Comparison("keepalive", "etcd LeaseKeepAlive", f"leases kept per server CPU second, {what}", "1/s", pairs)
            for what, pairs in [
                (f"{leases} per message", await alternate(kept(bulk, leases), kept_theirs, rounds)),
                ("1 per message", await alternate(kept(single, 1), kept_theirs, rounds)),
            ]
        ]


async def kept_per_cpu_s(
    address: str,
    method: str,
    requests: list[bytes],
    each: int,
    pid: int,
    check: Callable[[bytes], None],
    round_s: float,
) -> float:
    """Keeps leases for one round on all streams, `each` with every message."""
    async with grpc.aio.insecure_channel(address) as channel:
        before_s, until_s = cpu_s(pid), time.perf_counter() + round_s
        done = await asyncio.gather(*(stream(channel, method, requests, check, until_s) for _ in range(STREAMS)))
        return sum(done) * each / (cpu_s(pid) - before_s)


async def stream(
    channel: grpc.aio.Channel, method: str, requests: list[bytes], check: Callable[[bytes], None], until_s: float
) -> int:
    """One stream, `DEPTH` messages ahead of the answers; returns how many were answered."""
    call = channel.stream_stream(method)()
    sent = done = 0
    while done < sent or time.perf_counter() < until_s:
        if sent - done < DEPTH and time.perf_counter() < until_s:
            await call.write(requests[sent % len(requests)])
            sent += 1
        else:
            answer = await call.read()
            assert isinstance(answer, bytes), "the server ended the stream"
            done += 1
            if done == 1:
                check(answer)
    await call.done_writing()
    return done


async def grant_ours(address: str, count: int) -> list[str]:
    """Leases that outlast the benchmark; returns their names."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(f"{SERVICE}/GrantLease")
        request = messages.GrantLeaseRequest(parent="namespaces/bench")
        request.ttl.FromSeconds(3600)
        answers = await asyncio.gather(*(call(request.SerializeToString()) for _ in range(count)))
        return [messages.GrantLeaseResponse.FromString(answer).lease.name for answer in answers]


async def grant_theirs(address: str, count: int) -> None:
    """Leases 1 … count of etcd."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
        await asyncio.gather(*(call(etcd.grant(lease, 3600)) for lease in range(1, count + 1)))


def check_ours(answer: bytes) -> None:
    """Every lease of the message was kept."""
    results = messages.KeepLeaseAliveResponse.FromString(answer).results
    assert results, "an answer without results"
    assert not any(result.status.code for result in results), f"a lease was not kept: {results[0]}"


def check_theirs(answer: bytes) -> None:
    """The lease was kept."""
    assert etcd.kept_ttl_s(answer) > 0, f"etcd did not keep the lease: {answer!r}"


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pin_threads(pid: int, core: int) -> None:
    """Ties every thread that a running process has to one core; those to come inherit it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        pin(int(thread.name), core)
