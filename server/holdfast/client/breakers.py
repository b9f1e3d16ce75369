"""The breakers in front of agents, for operators."""

from collections.abc import AsyncIterator

from holdfast.admin.v1.quota_service_pb2 import Breaker, ListBreakersRequest, ResetBreakerRequest
from holdfast.admin.v1.quota_service_pb2_grpc import QuotaServiceStub
from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace
from holdfast.client.service import Service
from holdfast.registry.v1.consistency_pb2 import Consistency


class Breakers(Service):
    """Calls of `holdfast.admin.v1.QuotaService`. Agents are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self._stub = QuotaServiceStub(caller.connection.channel)

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Breaker]:
        """Breakers by the names of their agents, a page at a time: of those that were ever given work."""
        request = ListBreakersRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self._stub.ListBreakers, request, lambda response: response.breakers)

    async def reset(self, agent: str) -> Breaker:
        """Operator: lets work through again, and counts the agent's failures anew."""
        request = ResetBreakerRequest(agent=self._namespace.name("agents", agent))
        return (await self._caller.call(self._stub.ResetBreaker, request)).breaker
