"""Histories of watches, told twice: as they should be, and, with `bad`, as they must not be.

`tests/unit/support/test_checkers.py` tells them to every checker.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from support.history import AgentChange, AgentSeen, WatchEnded, WatchMessage
from support.stories import Story, added, agent, born, changed, expired


def filtered(story: Story, *, bad: bool) -> None:
    watch = story.watch(only=RED)
    story.told(watch, 5, added(red(5)))
    story.told(watch, 6, changed(blue(5) if bad else red(5), blue(6), "DELETED"))


RED = 'labels.team = "red"'


def red(revision: int) -> AgentSeen:
    return agent(revision, labels={"team": "red"})


def blue(revision: int) -> AgentSeen:
    return agent(revision, labels={"team": "blue"})


def added_to_a_filter(story: Story, *, bad: bool) -> None:
    story.told(story.watch(only=RED), 6, changed(blue(5), red(6)) if bad else added(red(6)))


def deleted_from_a_filter(story: Story, *, bad: bool) -> None:
    story.told(story.watch(only=RED), 6, changed(red(5), blue(6), "MODIFIED" if bad else "DELETED"))


def expired_in_a_filter(story: Story, *, bad: bool) -> None:
    story.told(story.watch(only=RED), 6, expired(blue(5) if bad else red(5), 6))


def a_snapshot_of_a_filter(story: Story, *, bad: bool) -> None:
    story.snapshot(story.watch(0, only=RED), 6, blue(5) if bad else red(5))


def a_snapshot_of_the_living(story: Story, *, bad: bool) -> None:
    story.snapshot(story.watch(0), 6, agent(5, liveness="EXPIRED" if bad else "LIVE"))


def there_before_it_changes(story: Story, *, bad: bool) -> None:
    watch = story.watch(0, only=RED)
    story.snapshot(watch, 5, *([] if bad else [red(5)]))
    story.told(watch, 6, changed(red(5), red(6)))


def added_once(story: Story, *, bad: bool) -> None:
    watch = story.watch(0, only=RED)
    story.snapshot(watch, 5, red(5))
    story.told(watch, 6, added(red(6)) if bad else changed(red(5), red(6)))


def told_to_a_filter_to_the_end(story: Story, *, bad: bool) -> None:
    watch, other = story.watch(0, only=RED), agent(4, "b", labels={"team": "blue"})
    story.snapshot(watch, 5, *([] if bad else [red(5)]))
    story.progress(watch, 7)
    story.final(6, red(5), other)


def in_order(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 6, added(agent(6)))
    story.told(watch, 5 if bad else 7, added(agent(5 if bad else 7, "b")))


def once(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 6, added(agent(6)))
    again = story.watch(7, resumes=watch)
    story.told(again, 6 if bad else 7, added(agent(6)) if bad else changed(agent(6), agent(7)))


def whole_revisions(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    if bad:
        story.told(watch, 6, added(agent(6)))
        story.told(watch, 6, added(agent(6, "b")))
    else:
        story.told(watch, 6, added(agent(6)), added(agent(6, "b")))


def nothing_after_progress(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.progress(watch, 6)
    story.told(watch, 6 if bad else 7, added(agent(6 if bad else 7)))


def resumed(story: Story, *, bad: bool) -> None:
    watch = story.watch(6)
    compacted = 5 if bad else 9
    story.events.append(
        WatchMessage(
            story.now_s, "w", watch, compacted - 1, "reset", (), reset_reason="COMPACTED", compact_revision=compacted
        )
    )


def never_the_future(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 6, added(agent(6)))
    again = story.watch(7, resumes=watch)
    story.events.append(WatchEnded(story.now_s, "w", again, "REVISION_FUTURE" if bad else "LOST"))


def told_to_all(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.ok("RegisterAgent", born(6, "b"))
    watch = story.watch()
    if not bad:
        story.told(watch, 5, added(born(5)))
    story.told(watch, 6, added(born(6, "b")))


def told_of_the_deregistered(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(born(5)))
    story.gone(6, born(5))
    if not bad:
        story.told(watch, 6, AgentChange("DELETED", born(5), born(5)))
    story.progress(watch, 7)


def told_of_rulings(story: Story, *, bad: bool) -> None:
    watch, cordoned = story.watch(6), agent(6, admin_state="CORDONED")
    story.ok("CordonAgent", cordoned)
    if not bad:
        story.told(watch, 6, changed(agent(5), cordoned))
    story.progress(watch, 7)


def told_of_what_is_read(story: Story, *, bad: bool) -> None:
    watch = story.watch(6, only=RED)
    story.ends(story.begins("GetAgent", red(6)), 7, red(6))
    if not bad:
        story.told(watch, 6, changed(red(5), red(6)))
    story.progress(watch, 7)


def told_as_to_others(story: Story, *, bad: bool) -> None:
    one, other = story.watch(), story.watch()
    story.told(one, 5, added(born(5)))
    if not bad:
        story.told(other, 5, added(born(5)))
    story.progress(other, 6)


def unbroken(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(born(5)))
    before = replace(born(5), revision=6 if bad else 5, digest="six" if bad else "a@5")
    story.told(watch, 7, changed(before, replace(born(5), revision=7, digest="seven")))


def told_to_the_end(story: Story, *, bad: bool) -> None:
    watch = story.watch(0)
    story.snapshot(watch, 4)
    story.told(watch, 5, added(born(5)))
    story.progress(watch, 7)
    story.final(6, *([born(5), born(6, "b")] if bad else [born(5)]))


STORIES: Sequence[tuple[str, Callable[..., None]]] = [
    ("W1", filtered),
    ("W1", added_to_a_filter),
    ("W1", deleted_from_a_filter),
    ("W1", expired_in_a_filter),
    ("W1", a_snapshot_of_a_filter),
    ("W1", a_snapshot_of_the_living),
    ("W2", in_order),
    ("W3", once),
    ("W4", whole_revisions),
    ("W5", nothing_after_progress),
    ("W6", resumed),
    ("W6", never_the_future),
    ("W7", told_to_all),
    ("W7", told_of_the_deregistered),
    ("W7", told_of_rulings),
    ("W7", told_of_what_is_read),
    ("W7", told_as_to_others),
    ("W7", unbroken),
    ("W7", told_to_the_end),
    ("W7", there_before_it_changes),
    ("W7", added_once),
    ("W7", told_to_a_filter_to_the_end),
]
