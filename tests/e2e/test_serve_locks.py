"""Locks and elections on a real server: holds survive kill -9, lines keep order, delays are never cut short."""

import contextlib
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from holdfast.coordination.v1 import election_service_pb2 as elections_pb
from holdfast.coordination.v1 import lock_service_pb2 as pb
from holdfast.coordination.v1.election_service_pb2_grpc import ElectionServiceStub
from holdfast.coordination.v1.lock_service_pb2_grpc import LockServiceStub
from holdfast.registry.v1.lease_service_pb2 import GrantLeaseRequest, RevokeLeaseRequest
from holdfast.registry.v1.lease_service_pb2_grpc import LeaseServiceStub
from support.server import PARENT, ServerProcess, wait_for

LOCK = f"{PARENT}/locks/l"
ELECTION = f"{PARENT}/elections/e"
LOCAL = [("grpc.use_local_subchannel_pool", 1)]
TIMEOUT_S = 30.0


class Caller:
    """One client on a connection of its own."""

    def __init__(self, server: ServerProcess) -> None:
        self.channel = grpc.insecure_channel(server.grpc, options=LOCAL)
        self.locks = LockServiceStub(self.channel)
        self.elections = ElectionServiceStub(self.channel)
        self._leases = LeaseServiceStub(self.channel)

    def lease(self, ttl_s: int = 60) -> str:
        request = GrantLeaseRequest(parent=PARENT, ttl=Duration(seconds=ttl_s))
        return self._leases.GrantLease(request, timeout=TIMEOUT_S).lease.name

    def revoke(self, lease: str) -> int:
        return self._leases.RevokeLease(RevokeLeaseRequest(name=lease), timeout=TIMEOUT_S).revision

    def acquire(self, holder: str, lease: str, **fields: Any) -> pb.Lock:
        request = pb.AcquireLockRequest(lock=LOCK, holder=holder, lease=lease, **fields)
        return self.locks.AcquireLock(request, timeout=TIMEOUT_S).lock

    def waiting(self, holder: str, lease: str, wait_s: int = 60) -> "grpc.Future[pb.AcquireLockResponse]":
        request = pb.AcquireLockRequest(lock=LOCK, holder=holder, lease=lease, wait=Duration(seconds=wait_s))
        return self.locks.AcquireLock.future(request, timeout=TIMEOUT_S)

    def release(self, fence: int) -> pb.Lock:
        return self.locks.ReleaseLock(pb.ReleaseLockRequest(lock=LOCK, fence=fence), timeout=TIMEOUT_S).lock

    def read(self) -> pb.Lock:
        return self.locks.GetLock(pb.GetLockRequest(name=LOCK), timeout=TIMEOUT_S).lock

    def campaign(self, candidate: str, lease: str) -> elections_pb.Leadership:
        request = elections_pb.CampaignRequest(election=ELECTION, candidate=candidate, lease=lease)
        return self.elections.Campaign(request, timeout=TIMEOUT_S).leadership

    def until_waiting(self, count: int) -> None:
        wait_for(lambda: self.read().waiters == count, f"{count} in line")


@contextlib.contextmanager
def caller(server: ServerProcess) -> Iterator[Caller]:
    one = Caller(server)
    with one.channel:
        yield one


def reason(error: grpc.RpcError) -> str:
    metadata = dict(error.trailing_metadata())
    info = ErrorInfo()
    Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(info)
    return info.reason


