"""What owners say of their activations, by calls of their own and on streams of assignments alike."""

from collections.abc import Callable

from holdfast.coordination.v1.activation_service_pb2 import (
    AcceptActivationRequest,
    Activation,
    CompleteActivationRequest,
    DeclineActivationRequest,
    FailActivationRequest,
    HeartbeatActivationRequest,
)
from holdfast.core.activations import owning
from holdfast.core.activations.ending import Timer
from holdfast.core.activations.owning import Saying
from holdfast.core.state import Plan
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service.registry import Registry
from holdfast.timers import timer_key
from holdfast.view import View

Said = (
    AcceptActivationRequest
    | DeclineActivationRequest
    | HeartbeatActivationRequest
    | CompleteActivationRequest
    | FailActivationRequest
)


class Owners:
    """Each method answers the activation as it then is, and raises what the function of its name in the core does."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def accept(self, request: AcceptActivationRequest) -> Activation:
        """Work begins. Said again it writes nothing, so it reads what is newest."""
        await self._registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
        return await self._say(request, owning.accept)

    async def decline(self, request: DeclineActivationRequest) -> Activation:
        """The assignment goes back."""
        return await self._say(request, lambda reader, saying: owning.decline(reader, request, saying))

    async def heartbeat(self, request: HeartbeatActivationRequest) -> Activation:
        """Work goes on. Most are not written, and read what is newest."""
        registry = self._registry
        await registry.await_consistency(Consistency.CONSISTENCY_LINEARIZABLE)
        return await self._say(
            request,
            lambda reader, saying: registry.heartbeats.decide(reader, request, saying),
        )

    async def complete(self, request: CompleteActivationRequest) -> Activation:
        """Work has succeeded."""
        answer = await self._say(request, lambda reader, saying: owning.complete(reader, request, saying))
        self._registry.heartbeats.forget(request.name)
        return answer

    async def fail(self, request: FailActivationRequest) -> Activation:
        """The attempt has failed."""
        answer = await self._say(request, lambda reader, saying: owning.fail(reader, request, saying))
        self._registry.heartbeats.forget(request.name)
        return answer

    async def _say(self, request: Said, decide: Callable[[View, Saying], Plan[Activation]]) -> Activation:
        registry, end = self._registry, timer_key(Timer.END, request.name)

        def decide_now(reader: View) -> Plan[Activation]:
            is_over = registry.deadlines.is_past(end)
            return decide(reader, Saying(request.name, request.fence, registry.now(), is_over))

        return await registry.execute(decide_now)
