"""kill: processes end by SIGKILL, with all they started, and are started again after `restart_after`.

The target's process, or some of an entry of `processes`: chosen by the run's seed, `count` of them or a `share`.

The window is `restart_after` long, and the heal is the restart: it ends once the process is ready again. Limits: kill
-9 loses nothing the kernel already has, so it does not test fsync; it needs processes that the run started.
"""

from collections.abc import Mapping
from datetime import timedelta
from signal import SIGKILL
from typing import Any

from holdfast_chaos.companions import members
from holdfast_chaos.faults import crowd
from holdfast_chaos.faults.base import Availability, Fault, FaultContext, FaultError, Support
from holdfast_chaos.faults.crowd import CrowdSpec
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict, outage
from holdfast_slo.durations import Duration

_DEATH_WITHIN_S = 5.0


class KillSpec(CrowdSpec):
    """`kill: {target: server, restart_after: 1s}`, `kill: {target: agents, share: 0.2, restart_after: 5s}`."""

    restart_after: Duration = timedelta(seconds=1)


class KillFault(Fault[KillSpec]):
    """Kills processes of the run and has them started again."""

    kind = "kill"
    model = KillSpec
    stops_target = True
    reads = (crowd.LEASES_LOST,)

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
        """The process or entry to kill."""
        return self.spec.target

    def problem_with(self, count: int) -> str | None:
        """As its settings say."""
        return self.spec.problem_with(count)

    def undo_record(self, context: FaultContext) -> dict[str, Any]:
        """Nothing to undo: a process that is not there does no harm, and a dead run needs no target."""
        crowd.victims(self.id, self.spec, context)
        return {"kind": self.kind, "process": self.spec.target}

    def inject(self, context: FaultContext) -> None:
        """Sends SIGKILL and waits until all are dead."""
        chosen = crowd.victims(self.id, self.spec, context)
        for process in chosen:
            process.kill(SIGKILL)
        for process in chosen:
            if not process.wait(_DEATH_WITHIN_S):
                raise FaultError(f"{self.id}: {process.name} still runs {_DEATH_WITHIN_S:g} s after SIGKILL")

    def heal(self, context: FaultContext) -> None:
        """Starts them again and waits until they are ready; nothing where they run already."""
        dead = [process for process in crowd.victims(self.id, self.spec, context) if not process.alive()]
        ManagedProcess.start_together(dead)

    def is_healed(self, context: FaultContext) -> bool:
        """Whether they run (they became ready in `heal`)."""
        return all(process.alive() for process in crowd.victims(self.id, self.spec, context))

    def prove(self, evidence: Evidence) -> Proof:
        """EFFECTIVE if what it aims at died by SIGKILL, took up work again, and was missed.

        A dead target is missed by load and control path; dead clients by the target, whose leases expired.
        """
        return self._of_target(evidence) if self.spec.target in evidence.lives else self._of_clients(evidence)

    def _of_clients(self, evidence: Evidence) -> Proof:
        names = members(self.spec.target, evidence.lives)
        wanted = self.spec.victims_of(len(names))
        requested = {
            "signal": "SIGKILL",
            "target": self.spec.target,
            "processes": wanted,
            "restart_after_s": self.spec.restart_after.total_seconds(),
        }
        outages = {name: found for name in names if (found := outage(evidence, name)).killed is not None}
        observed: dict[str, Any] = {"killed": sorted(outages)}
        if not outages:
            sentence = f"no process of {self.spec.target!r} died by SIGKILL during the window"
            return Proof(ProofVerdict.INEFFECTIVE, sentence, requested, observed)
        sentence = f"{', '.join(outages)} died by SIGKILL"
        if len(outages) < wanted:
            return Proof(ProofVerdict.UNPROVEN, f"{sentence}, but {wanted} should have", requested, observed)
        if gone := [name for name, found in outages.items() if found.successor is None]:
            text = f"{sentence}, but nothing took the place of {', '.join(gone)}"
            return Proof(ProofVerdict.UNPROVEN, text, requested, observed)
        return crowd.noticed(sentence, evidence, requested, observed)

    def _of_target(self, evidence: Evidence) -> Proof:
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
