"""QuotaService: the breakers in front of agents, and the operator's way to close one."""

from holdfast.admin.v1.quota_service_pb2 import (
    Breaker,
    ListBreakersRequest,
    ListBreakersResponse,
    ResetBreakerRequest,
    ResetBreakerResponse,
)
from holdfast.core.activations.resetting import reset, shown
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service.context import CallContext
from holdfast.service.paging import Listed, page_of
from holdfast.service.registry import Registry

LOOKED_AT_MAX = 2_000
"""Most breakers looked at for one page: some 20 ms. With a filter a page may be short, or empty, and others follow."""


class QuotaHandlers:
    """Handlers of `holdfast.admin.v1.QuotaService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._listed = Listed(
            Breaker.DESCRIPTOR, registry.view.breakers.after, lambda entry: entry.agent, shown, LOOKED_AT_MAX
        )

    async def list_breakers(self, request: ListBreakersRequest, _context: CallContext) -> ListBreakersResponse:
        """ListBreakers."""
        page = await page_of(self._registry, self._listed, request)
        return ListBreakersResponse(breakers=page.found, next_page_token=page.token, revision=page.revision)

    async def reset_breaker(self, request: ResetBreakerRequest, _context: CallContext) -> ResetBreakerResponse:
        """ResetBreaker."""
        registry = self._registry
        await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)  # what writes nothing is a read
        breaker = await registry.execute(lambda reader: reset(reader, request.agent, registry.now()))
        return ResetBreakerResponse(breaker=breaker)
