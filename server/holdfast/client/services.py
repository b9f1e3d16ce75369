"""What a client has while its block runs: a connection, a client for each service, and the keeper of its leases."""

from dataclasses import dataclass, field

from holdfast.client.activations import Activations
from holdfast.client.agents import Agents
from holdfast.client.breakers import Breakers
from holdfast.client.calling import Caller
from holdfast.client.decisions import Decisions
from holdfast.client.elections import Elections
from holdfast.client.handoffs import Handoffs
from holdfast.client.keeping import Keeper
from holdfast.client.leases import Leases
from holdfast.client.locks import Locks
from holdfast.client.naming import Namespace


@dataclass(frozen=True)
class Services:
    """The services, on one connection."""

    caller: Caller
    namespace: Namespace
    keeper: Keeper
    agents: Agents = field(init=False)
    leases: Leases = field(init=False)
    activations: Activations = field(init=False)
    decisions: Decisions = field(init=False)
    handoffs: Handoffs = field(init=False)
    locks: Locks = field(init=False)
    elections: Elections = field(init=False)
    breakers: Breakers = field(init=False)

    def __post_init__(self) -> None:
        for each in (Agents, Leases, Activations, Decisions, Handoffs, Locks, Elections, Breakers):
            object.__setattr__(self, each.__name__.lower(), each(self.caller, self.namespace))
