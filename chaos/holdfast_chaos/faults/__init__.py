"""The kinds of faults there are: one file each, listed here once.

To add one: a module with a model of its settings and a `Fault`, and a line in `KINDS`; the experiment's schema, `plan`,
`doctor`, the watchdog and `recover` find it by that.
"""

from collections.abc import Mapping
from typing import Any, Final

from holdfast_chaos.faults.base import Availability, Fault, FaultContext, FaultError, Support
from holdfast_chaos.faults.kill import KillFault
from holdfast_chaos.faults.latency import LatencyFault
from holdfast_chaos.faults.pause import PauseFault
from holdfast_chaos.faults.reset_peer import ResetPeerFault
from holdfast_chaos.faults.timeout import TimeoutFault

__all__ = ["KINDS", "Availability", "Fault", "FaultContext", "FaultError", "Support", "undo"]

KINDS: Final[Mapping[str, type[Fault[Any]]]] = {
    fault.kind: fault for fault in (LatencyFault, ResetPeerFault, TimeoutFault, KillFault, PauseFault)
}
"""Every kind of fault by its key in an experiment."""


def undo(record: Mapping[str, Any]) -> str | None:
    """Undoes a fault from its journalled undo record, in any process. Repeatable.

    Returns:
        what was undone, as a sentence; None if nothing was left of it.

    Raises:
        FaultError, ToxiproxyError: it may still be in force; the message says where.
    """
    kind = KINDS.get(str(record.get("kind")))
    if kind is None:
        known = ", ".join(sorted(KINDS))
        raise FaultError(
            f"the journal holds a fault of unknown kind {record.get('kind')!r}; this version knows {known}: "
            "recover with the version that made the run"
        )
    return kind.undo(record)
