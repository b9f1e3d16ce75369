"""The teeth of the checkers of coordination, at real servers: each bug is caught by the invariant that it breaks."""

import os
from pathlib import Path

import pytest

from support.checkers import report
from support.coordinating import coordinate, invariants
from support.planted import BUGS
from support.planted_work import PLANTED_WORK
from support.server import ServerProcess

pytestmark = pytest.mark.timeout(120)

PLANTED = {
    name: {**BUGS, **PLANTED_WORK}[name][1]
    for name in (
        "denominator-of-votes-cast",
        "complete-under-any-fence",
        "leak-slots-of-the-dead",
        "late-vote-counted",
        "fallback-fired-twice",
        "hand-over-in-two-revisions",
        "lock-granted-during-the-delay",
        "build-a-breaker-per-call",
    )
}
"""Each bug, and the invariant that must be named."""


def serve(folder: Path, *program: str) -> ServerProcess:
    """A server in a process of its own that finds the tests' modules, where bugs are."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return ServerProcess(folder, env={"PYTHONPATH": path}, program=program)


@pytest.mark.parametrize("bug", PLANTED)
async def test_a_planted_bug_is_caught_by_the_invariant_it_breaks(bug: str, tmp_path: Path) -> None:
    """By its name, from what clients of a real server saw alone."""
    with serve(tmp_path, "-m", "support.planted", bug) as server:
        violations = await coordinate(server.grpc)
    assert PLANTED[bug] in invariants(violations), f"{bug} is not caught: {report(violations)}"


async def test_without_a_bug_nothing_is_caught(tmp_path: Path) -> None:
    """The twin: the same stories at the server as it is."""
    with serve(tmp_path, "-m", "holdfast") as server:
        violations = await coordinate(server.grpc)
    assert not violations, report(violations)
