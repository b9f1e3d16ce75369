"""Joins the engine to a Locust environment when Locust has made it; importing this is enough."""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from locust import events
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from holdfast_loadtests.locusting.master_side import MasterSide
from holdfast_loadtests.locusting.page import extend_page
from holdfast_loadtests.locusting.station import Station
from holdfast_loadtests.locusting.worker_side import WorkerSide
from holdfast_loadtests.shares import WHOLE

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from locust.env import Environment

_workers: "WeakKeyDictionary[Environment, WorkerSide]" = WeakKeyDictionary()
_alone: "WeakKeyDictionary[Environment, Station]" = WeakKeyDictionary()


def station_of(environment: "Environment") -> Station | None:
    """The generators that serve users of an environment: some of their own where Locust runs no tests.

    None where this worker takes no part in the test.
    """
    side = _workers.get(environment)
    if side is not None:
        return side.station
    if isinstance(environment.runner, WorkerRunner):
        return None  # users may come before Locust says that it has made the environment
    if environment not in _alone:
        _alone[environment] = Station(0, WHOLE, 0)
    return _alone[environment]


@events.init_command_line_parser.add_listener
def _add_options(parser: "ArgumentParser", **_: object) -> None:
    parser.add_argument(
        "--load-seed",
        type=int,
        default=0,
        env_var="LOCUST_LOAD_SEED",
        help="Fixes every random choice of the load's schedule and requests (holdfast)",
    )
    parser.add_argument(
        "--load-records",
        default="",
        metavar="DIR",
        env_var="LOCUST_LOAD_RECORDS",
        include_in_web_ui=False,
        help="Each worker keeps a record of every call that its engine makes in this folder (holdfast)",
    )


@events.init.add_listener
def _join(environment: "Environment", **_: Any) -> None:  # noqa: ANN401  # whatever Locust says beside it
    runner = environment.runner
    if isinstance(runner, MasterRunner | LocalRunner):
        master = MasterSide(environment)
        if environment.web_ui is not None:
            extend_page(environment.web_ui, lambda: master.board)
    if isinstance(runner, WorkerRunner | LocalRunner):
        _workers[environment] = WorkerSide(environment)
