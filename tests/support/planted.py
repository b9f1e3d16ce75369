"""Bugs to plant, one at a time: each patches the product by name, and a checker must notice from histories alone.

    PYTHONPATH=tests python -m support.planted reuse-fence-after-restart serve --store sqlite:h.db

runs the real command with a bug.
"""

import contextlib
import heapq
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import cli, names, replicas
from holdfast.core import agents, batches, leases, requests, updates
from holdfast.core.state import LeaseEntry, Plan, Reader
from holdfast.filtering import Filter
from holdfast.guard import StallGuard
from holdfast.leases import LeaseKeeper
from holdfast.registry.v1.agent_pb2 import AdminState, Agent
from holdfast.registry.v1.agent_registry_service_pb2 import WatchAgentsRequest, WatchAgentsResponse
from holdfast.replicas import Replicas
from holdfast.service import registry
from holdfast.service.watching import AgentWatching
from holdfast.storage.v1.records_pb2 import AdminRecord, AgentRecord
from holdfast.store import sqlite_file
from holdfast.store.batching import BatchingStore
from holdfast.store.interface import KeyValue, Txn
from holdfast.view import View
from support import planted_decisions, planted_locks
from support.planted_work import PLANTED_WORK


@contextlib.contextmanager
def acknowledge_before_fsync() -> Iterator[None]:
    """Commits are answered before they are written, and SQLite does not sync."""
    connect = sqlite_file._connect

    def careless(path: Path) -> sqlite3.Connection:
        database = connect(path)
        database.execute("PRAGMA synchronous = OFF")
        return database

    async def eager(self: BatchingStore) -> None:
        waiting = list(self._queue)
        self._queue.clear()
        batch = self._decide(waiting)
        self._apply(batch.changes, batch.mod_revisions)
        for waited, outcome in batch.outcomes:
            if not waited.outcome.done():
                waited.outcome.set_result(outcome)
        if batch.changes:
            await self._write(batch.changes)

    with patch.object(BatchingStore, "_write_batch", eager), patch.object(sqlite_file, "_connect", careless):
        yield


@contextlib.contextmanager
def expire_at_half_ttl() -> Iterator[None]:
    """The keeper counts half of each TTL, and tells the whole."""
    stands = LeaseKeeper.lease_stands

    def impatient(self: LeaseKeeper, lease: LeaseEntry) -> None:
        stands(self, lease)
        slot = self._slots.get(lease.name)
        if slot is not None and slot.ttl_s == lease.record.ttl_ms / 1000:
            slot.ttl_s /= 2
            slot.deadline_s -= slot.ttl_s
            heapq.heappush(self._heap, (slot.deadline_s, lease.name))

    with patch.object(LeaseKeeper, "lease_stands", impatient):
        yield


@contextlib.contextmanager
def skip_watch_event_after_resume() -> Iterator[None]:
    """A watch that resumes leaves out the first event it owes."""
    with _resuming(lambda told, position: min((each for each in told if each > position), default=position)):
        yield


@contextlib.contextmanager
def deliver_twice() -> Iterator[None]:
    """A watch that resumes begins with the last event that its client has seen."""
    with _resuming(lambda told, position: max((each for each in told if each <= position), default=position + 1) - 1):
        yield


def _resuming(move: Callable[[list[int], int], int]) -> AbstractContextManager[Any]:
    """Watches that resume from where `move` says, given the revisions with events and the position asked for."""
    changes = AgentWatching._changes

    def moved(
        self: AgentWatching, request: WatchAgentsRequest, only: Filter, position: int
    ) -> AsyncIterator[WatchAgentsResponse | bytes]:
        if request.start_revision:
            history = self._registry.view.history
            steps = history.after(history.start, history.end - history.start)
            told = [step.revision for step in steps if history.encoded(step, request.parent, only) is not None]
            position = move(told, position)
        return changes(self, request, only, position)

    return patch.object(AgentWatching, "_changes", moved)


@contextlib.contextmanager
def reuse_fence_after_restart() -> Iterator[None]:
    """Fences count the registrations of one life of one replica, in memory."""
    counts: Counter[str] = Counter()
    fences: dict[str, int] = {}
    incarnate, date = agents.incarnate, agents.date

    def counting(reader: Reader, command: agents.Registration) -> tuple[Agent, Txn]:
        agent, txn = incarnate(reader, command)
        if agent.uid not in fences:
            counts[command.replica] += 1
            fences[agent.uid] = counts[command.replica]
        key = names.agent_key(agent.name)
        record = AgentRecord.FromString(dict(txn.puts)[key])
        record.fence_revision = fences[agent.uid]
        return agent, _with(txn, {key: record})

    def counted(agent: Agent, revision: int) -> None:
        date(agent, revision)
        agent.fence += fences.get(agent.uid, revision) - revision

    with _in_agents("incarnate", counting), _in_agents("date", counted):
        yield


