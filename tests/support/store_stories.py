"""Histories of writes, reads and rulings, told twice: as they should be, and, with `bad`, as they must not be.

`tests/unit/support/test_checkers.py` tells them to every checker.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from support.history import QUIET, ServerMark
from support.stories import Story, added, agent, born, changed


def revisions_of_their_own(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("UpdateAgent", agent(5 if bad else 6, "b"))


def revisions_that_grow(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("UpdateAgent", agent(4 if bad else 6, "b"))


def one_revision_for_a_write(story: Story, *, bad: bool) -> None:
    story.events.append(ServerMark(story.now_s, "c", QUIET))
    story.ends(story.begins("ListAgents"), 5)
    story.ok("UpdateAgent", agent(7 if bad else 6))
    story.ends(story.begins("ListAgents"), 7 if bad else 6)


def no_revision_for_a_refusal(story: Story, *, bad: bool) -> None:
    story.events.append(ServerMark(story.now_s, "c", QUIET))
    story.ends(story.begins("ListAgents"), 5)
    story.fails("UpdateAgent", agent(5), is_definite=bad)
    story.ends(story.begins("ListAgents"), 6)


def no_revision_for_a_repeated_request(story: Story, *, bad: bool) -> None:
    story.grant(5, request_id="r")
    story.events.append(ServerMark(story.now_s, "c", QUIET))
    story.ends(story.begins("ListAgents"), 5)
    story.grant(5, request_id="r")
    story.ends(story.begins("ListAgents"), 6 if bad else 5)


def written_and_there(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.ok("UpdateAgent", replace(born(5), revision=6, digest="six"))
    story.final(7, born(5) if bad else replace(born(5), revision=6, digest="six"))


def written_and_not_gone(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    if not bad:
        story.fails("DeregisterAgent", born(5), is_definite=False)
    story.final(7)


def deregistered_and_gone(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.gone(6, born(5))
    story.final(7, *([born(5)] if bad else []))


def acknowledged_before_the_end(story: Story, *, bad: bool) -> None:
    story.gone(6, agent(1))
    story.final(5 if bad else 6)


def read_as_written(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("GetAgent", agent(5, digest="other") if bad else agent(5))


def read_what_is_new(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ends(story.begins("ListAgents"), 4 if bad else 5)


def failed_and_never_seen(story: Story, *, bad: bool) -> None:
    story.fails("RegisterAgent", agent(5), is_definite=bad, tag="t1")
    story.final(5, agent(5, labels={"op": "t1"}))


def whole_batches(story: Story, *, bad: bool) -> None:
    a, b = born(5, labels={"op": "t1"}), born(5, "b", labels={"op": "t1"})
    story.fails("BatchRegisterAgents", a, b, is_definite=False, tag="t1")
    story.told(story.watch(), 5, *([added(a)] if bad else [added(a), added(b)]))


def batches_of_one_revision(story: Story, *, bad: bool) -> None:
    story.ok("BatchRegisterAgents", born(5), born(6 if bad else 5, "b"), tag="t1")


def one_write_for_an_etag(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5), etag="1")
    story.ok("UpdateAgent", agent(6), etag="1" if bad else "5")


def the_version_asked_for(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(6), etag="4" if bad else "5")
    story.told(story.watch(6), 6, changed(agent(5), agent(6)))


def cordoned_and_back(story: Story, *, bad: bool) -> None:
    story.ok("CordonAgent", born(5, admin_state="CORDONED"))
    story.ok("RegisterAgent", born(6, admin_state="ENABLED" if bad else "CORDONED"))


def ruled_by_somebody(story: Story, *, bad: bool) -> None:
    if not bad:
        story.fails("BanAgent", agent(5), is_definite=False)
    story.told(story.watch(6), 6, changed(agent(5), agent(6, admin_state="BANNED")))


def repeated(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), request_id="r", content="x")
    story.ok("RegisterAgent", born(6 if bad else 5), request_id="r", content="x")


def repeated_and_not_refused(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), request_id="r", content="x")
    reason = "AGENT_ALREADY_EXISTS" if bad else "STORE_UNAVAILABLE"
    story.fails("RegisterAgent", born(5), reason=reason, request_id="r", content="x")


def one_content_for_an_id(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), request_id="r", content="x")
    story.ok("RegisterAgent", born(5), request_id="r", content="y" if bad else "x")


STORIES: Sequence[tuple[str, Callable[..., None]]] = [
    ("S1", revisions_of_their_own),
    ("S1", revisions_that_grow),
    ("S1", one_revision_for_a_write),
    ("S1", no_revision_for_a_refusal),
    ("S1", no_revision_for_a_repeated_request),
    ("S2", written_and_there),
    ("S2", written_and_not_gone),
    ("S2", deregistered_and_gone),
    ("S2", acknowledged_before_the_end),
    ("S2", read_as_written),
    ("S2", read_what_is_new),
    ("S3", failed_and_never_seen),
    ("S3", whole_batches),
    ("S3", batches_of_one_revision),
    ("etag", one_write_for_an_etag),
    ("etag", the_version_asked_for),
    ("admin", cordoned_and_back),
    ("admin", ruled_by_somebody),
    ("request_id", repeated),
    ("request_id", repeated_and_not_refused),
    ("request_id", one_content_for_an_id),
]
