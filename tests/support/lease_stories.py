"""Histories of leases, told twice: as they should be, and, with `bad`, as they must not be.

`tests/unit/support/test_checkers.py` tells them to every checker.
"""

from collections.abc import Callable, Sequence

from support.history import LeaseSeen, ServerMark
from support.stories import LEASE, PARENT, Story, added, agent, born, expired


def not_early(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(agent(5)))
    story.keep()
    story.wait(1 if bad else 10)
    story.told(watch, 9, expired(agent(5), 9))


def not_early_after_the_grant(story: Story, *, bad: bool) -> None:
    story.grant(1)
    story.wait(1 if bad else 10)
    story.told(story.watch(9), 9, expired(agent(5), 9))


def not_early_after_the_registration(story: Story, *, bad: bool) -> None:
    a, b = born(5, lease="l1"), born(5, "b", lease="l2")
    story.ok("BatchRegisterAgents", a, b, ttls_s=(2.0, 10.0))
    story.wait(4 if bad else 10)
    story.told(story.watch(9), 9, expired(b, 9))


def revoked_before_its_time(story: Story, *, bad: bool) -> None:
    story.keep()
    if not bad:
        story.fails("RevokeLease", is_definite=False, lease=LEASE)
    story.told(story.watch(9), 9, expired(agent(5), 9))


