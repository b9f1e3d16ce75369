"""Elections. `Session.leader` leads one; these are the calls, and what followers see."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import grpc

from holdfast.client.calling import Caller, Repeat, may_repeat
from holdfast.client.errors import HoldfastError, from_rpc_error
from holdfast.client.naming import Namespace, duration
from holdfast.client.service import Service
from holdfast.coordination.v1.election_service_pb2 import (
    CampaignRequest,
    GetLeaderRequest,
    Leadership,
    ObserveLeaderRequest,
    ObserveLeaderResponse,
    ProclaimLeaderRequest,
    ResignLeadershipRequest,
)
from holdfast.coordination.v1.election_service_pb2_grpc import ElectionServiceStub
from holdfast.registry.v1.consistency_pb2 import Consistency

WAIT_S_MAX = 86_400.0
"""The longest that the server lets a candidate wait in line: a day."""


class Elections(Service):
    """Calls of `holdfast.coordination.v1.ElectionService`. Elections and leases are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = ElectionServiceStub(caller.connection.channel)

    async def campaign(
        self,
        election: str,
        *,
        candidate: str,
        lease: str,
        value: bytes = b"",
        wait_s: float = WAIT_S_MAX,
        request_id: str = "",
    ) -> Leadership:
        """Waits in line until the candidate leads; it does so as long as its lease.

        Nothing here says when the lease has ended: `Session.leader` does.

        Args:
            election: The election.
            candidate: Who is to lead.
            lease: What it hangs on.
            value: What to tell observers, such as an address.
            wait_s: How long to wait in line, in seconds.
            request_id: Yours, where more than this process may repeat the call.
        """
        request = CampaignRequest(
            election=self.name(election),
            candidate=candidate,
            lease=self._namespace.name("leases", lease),
            value=value,
            wait=duration(wait_s, "wait_s"),
            request_id=request_id,
        )
        return (await self._caller.call(self._stub.Campaign, request, wait_s=wait_s)).leadership

    async def proclaim(self, election: str, fence: int, value: bytes) -> Leadership:
        """Changes the value that a leader tells observers. Repeated whatever happened: it comes to the same."""
        request = ProclaimLeaderRequest(election=self.name(election), fence=fence, value=value)
        return (await self._caller.call(self._stub.ProclaimLeader, request, repeat=Repeat.ALWAYS)).leadership

    async def resign(self, election: str, fence: int) -> int:
        """Gives a leadership back; the revision at which it ended. Repeated whatever happened, as `Locks.release`."""
        request = ResignLeadershipRequest(election=self.name(election), fence=fence)
        return (await self._caller.call(self._stub.ResignLeadership, request, repeat=Repeat.ALWAYS)).revision

    async def get(
        self, election: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED
    ) -> Leadership:
        """Who leads; without a `leader` if nobody does."""
        request = GetLeaderRequest(election=self.name(election), consistency=consistency)
        return (await self._caller.call(self._stub.GetLeader, request)).leadership

    async def observe(self, election: str) -> AsyncIterator[Leadership]:
        """Who leads now, then each change, over lost connections and restarts. Fences never go back.

        What came and went while the connection was lost is not told.
        """
        request = ObserveLeaderRequest(election=self.name(election))
        last, fence_max, failures = Leadership(revision=-1), 0, 0
        while True:
            try:
                async with contextlib.aclosing(self._observed(request)) as responses:
                    async for response in responses:
                        failures = 0
                        leadership = response.leadership
                        if leadership != last and not (leadership.leader and leadership.fence < fence_max):
                            last, fence_max = leadership, max(fence_max, leadership.fence)
                            yield last
            except HoldfastError as error:
                if not may_repeat(error, Repeat.ALWAYS):
                    raise
            failures += 1
            await asyncio.sleep(self._caller.retries.backoff_s(failures))

    async def _observed(self, request: ObserveLeaderRequest) -> AsyncGenerator[ObserveLeaderResponse, None]:
        connection = self._caller.connection
        await connection.ready(self._caller.timeouts.connect_s)
        call = self._stub.ObserveLeader(request)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, f"ObserveLeader at {connection.target}") from error
        finally:
            call.cancel()

    def name(self, election: str) -> str:
        """The full name of an election."""
        return self._namespace.name("elections", election)
