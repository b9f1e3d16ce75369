"""The client of a Holdfast server, for asyncio; `holdfast.client.sync` is the same for programs without.

```python
async with Client("127.0.0.1:50051") as client:
    async with client.session(agent="builder-1", capabilities=["build"]) as session:
        ...  # registered and alive, until the block ends or `session.lost` is set
```

What may go wrong is in `holdfast.client.errors`; what is dangerous about repeating calls, and about locks, in
docs/client.md.
"""

from holdfast.client.activations import Activations
from holdfast.client.agents import Agents
from holdfast.client.breakers import Breakers
from holdfast.client.calling import RetryPolicy, Timeouts
from holdfast.client.client import Client
from holdfast.client.decisions import Decisions
from holdfast.client.elections import Elections
from holdfast.client.errors import (
    CallerError,
    HoldError,
    HoldfastError,
    HoldLostError,
    NetworkError,
    ServerError,
    SessionEndedError,
    SessionLostError,
    StateError,
    UnexpectedAnswerError,
)
from holdfast.client.handoffs import Handoffs
from holdfast.client.leases import Leases
from holdfast.client.locking import HeldLeadership, HeldLock
from holdfast.client.locks import Locks
from holdfast.client.sessions import Session
from holdfast.client.watching import Changes, Snapshot
from holdfast.client.working import Assignments, Work, WorkFailedError

__all__ = [
    "Activations",
    "Agents",
    "Assignments",
    "Breakers",
    "CallerError",
    "Changes",
    "Client",
    "Decisions",
    "Elections",
    "Handoffs",
    "HeldLeadership",
    "HeldLock",
    "HoldError",
    "HoldLostError",
    "HoldfastError",
    "Leases",
    "Locks",
    "NetworkError",
    "RetryPolicy",
    "ServerError",
    "Session",
    "SessionEndedError",
    "SessionLostError",
    "Snapshot",
    "StateError",
    "Timeouts",
    "UnexpectedAnswerError",
    "Work",
    "WorkFailedError",
]
