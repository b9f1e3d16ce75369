"""ActivationService: create, read, cancel, requeue, and what owners say; assignments have a module of their own."""

from collections.abc import AsyncIterator

from google.protobuf.message import Message

from holdfast import names
from holdfast.coordination.v1.activation_service_pb2 import (
    AcceptActivationRequest,
    AcceptActivationResponse,
    Activation,
    ActivationEvents,
    ActivationWatchProgress,
    ActivationWatchReset,
    CancelActivationRequest,
    CancelActivationResponse,
    CompleteActivationRequest,
    CompleteActivationResponse,
    CreateActivationRequest,
    CreateActivationResponse,
    DeclineActivationRequest,
    DeclineActivationResponse,
    FailActivationRequest,
    FailActivationResponse,
    FetchAssignmentsRequest,
    FetchAssignmentsResponse,
    GetActivationRequest,
    GetActivationResponse,
    HeartbeatActivationRequest,
    HeartbeatActivationResponse,
    ListActivationsRequest,
    ListActivationsResponse,
    RequeueActivationRequest,
    RequeueActivationResponse,
    StreamAssignmentsRequest,
    StreamAssignmentsResponse,
    WatchActivationsRequest,
    WatchActivationsResponse,
)
from holdfast.core.activations import ending
from holdfast.core.activations.creating import Creation, create
from holdfast.core.activations.entry import PENDING, ActivationEntry, find, shown
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service.assignments import Assignments
from holdfast.service.context import CallContext
from holdfast.service.eligibility import exclusions, nobody_could
from holdfast.service.following import Following, Watched
from holdfast.service.owners import Owners
from holdfast.service.paging import Listed, page_of
from holdfast.service.registry import Registry
from holdfast.service.watching import PROGRESS_EVERY_S
from holdfast.view import View

LOOKED_AT_MAX = 1_000
"""Most activations looked at for one page; with a filter a page may be short, and others follow."""


class ActivationHandlers:
    """Handlers of `holdfast.coordination.v1.ActivationService`.

    Args:
        registry: The state.
        progress_every_s: See `watching.PROGRESS_EVERY_S`.
    """

    def __init__(self, registry: Registry, progress_every_s: float = PROGRESS_EVERY_S) -> None:
        self._registry = registry
        self._listed = Listed(
            Activation.DESCRIPTOR, registry.view.activations.after, lambda entry: entry.name, _briefly, LOOKED_AT_MAX
        )
        self._following = Following(registry, _watched(registry.view), progress_every_s)
        self._owners = Owners(registry)
        self._assignments = Assignments(registry, self._owners)

    async def create_activation(
        self, request: CreateActivationRequest, context: CallContext
    ) -> CreateActivationResponse:
        """CreateActivation."""
        registry = self._registry
        await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
        nobody = await nobody_could(registry.view, request.parent, request.activation.selector)
        creation = Creation(request, registry.now(), registry.new_id(), context.correlation_id, nobody)
        return await registry.execute(lambda reader: create(reader, creation))

    async def get_activation(self, request: GetActivationRequest, _context: CallContext) -> GetActivationResponse:
        """GetActivation."""
        await self._registry.await_consistency(request.consistency)
        view = self._registry.view
        entry = find(view, request.name)
        activation = shown(entry)
        if entry.current == PENDING:
            activation.exclusions.extend(exclusions(view, entry))
        return GetActivationResponse(activation=activation, revision=view.revision)

    async def list_activations(self, request: ListActivationsRequest, _context: CallContext) -> ListActivationsResponse:
        """ListActivations, of one revision, which is why few are looked at for one page."""
        page = await page_of(self._registry, self._listed, request)
        return ListActivationsResponse(activations=page.found, next_page_token=page.token, revision=page.revision)

    def watch_activations(
        self, request: WatchActivationsRequest, context: CallContext
    ) -> AsyncIterator[Message | bytes]:
        """WatchActivations."""
        return self._following.watch(request, context)

    async def cancel_activation(
        self, request: CancelActivationRequest, _context: CallContext
    ) -> CancelActivationResponse:
        """CancelActivation."""
        registry = self._registry
        activation = await registry.execute(
            lambda reader: ending.cancel(reader, request.name, request.reason, registry.now())
        )
        return CancelActivationResponse(activation=activation)

    async def requeue_activation(
        self, request: RequeueActivationRequest, _context: CallContext
    ) -> RequeueActivationResponse:
        """RequeueActivation."""
        registry = self._registry
        activation = await registry.execute(lambda reader: ending.requeue(reader, request, registry.now()))
        return RequeueActivationResponse(activation=activation)

    # What owners say.

    async def accept_activation(
        self, request: AcceptActivationRequest, _context: CallContext
    ) -> AcceptActivationResponse:
        """AcceptActivation."""
        return AcceptActivationResponse(activation=await self._owners.accept(request))

    async def decline_activation(
        self, request: DeclineActivationRequest, _context: CallContext
    ) -> DeclineActivationResponse:
        """DeclineActivation."""
        return DeclineActivationResponse(activation=await self._owners.decline(request))

    async def heartbeat_activation(
        self, request: HeartbeatActivationRequest, _context: CallContext
    ) -> HeartbeatActivationResponse:
        """HeartbeatActivation."""
        return HeartbeatActivationResponse(activation=await self._owners.heartbeat(request))

    async def complete_activation(
        self, request: CompleteActivationRequest, _context: CallContext
    ) -> CompleteActivationResponse:
        """CompleteActivation."""
        return CompleteActivationResponse(activation=await self._owners.complete(request))

    async def fail_activation(self, request: FailActivationRequest, _context: CallContext) -> FailActivationResponse:
        """FailActivation."""
        return FailActivationResponse(activation=await self._owners.fail(request))

    # What owners hear.

    async def fetch_assignments(
        self, request: FetchAssignmentsRequest, context: CallContext
    ) -> FetchAssignmentsResponse:
        """FetchAssignments."""
        return await self._assignments.fetch(request, context)

    def stream_assignments(
        self, requests: AsyncIterator[StreamAssignmentsRequest], context: CallContext
    ) -> AsyncIterator[StreamAssignmentsResponse]:
        """StreamAssignments."""
        return self._assignments.stream(requests, context)


def _briefly(entry: ActivationEntry) -> Activation:
    return shown(entry, is_brief=True)


def _watched(view: View) -> Watched[ActivationEntry, Activation]:
    """How activations are watched."""
    return Watched(
        descriptor=Activation.DESCRIPTOR,
        topic=lambda parent: names.topic(parent, "activations"),
        there=view.activations.after,
        shown=_briefly,
        gone=lambda name, revision: Activation(name=name, revision=revision),
        events=lambda revision, activations, is_end, continues: WatchActivationsResponse(
            revision=revision,
            events=ActivationEvents(activations=activations, snapshot_end=is_end, continues=continues),
        ),
        progress=lambda revision: WatchActivationsResponse(revision=revision, progress=ActivationWatchProgress()),
        reset=lambda revision, oldest: WatchActivationsResponse(
            revision=revision, reset=ActivationWatchReset(compact_revision=oldest)
        ),
    )
