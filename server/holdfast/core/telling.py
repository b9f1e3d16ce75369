"""How much may happen at one revision: what it tells is one message of a watch, and gRPC clients take 4 MB.

A revision is never split, and one that is too large ends every watch that comes to it, for good. What is written
therefore decides what can be told. The ways to tell an agent, and what bounds the agents of one revision:

- Before and after, `CHANGED_BYTES_MAX` of agents as they were: the end of leases (of one: `leases.grow`, of several:
  `leases.expire`), and forgetting (`retention.forget_leases`). A watch with a filter may tell an agent that ceases to
  match in the same way, one that begins to in half the bytes. What is on its way into a lease counts; not so what an
  agent alone under its lease gains through another replica, at the moment at which many leases end.
- Once, `ADDED_BYTES_MAX`: registering a batch. A watch with a filter tells either the new incarnation or, where only
  the one before was what it asks for, that one; so the larger of the two is counted.
- One agent, by all other calls: 600 KB at most, before and after.

Beside its bytes an agent is told with at most 32 more: the event's type and lengths, and what the revision changes in
it. No agent has fewer than 120 bytes, so `CHANGED_BYTES_MAX` are at most 15 300 agents, and 490 KB more than twice as
much. A batch has at most 10 000, and what is counted of it lacks what follows from its revision: 400 KB more.
"""

MESSAGE_BYTES_MAX = 4 << 20
"""What gRPC clients take, unless told otherwise."""

CHANGED_BYTES_MAX = 7 << 18
"""Most bytes of the agents that one revision tells before and after (1.75 MiB); some 10 000 with a capability and a
label each.
"""

ADDED_BYTES_MAX = 3 << 20
"""Most bytes of the agents that one revision tells once."""
