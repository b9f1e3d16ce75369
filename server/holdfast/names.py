"""Resource names, and the store keys under which resources are kept.

A resource name is `namespaces/{namespace}/{collection}/{id}`; its key is the name behind a prefix that says what the
record is.
"""

AGENT_PREFIX = "agent:"
LEASE_PREFIX = "lease:"
REQUEST_PREFIX = "request:"
ADMIN_PREFIX = "admin:"
REPLICA_PREFIX = "replica:"
SECRET_PREFIX = "secret:"  # noqa: S105 - says what a record is
DECISION_PREFIX = "decision:"
DECISION_STATE_PREFIX = "decision-state:"
VOTE_PREFIX = "vote:"
LOCK_PREFIX = "lock:"
ELECTION_PREFIX = "election:"
ACTIVATION_PREFIX = "activation:"
ACTIVATION_STATE_PREFIX = "activation-state:"
WORK_PREFIX = "work:"
HANDOFF_PREFIX = "handoff:"


def agent_name(parent: str, agent_id: str) -> str:
    """Name of an agent of the namespace `parent` (`namespaces/{namespace}`)."""
    return f"{parent}/agents/{agent_id}"


def lease_name(parent: str, lease_id: str) -> str:
    """Name of a lease of the namespace `parent` (`namespaces/{namespace}`)."""
    return f"{parent}/leases/{lease_id}"


def parent_of(name: str) -> str:
    """Namespace (`namespaces/{namespace}`) of a resource name."""
    return name.rsplit("/", 2)[0]


def collection_of(name: str) -> str:
    """Collection (`agents`, `leases` …) of a resource name."""
    return name.rsplit("/", 2)[1]


def topic_of(name: str) -> str:
    """Under which the changes of a resource and of its like are told: its namespace and collection."""
    return name.rsplit("/", 1)[0]


def topic(parent: str, collection: str) -> str:
    """The topic of all resources of a collection of the namespace `parent`."""
    return f"{parent}/{collection}"


def agent_key(name: str) -> str:
    """Store key of an agent's record."""
    return AGENT_PREFIX + name


def admin_key(name: str) -> str:
    """Store key of what an operator decided about an agent; outlives the agent's record."""
    return ADMIN_PREFIX + name


def replica_key(replica: str) -> str:
    """Store key under which a replica says that it is there."""
    return REPLICA_PREFIX + replica


def secret_key(name: str) -> str:
    """Store key of what only replicas know."""
    return SECRET_PREFIX + name


def lease_key(name: str) -> str:
    """Store key of a lease's record."""
    return LEASE_PREFIX + name


def request_key(parent: str, method: str, request_id: str) -> str:
    """Store key of the answer to a request: ids are told apart by namespace and method."""
    return f"{REQUEST_PREFIX}{parent}/{method}/{request_id}"


def decision_name(parent: str, decision_id: str) -> str:
    """Name of a decision of the namespace `parent` (`namespaces/{namespace}`)."""
    return f"{parent}/decisions/{decision_id}"


def decision_key(name: str) -> str:
    """Store key of what a decision is about."""
    return DECISION_PREFIX + name


def decision_state_key(name: str) -> str:
    """Store key of where a decision stands."""
    return DECISION_STATE_PREFIX + name


def vote_key(decision: str, agent: str) -> str:
    """Store key of an agent's vote on a decision; both are of one namespace."""
    return f"{VOTE_PREFIX}{decision}/{agent.rsplit('/', 1)[1]}"


def hold_key(name: str) -> str:
    """Store key of who holds a lock, or leads an election."""
    return (ELECTION_PREFIX if collection_of(name) == "elections" else LOCK_PREFIX) + name


def activation_name(parent: str, activation_id: str) -> str:
    """Name of an activation of the namespace `parent` (`namespaces/{namespace}`)."""
    return f"{parent}/activations/{activation_id}"


def activation_key(name: str) -> str:
    """Store key of what an activation is about."""
    return ACTIVATION_PREFIX + name


def activation_state_key(name: str) -> str:
    """Store key of where an activation stands."""
    return ACTIVATION_STATE_PREFIX + name


def handoff_name(parent: str, handoff_id: str) -> str:
    """Name of a handoff of the namespace `parent` (`namespaces/{namespace}`)."""
    return f"{parent}/handoffs/{handoff_id}"


def handoff_key(name: str) -> str:
    """Store key of a handoff."""
    return HANDOFF_PREFIX + name


def work_key(agent: str) -> str:
    """Store key of what an agent is trusted with: written with each assignment to it; holds its breaker."""
    return WORK_PREFIX + agent
