"""Sessions and work count from when what was answered was sent: the answer may have been long under way."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.client import Session, Work
from holdfast.client.proof import Proof
from holdfast.coordination.v1.activation_service_pb2 import Activation, ActivationProgress
from holdfast.registry.v1.lease_service_pb2 import LEASE_DIRECTIVE_CONTINUE, KeepLeaseAliveResult
from holdfast.testing import Clock

ANY: Any = None


def test_a_keepalive_proves_a_session_from_when_it_was_sent() -> None:
    clock = Clock(100.0)
    session = Session(ANY, "lease", 1, Proof(30.0, 3.0, 100.0), clock)
    clock.now_s = 115.0
    session.answered(110.0, KeepLeaseAliveResult(directive=LEASE_DIRECTIVE_CONTINUE))
    assert session.proven_until_s == 110.0 + 27.0
    clock.now_s = 136.9
    assert session.is_proven
    clock.now_s = 137.0
    assert not session.is_proven


@dataclass
class Slow:
    """Calls of which each takes a while."""

    clock: Clock
    flight_s: float
    heartbeats: int = 0

    async def accept(self, _name: str, _fence: int) -> None:
        self.clock.now_s += self.flight_s

    async def heartbeat(self, _name: str, _fence: int, _progress: ActivationProgress | None) -> None:
        self.heartbeats += 1
        self.clock.now_s += self.flight_s

    async def complete(self, _name: str, _fence: int, _result: bytes) -> None:
        """It is done."""


@pytest.mark.parametrize("is_kept", [False, True])
async def test_work_is_proven_from_when_its_heartbeat_or_acceptance_was_sent(is_kept: bool) -> None:
    clock = Clock(100.0)
    slow = Slow(clock, flight_s=2.0)
    session = Session(ANY, "lease", 1, Proof(3600.0, 3.0, 100.0), clock)
    activation = Activation(name="n", fence=7)
    activation.heartbeat_timeout.FromSeconds(30)
    async with Work(SimpleNamespace(activations=slow), session, activation, clock) as work:  # type: ignore[arg-type]
        sent_s = 100.0
        if is_kept:
            sent_s = clock.now_s = 112.5
            async with asyncio.timeout(10):
                while not slow.heartbeats:  # noqa: ASYNC110 - what its task does
                    await asyncio.sleep(0.01)
            assert clock.now_s == 114.5
        work.check()
        assert work.proven_until_s == sent_s + 27.0