@contextlib.contextmanager
def forget_request_ids_on_restart() -> Iterator[None]:
    """The view a server starts with has no answers to earlier requests, and nothing else remembers them."""
    put, remember = View._put, requests.remember

    def forgetful(self: View, record: KeyValue) -> None:
        if self.is_ready.is_set() or not record.key.startswith(names.REQUEST_PREFIX):
            put(self, record)

    def unconditional(plan: Plan[Any], key: str, request: Message, answer: Message, now: Timestamp) -> Plan[Any]:
        plan = remember(plan, key, request, answer, now)
        return Plan(
            replace(plan.txn, compares=tuple(each for each in plan.txn.compares if each[0] != key)), plan.answer
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(View, "_put", forgetful))
        for module in (agents, batches, leases):
            stack.enter_context(patch.object(module, "remember", unconditional))
        yield


@contextlib.contextmanager
def stale_etag_update() -> Iterator[None]:
    """UpdateAgent does not look at the etag."""

    def careless(_agent: Agent, _etag: str) -> None:
        """Any version will do."""

    with patch.object(updates, "check_etag", careless):
        yield


@contextlib.contextmanager
def reconnect_undoes_cordon() -> Iterator[None]:
    """Registering again makes an agent ENABLED, whatever an operator decided."""
    incarnate = agents.incarnate

    def forgiving(reader: Reader, command: agents.Registration) -> tuple[Agent, Txn]:
        agent, txn = incarnate(reader, command)
        if reader.admin(agent.name) is None:
            return agent, txn
        agent.admin_state = AdminState.ADMIN_STATE_ENABLED
        return agent, _with(txn, {names.admin_key(agent.name): AdminRecord(state=agent.admin_state, time=command.now)})

    with _in_agents("incarnate", forgiving):
        yield


@contextlib.contextmanager
def _in_agents(name: str, value: Callable[..., Any]) -> Iterator[None]:
    """A function of `core.agents` in the place of another, also where batches have it from."""
    with patch.object(agents, name, value), patch.object(batches, name, value):
        yield


def _with(txn: Txn, records: Mapping[str, Message]) -> Txn:
    """The transaction with some records put as well, or instead."""
    puts = dict(txn.puts) | {key: record.SerializeToString() for key, record in records.items()}
    return replace(txn, puts=tuple(puts.items()))


@contextlib.contextmanager
def never_take_over() -> Iterator[None]:
    """No replica is ever found silent."""
    with patch.object(Replicas, "_silent", lambda _self: []):
        yield


@contextlib.contextmanager
def keep_without_proof() -> Iterator[None]:
    """A replica acknowledges keepalives whether or not others may have taken over."""
    with patch.object(Replicas, "may_keep", True):
        yield


@contextlib.contextmanager
def no_grace_for_moved_leases() -> Iterator[None]:
    """A lease that moved gets its TTL and nothing for what its owner before may acknowledge yet."""
    with patch.object(LeaseEntry, "previous_owner_may_keep", False):
        yield


@contextlib.contextmanager
def take_over_before_proof_ends() -> Iterator[None]:
    """Half a second of silence is enough, whatever the owner may still prove."""
    with patch.object(replicas, "TAKEOVER_S", 0.5), patch.object(registry, "TAKEOVER_S", 0.5):
        yield


@contextlib.contextmanager
def no_guard_against_waves() -> Iterator[None]:
    """The time in which a replica stood still counts like any other."""
    with patch.object(StallGuard, "look", lambda _self, _now_s: 0.0):
        yield


PLANTED: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "acknowledge-before-fsync": (acknowledge_before_fsync, "S2"),
    "expire-at-half-ttl": (expire_at_half_ttl, "L1"),
    "skip-watch-event-after-resume": (skip_watch_event_after_resume, "W7"),
    "deliver-twice": (deliver_twice, "W3"),
    "reuse-fence-after-restart": (reuse_fence_after_restart, "L5"),
    "forget-request-ids-on-restart": (forget_request_ids_on_restart, "request_id"),
    "stale-etag-update": (stale_etag_update, "etag"),
    "reconnect-undoes-cordon": (reconnect_undoes_cordon, "admin"),
}
"""Each bug, and the invariant whose checker must report it."""

PLANTED_IN_REPLICAS: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "never-take-over": (never_take_over, "L2"),
    "keep-without-proof": (keep_without_proof, "L1"),
    "no-grace-for-moved-leases": (no_grace_for_moved_leases, "L1"),
    "take-over-before-proof-ends": (take_over_before_proof_ends, "L1"),
    "no-guard-against-waves": (no_guard_against_waves, "guard"),
}
"""The same, of bugs that need replicas or stalls: simulations show them, and the runs of one real server do not."""


BUGS: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    **PLANTED,
    **PLANTED_IN_REPLICAS,
    **planted_decisions.PLANTED,
    **planted_locks.PLANTED,
}
"""All that simulations must show."""


def main() -> None:
    """`NAME ARGS…`: runs `holdfast ARGS…` with a bug."""
    known = {**BUGS, **PLANTED_WORK}
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit(f"which bug? One of {', '.join(known)}, then the arguments of holdfast")
    plant, _ = known[sys.argv[1]]
    with plant():
        cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