def test_a_line_is_served_in_order_and_who_hangs_up_leaves_it(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, contextlib.ExitStack() as stack:
        first, second, gone, third = (stack.enter_context(caller(server)) for _ in range(4))
        held = first.acquire("0", first.lease())
        calls = []
        for place, each in enumerate((first, second, gone, third), start=1):
            calls.append(each.waiting(str(place), each.lease()))
            first.until_waiting(place)
        gone.channel.close()
        first.until_waiting(3)
        fence = held.fence
        for place in (0, 1, 3):
            after = first.release(fence)
            got = calls[place].result(TIMEOUT_S).lock
            assert (got.holder, got.fence) == (after.holder, after.fence) == (str(place + 1), got.fence)
            assert got.fence > fence
            fence = got.fence
        assert first.release(fence).state == pb.LOCK_STATE_FREE


def test_a_hold_survives_kills_and_those_who_waited_wait_again(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, caller(server) as one:
        lease, other = one.lease(), one.lease()
        held = one.acquire("a", lease, request_id="r")
        waiting = one.waiting("b", other)
        one.until_waiting(1)
        server.kill()
        with pytest.raises(grpc.RpcError):
            waiting.result(TIMEOUT_S)
    with ServerProcess(tmp_path) as server, caller(server) as one:
        assert one.read() == held
        assert one.acquire("a", lease) == held
        assert one.acquire("a", lease, request_id="r") == held
        again = one.waiting("b", other)
        one.until_waiting(1)
        one.release(held.fence)
        assert again.result(TIMEOUT_S).lock.fence > held.fence
        server.kill()
    with ServerProcess(tmp_path) as server, caller(server) as one:
        assert one.read().holder == "b"
        with pytest.raises(grpc.RpcError) as caught:
            one.acquire("a", lease, request_id="r")
        assert reason(caught.value) == "FENCE_STALE"


def test_a_lost_lock_is_had_after_its_delay_and_not_before(tmp_path: Path) -> None:
    """K4: not before the lease could end and the delay was over, which the client's own clock says."""
    with ServerProcess(tmp_path) as server, caller(server) as one:
        began_s = time.monotonic()
        held = one.acquire("a", one.lease(ttl_s=1), delay=Duration(seconds=2))
        got = one.waiting("b", one.lease()).result(TIMEOUT_S).lock
        assert time.monotonic() - began_s >= 3
        assert (got.holder, got.fence > held.fence) == ("b", True)


def test_a_delay_counts_anew_after_a_kill(tmp_path: Path) -> None:
    """K4, of a server that was killed in the middle of it."""
    with ServerProcess(tmp_path) as server, caller(server) as one:
        lease, other = one.lease(), one.lease()
        one.acquire("a", lease, delay=Duration(seconds=3))
        one.revoke(lease)
        assert one.read().state == pb.LOCK_STATE_DELAYED
        server.kill()
        killed_s = time.monotonic()
    with ServerProcess(tmp_path) as server, caller(server) as one:
        with pytest.raises(grpc.RpcError) as caught:
            one.acquire("b", other)
        assert reason(caught.value) == "LOCK_HELD"
        assert one.waiting("b", other).result(TIMEOUT_S).lock.holder == "b"
        assert time.monotonic() - killed_s >= 3


def test_a_server_that_ends_sends_those_in_line_away(tmp_path: Path) -> None:
    """It does not wait for them, nor do they for it."""
    with ServerProcess(tmp_path) as server, caller(server) as one:
        one.acquire("a", one.lease())
        waiting = one.waiting("b", one.lease())
        one.until_waiting(1)
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 5
        with pytest.raises(grpc.RpcError) as caught:
            waiting.result(TIMEOUT_S)
        assert reason(caught.value) == "NOT_READY"


def test_observers_see_every_leadership_once_and_in_order(tmp_path: Path) -> None:
    """E1, over values told, a leader that resigns, and one that is lost."""
    with ServerProcess(tmp_path) as server, caller(server) as one:
        observed = one.elections.ObserveLeader(elections_pb.ObserveLeaderRequest(election=ELECTION), timeout=TIMEOUT_S)
        assert next(observed).leadership == elections_pb.Leadership(election=ELECTION)
        told: list[elections_pb.Leadership] = []
        nobody = elections_pb.Leadership(election=ELECTION)
        for number in range(3):
            lease = one.lease()
            told.append(one.campaign(str(number), lease))
            proclaim = elections_pb.ProclaimLeaderRequest(election=ELECTION, fence=told[-1].fence, value=b"v")
            told.append(one.elections.ProclaimLeader(proclaim, timeout=TIMEOUT_S).leadership)
            if number == 1:
                one.revoke(lease)
            else:
                resign = elections_pb.ResignLeadershipRequest(election=ELECTION, fence=told[-1].fence)
                one.elections.ResignLeadership(resign, timeout=TIMEOUT_S)
            told.append(nobody)
        messages = [next(observed) for _ in told]
        assert [message.leadership for message in messages] == told
        revisions = [message.revision for message in messages]
        assert revisions == sorted(set(revisions))


def test_metrics_count_what_is_held_waited_for_and_lost(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, caller(server) as one:
        lease = one.lease()
        held = one.acquire("a", lease)
        with pytest.raises(grpc.RpcError):
            one.acquire("b", lease)
        waiting = one.waiting("c", one.lease())
        one.until_waiting(1)

        def sample(name: str) -> float:
            with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
            return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

        assert sample('holdfast_holds{collection="locks"}') == 1
        assert sample("holdfast_hold_waiters") == 1
        assert sample('holdfast_hold_wait_seconds_count{collection="locks",outcome="held"}') == 1
        one.revoke(lease)
        assert waiting.result(TIMEOUT_S).lock.fence > held.fence
        assert sample('holdfast_hold_wait_seconds_count{collection="locks",outcome="granted"}') == 2
        assert sample('holdfast_holds_lost_total{collection="locks",how="lease_ended"}') == 1
        assert sample("holdfast_hold_waiters") == 0


def test_a_host_that_fills_the_lines_leaves_others_room_and_time(tmp_path: Path) -> None:
    """5 000 calls of one host wait, the next is refused at once, others are answered, and all is free when they go."""
    with ServerProcess(tmp_path) as server, caller(server) as one, caller(server) as crowd:
        lease = one.lease()
        names = [f"{PARENT}/locks/l{number}" for number in range(5)]
        for name in names:
            one.locks.AcquireLock(pb.AcquireLockRequest(lock=name, holder="a", lease=lease), timeout=TIMEOUT_S)
        waiting = [
            crowd.locks.AcquireLock.future(
                pb.AcquireLockRequest(lock=name, holder=f"w{number}", lease=lease, wait=Duration(seconds=300)),
                timeout=300,
            )
            for number in range(1000)
            for name in names
        ]
        wait_for(lambda: _waiting(one, names) == 5000, "the lines to fill", timeout_s=60)
        began_s = time.monotonic()
        one.acquire("a", lease)
        late = one.waiting("late", lease)
        with pytest.raises(grpc.RpcError) as caught:
            late.result(TIMEOUT_S)
        assert reason(caught.value) == "QUOTA_EXCEEDED"
        assert time.monotonic() - began_s < 2
        assert not any(call.done() for call in waiting)
        crowd.channel.close()
        wait_for(lambda: _waiting(one, names) == 0, "the lines to empty", timeout_s=60)
        assert one.acquire("a", lease).holder == "a"


def _waiting(one: Caller, names: list[str]) -> int:
    return sum(one.locks.GetLock(pb.GetLockRequest(name=name), timeout=TIMEOUT_S).lock.waiters for name in names)