def gone_in_time(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(12 if bad else 9)
    story.ok("GetAgent", agent(5))


def gone_in_time_by_the_leases(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(12 if bad else 9)
    story.shows(5, LeaseSeen(LEASE, 10, 1))


def gone_in_time_by_its_revision(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(agent(5)))
    story.keep()
    story.wait(12)
    story.ends(story.begins("ListAgents"), 8 if bad else 9)
    story.told(watch, 9, expired(agent(5), 9))


def gone_in_time_though_asked_for(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(10)
    story.keep(reason="LEASE_NOT_FOUND" if bad else "NO_ANSWER")
    story.wait(4)
    story.ok("GetAgent", agent(5))


def gone_in_time_after_the_first_answer(story: Story, *, bad: bool) -> None:
    story.grant(5, request_id="r")
    story.wait(10)
    if bad:
        story.grant(5, request_id="r")
    else:
        story.keep(fence=5)
    story.wait(4)
    story.ok("GetAgent", agent(6))


def gone_in_time_while_another_begins(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(9)
    if not bad:
        story.events.append(ServerMark(story.now_s, "s", "paused"))
    story.events.append(ServerMark(story.now_s, "s", "killed" if not bad else "serving"))
    story.events.append(ServerMark(story.now_s, "s", "serving"))
    story.wait(4)
    story.ok("GetAgent", agent(5))


def gone_in_time_after_a_pause_that_a_kill_ends(story: Story, *, bad: bool) -> None:
    story.keep()
    story.events += [
        ServerMark(story.now_s + each, "s", what) for each, what in enumerate(("paused", "killed", "serving"))
    ]
    story.wait(12 if bad else 8)
    story.ok("GetAgent", agent(5))


def gone_in_time_after_a_restart(story: Story, *, bad: bool) -> None:
    story.keep()
    story.events += [ServerMark(story.now_s, "s", "killed"), ServerMark(story.now_s + 5, "s", "serving")]
    story.wait(20 if bad else 12)
    story.ok("GetAgent", agent(5))


def all_at_once(story: Story, *, bad: bool) -> None:
    watch, a, b = story.watch(), agent(5), agent(6, "b")
    story.told(watch, 5, added(a))
    story.told(watch, 6, added(b))
    story.told(watch, 9, *([expired(a, 9)] if bad else [expired(a, 9), expired(b, 9)]))


def all_at_once_after_a_resume(story: Story, *, bad: bool) -> None:
    watch, a, b = story.watch(), agent(5), agent(6, "b")
    story.told(watch, 5, added(a))
    story.told(watch, 6, added(b))
    again = story.watch(7, resumes=watch)
    story.told(again, 9, *([expired(a, 9)] if bad else [expired(a, 9), expired(b, 9)]))


def all_at_once_after_a_snapshot(story: Story, *, bad: bool) -> None:
    watch, a, b = story.watch(0), agent(5), agent(6, "b")
    story.snapshot(watch, 6, a, b)
    story.told(watch, 9, *([expired(a, 9)] if bad else [expired(a, 9), expired(b, 9)]))


def nothing_shown_after_its_end(story: Story, *, bad: bool) -> None:
    story.told(story.watch(9), 9, expired(agent(5), 9))
    story.shows(9 if bad else 8, LeaseSeen(LEASE, 10, 1))


def nobody_shown_after_its_end(story: Story, *, bad: bool) -> None:
    story.ends(story.begins("RevokeLease", lease=LEASE), 9)
    story.ends(story.begins("GetAgent", agent(5)), 9, agent(9, liveness="LIVE" if bad else "EXPIRED"))


def granted_and_kept(story: Story, *, bad: bool) -> None:
    story.grant(5)
    story.events += [ServerMark(story.now_s, "s", "killed"), ServerMark(story.now_s + 1, "s", "serving")]
    story.wait(0 if bad else 10)
    story.keep(reason="LEASE_NOT_FOUND")


def granted_and_there(story: Story, *, bad: bool) -> None:
    story.grant(5)
    if not bad:
        story.fails("RevokeLease", is_definite=False, lease=LEASE)
    story.fails("GetLease", reason="LEASE_NOT_FOUND", lease=LEASE)


def granted_to_a_registration_and_there(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), ttls_s=(10.0,))
    if not bad:
        story.fails("DeregisterAgent", born(5), is_definite=False)
    story.fails("GetLease", reason="LEASE_NOT_FOUND", lease=LEASE)


def kept_and_there(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(0 if bad else 10)
    story.keep(reason="LEASE_NOT_FOUND")


def not_kept_after_its_end(story: Story, *, bad: bool) -> None:
    call = story.begins("RevokeLease", lease=LEASE)
    story.ends(call, 5)
    story.keep(reason="" if bad else "LEASE_NOT_FOUND")


def not_kept_after_it_expired(story: Story, *, bad: bool) -> None:
    story.told(story.watch(), 9, expired(agent(5), 9))
    story.keep(reason="" if bad else "LEASE_NOT_FOUND")


def greater_fences(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.ok("RegisterAgent", born(6, fence=5 if bad else 6))


def greater_fences_in_watches(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(born(5)))
    story.told(watch, 6, added(born(6, fence=4 if bad else 6)))


def one_fence_for_an_incarnation(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("UpdateAgent", agent(6, fence=2 if bad else 1))


def leases_with_fences_of_their_own(story: Story, *, bad: bool) -> None:
    story.grant(5)
    story.keep(fence=4 if bad else 5)


def leases_shown_with_their_fences(story: Story, *, bad: bool) -> None:
    story.shows(7, LeaseSeen(LEASE, 10, 5))
    story.shows(7, LeaseSeen(LEASE, 10, 6 if bad else 5))


def leases_that_share_no_fence(story: Story, *, bad: bool) -> None:
    story.ends(story.begins("GrantLease"), 5, leases=(LeaseSeen(LEASE, 10, 5),))
    story.ends(story.begins("GrantLease"), 6, leases=(LeaseSeen(f"{PARENT}/leases/m", 10, 5 if bad else 6),))


STORIES: Sequence[tuple[str, Callable[..., None]]] = [
    ("L1", not_early),
    ("L1", not_early_after_the_grant),
    ("L1", not_early_after_the_registration),
    ("L1", revoked_before_its_time),
    ("L2", gone_in_time),
    ("L2", gone_in_time_by_the_leases),
    ("L2", gone_in_time_by_its_revision),
    ("L2", gone_in_time_though_asked_for),
    ("L2", gone_in_time_after_the_first_answer),
    ("L2", gone_in_time_while_another_begins),
    ("L2", gone_in_time_after_a_pause_that_a_kill_ends),
    ("L2", gone_in_time_after_a_restart),
    ("L3", all_at_once),
    ("L3", all_at_once_after_a_resume),
    ("L3", all_at_once_after_a_snapshot),
    ("L3", nothing_shown_after_its_end),
    ("L3", nobody_shown_after_its_end),
    ("L4", granted_and_kept),
    ("L4", granted_and_there),
    ("L4", granted_to_a_registration_and_there),
    ("L4", kept_and_there),
    ("L4", not_kept_after_its_end),
    ("L4", not_kept_after_it_expired),
    ("L5", greater_fences),
    ("L5", greater_fences_in_watches),
    ("L5", one_fence_for_an_incarnation),
    ("L5", leases_with_fences_of_their_own),
    ("L5", leases_shown_with_their_fences),
    ("L5", leases_that_share_no_fence),
]
