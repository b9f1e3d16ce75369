"""Activations: pieces of work. `Session.activations` does them; these are the calls."""

from collections.abc import AsyncIterator, Sequence

from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace, duration
from holdfast.client.service import Service
from holdfast.client.watching import Changes, Snapshot, Watching
from holdfast.coordination.v1.activation_service_pb2 import (
    AcceptActivationRequest,
    Activation,
    ActivationEvents,
    ActivationFailure,
    ActivationProgress,
    ActivationState,
    CancelActivationRequest,
    CompleteActivationRequest,
    CreateActivationRequest,
    DeclineActivationRequest,
    FailActivationRequest,
    FetchAssignmentsRequest,
    GetActivationRequest,
    HeartbeatActivationRequest,
    ListActivationsRequest,
    RequeueActivationRequest,
    WatchActivationsRequest,
)
from holdfast.coordination.v1.activation_service_pb2_grpc import ActivationServiceStub
from holdfast.registry.v1.consistency_pb2 import Consistency

ENDED = (
    ActivationState.ACTIVATION_STATE_SUCCEEDED,
    ActivationState.ACTIVATION_STATE_FAILED,
    ActivationState.ACTIVATION_STATE_DEAD_LETTERED,
    ActivationState.ACTIVATION_STATE_CANCELLED,
    ActivationState.ACTIVATION_STATE_TIMED_OUT,
)
"""States in which nobody works on it any more."""


class Activations(Service):
    """Calls of `holdfast.coordination.v1.ActivationService`. Activations and agents are named by id, or by full name.

    Each raises HoldfastError.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        super().__init__(caller, namespace)
        self.stub = ActivationServiceStub(caller.connection.channel)

    async def create(self, activation: Activation, *, request_id: str = "") -> Activation:
        """Asks for a piece of work. NO_ELIGIBLE_AGENT if nobody registered could ever do it."""
        request = CreateActivationRequest(parent=self._namespace.parent, activation=activation, request_id=request_id)
        return (await self._caller.call(self.stub.CreateActivation, request)).activation

    async def get(
        self, activation: str, consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED
    ) -> Activation:
        """Reads one activation, with its payload and result."""
        request = GetActivationRequest(name=self._name(activation), consistency=consistency)
        return (await self._caller.call(self.stub.GetActivation, request)).activation

    def list(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        page_size: int = 0,
        consistency: Consistency.ValueType = Consistency.CONSISTENCY_UNSPECIFIED,
    ) -> AsyncIterator[Activation]:
        """Activations by name, a page at a time, without payloads and results."""
        request = ListActivationsRequest(
            parent=self._namespace.parent, filter=filter, page_size=page_size, consistency=consistency
        )
        return self._pages(self.stub.ListActivations, request, lambda response: response.activations)

    async def cancel(self, activation: str, reason: str = "") -> Activation:
        """Ends an activation that has not ended; its owner is told to stop."""
        request = CancelActivationRequest(name=self._name(activation), reason=reason)
        return (await self._caller.call(self.stub.CancelActivation, request)).activation

    async def requeue(self, activation: str) -> Activation:
        """Operator: tries a dead letter again, with its attempts counted anew."""
        request = RequeueActivationRequest(name=self._name(activation))
        return (await self._caller.call(self.stub.RequeueActivation, request)).activation

    async def fetch(
        self, agent: str, *, fence: int = 0, max_count: int = 1, wait_s: float = 0.0
    ) -> Sequence[Activation]:
        """What is assigned to an agent and not begun, waiting up to `wait_s` seconds for the first."""
        request = FetchAssignmentsRequest(
            agent=self._namespace.name("agents", agent), fence=fence, max=max_count, wait=duration(wait_s, "wait_s")
        )
        return (await self._caller.call(self.stub.FetchAssignments, request, wait_s=wait_s)).activations

    async def accept(self, activation: str, fence: int) -> Activation:
        """Begins work on an assignment."""
        request = AcceptActivationRequest(name=self._name(activation), fence=fence)
        return (await self._caller.call(self.stub.AcceptActivation, request)).activation

    async def decline(self, activation: str, fence: int, reason: str = "") -> Activation:
        """Gives an assignment back before any work."""
        request = DeclineActivationRequest(name=self._name(activation), fence=fence, reason=reason)
        return (await self._caller.call(self.stub.DeclineActivation, request)).activation

    async def heartbeat(self, activation: str, fence: int, progress: ActivationProgress | None = None) -> Activation:
        """Says that work goes on, and how far it is."""
        request = HeartbeatActivationRequest(name=self._name(activation), fence=fence, progress=progress)
        return (await self._caller.call(self.stub.HeartbeatActivation, request)).activation

    async def complete(self, activation: str, fence: int, result: bytes = b"") -> Activation:
        """Ends work that succeeded. A lost answer is not repeated: read the activation, its state says what came."""
        request = CompleteActivationRequest(name=self._name(activation), fence=fence, result=result)
        return (await self._caller.call(self.stub.CompleteActivation, request)).activation

    async def fail(self, activation: str, fence: int, failure: ActivationFailure) -> Activation:
        """Ends work that failed: for good, or to be tried again."""
        request = FailActivationRequest(name=self._name(activation), fence=fence, failure=failure)
        return (await self._caller.call(self.stub.FailActivation, request)).activation

    def watch(
        self,
        filter: str = "",  # noqa: A002 - as the API has it
        *,
        start_revision: int = 0,
    ) -> AsyncIterator[Snapshot[Activation] | Changes[Activation]]:
        """What is there, then every change, as `Agents.watch`. Of one that is gone there is its name alone."""
        request = WatchActivationsRequest(parent=self._namespace.parent, filter=filter, start_revision=start_revision)
        watching: Watching[Activation, Activation] = Watching(
            self._caller, self.stub.WatchActivations, request, _activations_of, _activations_of
        )
        return watching.steps()

    async def ended(self, activation: str) -> Activation:
        """Waits until an activation has ended, however long that takes, and reads it with its result.

        Raises:
            ActivationNotFoundError: There is none.
        """
        name = self._name(activation)
        found = await self.get(name)
        if found.state in ENDED:
            return found
        async for step in self.watch(f'name = "{name}"'):
            if not any(each.state and each.state not in ENDED for each in step.items):
                break
        return await self.get(name)

    def _name(self, activation: str) -> str:
        return self._namespace.name("activations", activation)


def _activations_of(events: ActivationEvents) -> Sequence[Activation]:
    return events.activations
