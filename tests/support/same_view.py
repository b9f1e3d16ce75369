"""Is what a replica shows what its store holds? A view built anew says so."""

import asyncio
import contextlib
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.activations import Activations
from holdfast.core.state import LeaseEntry
from holdfast.service.registry import Registry
from holdfast.view import View


class _Deaf:
    def lease_stands(self, lease: LeaseEntry) -> None:
        """Nobody keeps leases here."""

    def lease_ended(self, name: str) -> None:
        """Nor lets them go."""

    def set(self, name: str, deadline: Timestamp) -> None:
        """Nobody waits for deadlines."""

    def listen(self, name: str, since_revision: int, silence_s: float) -> None:
        """Nor listens."""

    def clear(self, name: str) -> None:
        """Nor calls them off."""


async def assert_view_is_what_the_store_says(registry: Registry) -> None:
    """The live view equals one built from the records of now, and one that replayed the history; so do all indexes."""
    store = registry.store
    await registry.view.reached(await store.current_revision())
    shown = contents(registry.view)
    at_once = View(_Deaf(), _Deaf())
    at_once._build(*await store.range(""))
    assert shown == contents(at_once)
    replayed = View(_Deaf(), _Deaf())
    running = asyncio.ensure_future(replayed.run(store))
    await replayed.is_ready.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert shown == contents(replayed)


def contents(view: View) -> dict[str, Any]:
    """Everything a view can be asked, in a form that compares."""
    indexes = view._indexes
    return {
        "revision": view.revision,
        "agents": view._agents,
        "leases": view.leases._entries,
        "answers": view.answers,
        "answers_bytes": view.answers.size_bytes,
        "admin": view._admin,
        "decisions": {name: view.decision(name) for name in view.decisions._states},
        "decisions_votes": view.decisions._votes,
        "holds": {name: view.hold(name) for name in view.holds._records},
        "holds_sizes": (len(view.holds), view.holds.size_bytes, +view.holds._counts, view.holds._lost),
        "led": view.holds._led,
        "holds_by_lease": dict(view.holds._by_lease),
        "locks": {
            parent: view.holds.locks_after(parent)
            for parent in {*view.holds._names._by_parent, *view.holds._names._late}
        },
        **_activations(view.activations),
        "breakers": view.breakers._records,
        "breakers_listed": {parent: view.breakers.after(parent) for parent in {*indexes._populations}},
        "breakers_by_state": +view.breakers.counts,
        "breakers_idle": set(view.breakers._idle),
        "handoffs": {name: view.handoff(name) for name in view.handoffs._records},
        "handoffs_offered": {agent: set(offered) for agent, offered in view.handoffs._offered.items()},
        "handoffs_ended": (view.handoffs._ended, view.handoffs.ended_bytes),
        "to_drain": set(view.to_drain),
        "ended": set(view.leases._ended),
        "standing": view.leases.standing_count,
        "standing_names": {
            parent: view.leases.standing_after(parent)
            for parent in {*view.leases._names._by_parent, *view.leases._names._late}
        },
        "counts": +indexes.counts,
        "tallies": (indexes.live, indexes.expired),
        "sizes": (view.leases.ended_count, view.rulings_count),
        "by_lease": dict(indexes._by_lease),
        "draining": dict(indexes._draining),
        "populations": {
            parent: (each.live._entries, each.expired._entries, each.held_back, each.by_capability)
            for parent, each in indexes._populations.items()
        },
    }


def _activations(all_there_are: Activations) -> dict[str, Any]:
    """What is known of activations; the order in which things were met may differ."""
    return {
        "activations": {name: all_there_are.get(name) for name in all_there_are._states},
        "held": {agent: set(held) for agent, held in all_there_are._held.items()},
        "lost": {agent: set(held) for agent, held in all_there_are.lost.items()},
        "banned": set(all_there_are.banned),
        "activations_by_state": +all_there_are.counts,
        "unfinished": (all_there_are._unfinished, +all_there_are._unfinished_of, +all_there_are._unfinished_bytes),
        "unfinished_in_all": all_there_are.all_unfinished,
        "activations_ended": [
            (dict(each._sizes), each.ended_bytes) for each in (all_there_are.remembered, all_there_are.dead)
        ],
        "activations_waiting": set(all_there_are.scheduler._group_of),
    }
