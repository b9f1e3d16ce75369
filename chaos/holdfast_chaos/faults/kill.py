"""kill: the target's process ends by SIGKILL, with all it started, and is started again after `restart_after`.

The window is `restart_after` long, and the heal is the restart: it ends once the process is ready again. Limits: kill
-9 loses nothing the kernel already has, so it does not test fsync; it needs a target that the run started (by command).
"""

from collections.abc import Mapping
from datetime import timedelta
from signal import SIGKILL
from typing import Any

from holdfast_chaos.faults.base import Availability, Fault, FaultContext, FaultError, Support
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, outage
from holdfast_slo.documents import Strict
from holdfast_slo.durations import Duration

_DEATH_WITHIN_S = 5.0


class KillSpec(Strict):
    """`kill: {target: server, restart_after: 1s}`."""

    target: str = "server"
    restart_after: Duration = timedelta(seconds=1)


class KillFault(Fault[KillSpec]):
    """Kills a process of the run and has it started again."""

    kind = "kill"
    model = KillSpec
    stops_target = True

    @classmethod
    def supported(cls) -> Support:
        """Everywhere: a run may signal what it started."""
        return Support(Availability.SUPPORTED)

    def window(self, given: timedelta | None) -> timedelta | None:
        """`restart_after`: then it is started again.

        Raises:
            ValueError: the experiment says `for` as well, and something else by it.
        """
        if given not in (None, self.spec.restart_after):
            raise ValueError("no `for` beside a kill: it lasts until `restart_after`, and until the process is ready")
        return self.spec.restart_after

    def needs_process(self) -> str | None:
        """The process to kill."""
        return self.spec.target

    def undo_record(self, context: FaultContext) -> dict[str, Any]:
        """Nothing to undo: a process that is not there does no harm, and a dead run needs no target."""
        _process(self, context)
        return {"kind": self.kind, "process": self.spec.target}

    def inject(self, context: FaultContext) -> None:
        """Sends SIGKILL and waits until the process is dead."""
        process = _process(self, context)
        process.kill(SIGKILL)
        if not process.wait(_DEATH_WITHIN_S):
            raise FaultError(f"{self.id}: {process.name} still runs {_DEATH_WITHIN_S:g} s after SIGKILL")

    def heal(self, context: FaultContext) -> None:
        """Starts it again and waits until it is ready; nothing where it runs already."""
        process = _process(self, context)
        if not process.alive():
            process.restart()

    def is_healed(self, context: FaultContext) -> bool:
        """Whether it runs (it became ready in `heal`)."""
        return _process(self, context).alive()

    def prove(self, evidence: Evidence) -> Proof:
        """EFFECTIVE if the process died by SIGKILL, a new one serves, and load and control path both saw it gone."""
        requested = {
            "signal": "SIGKILL",
            "target": self.spec.target,
            "restart_after_s": self.spec.restart_after.total_seconds(),
        }
        found = outage(evidence, self.spec.target)
        observed = {
            "pid": found.killed.identity.pid if found.killed else None,
            "returncode": found.killed.returncode if found.killed else None,
            "new_pid": found.successor.identity.pid if found.successor else None,
            "outage_s": None if found.control_s is None else round(found.control_s, 3),
            "load_errors": found.load_errors,
        }
        if found.killed is None:
            sentence = f"no process called {self.spec.target!r} died by SIGKILL during the window"
            return Proof(ProofVerdict.INEFFECTIVE, sentence, requested, observed)
        sentence = f"{self.spec.target} (pid {found.killed.identity.pid}) died with code {found.killed.returncode}"
        if found.successor is None:
            return Proof(ProofVerdict.UNPROVEN, f"{sentence}, but no new process became ready", requested, observed)
        sentence += f", pid {found.successor.identity.pid} took its place"
        if found.control_s is None:
            return Proof(ProofVerdict.UNPROVEN, f"{sentence}; the control path saw no outage", requested, observed)
        sentence += f"; the control path was out for {found.control_s:.2f} s"
        if not found.load_errors:
            return Proof(
                ProofVerdict.UNPROVEN, f"{sentence}, but no call of the load failed by it", requested, observed
            )
        return Proof(
            ProofVerdict.EFFECTIVE, f"{sentence}, and {found.load_errors} calls of the load failed", requested, observed
        )

    @classmethod
    def undo(cls, record: Mapping[str, Any]) -> str | None:  # noqa: ARG003  # there is nothing to read from it
        """Nothing: see `undo_record`."""
        return None


def _process(fault: KillFault, context: FaultContext) -> ManagedProcess:
    process = context.processes.get(fault.spec.target)
    if process is None:
        known = ", ".join(sorted(context.processes)) or "none (it runs at an address of its own)"
        raise FaultError(f"{fault.id}: no process {fault.spec.target!r} that this run started; there are: {known}")
    return process
