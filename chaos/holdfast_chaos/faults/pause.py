"""pause: processes stand still by SIGSTOP, with all they started, and go on after `for` by SIGCONT.

A paused process keeps its connections and believes, when it wakes, that no time has passed: what it held may be others'
by then. Limits: the kernel still acknowledges what is sent to it, so nobody's writes fail at once.
"""

from collections.abc import Mapping
from datetime import timedelta
from signal import SIGCONT, SIGSTOP
from typing import Any

from holdfast_chaos.companions import members
from holdfast_chaos.faults import crowd
from holdfast_chaos.faults.base import Availability, Fault, FaultContext, FaultError, Support
from holdfast_chaos.faults.crowd import CrowdSpec
from holdfast_chaos.processes import ProcessIdentity, poll
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict

_STILL_WITHIN_S = 5.0


class PauseSpec(CrowdSpec):
    """`pause: {target: agents, share: 0.2}`."""


class PauseFault(Fault[PauseSpec]):
    """Has processes of the run stand still."""

    kind = "pause"
    model = PauseSpec
    reads = (crowd.LEASES_LOST,)

    @classmethod
    def supported(cls) -> Support:
        """Everywhere: a run may signal what it started."""
        return Support(Availability.SUPPORTED)

    def window(self, given: timedelta | None) -> timedelta | None:
        """As long as `for` says."""
        return given

    def needs_process(self) -> str | None:
        """The process or entry to pause."""
        return self.spec.target

    def problem_with(self, count: int) -> str | None:
        """As its settings say."""
        return self.spec.problem_with(count)

    def undo_record(self, context: FaultContext) -> dict[str, Any]:
        """Which processes to wake."""
        paused = crowd.victims(self.id, self.spec, context)
        identities = [process.identity for process in paused]
        return {
            "kind": self.kind,
            "processes": [{"pid": each.pid, "create_time": each.create_time} for each in identities],
        }

    def inject(self, context: FaultContext) -> None:
        """Sends SIGSTOP and waits until all stand still."""
        chosen = crowd.victims(self.id, self.spec, context)
        for process in chosen:
            process.kill(SIGSTOP)
        for process in chosen:
            if not poll(process.is_stopped, _STILL_WITHIN_S):
                raise FaultError(f"{self.id}: {process.name} still runs {_STILL_WITHIN_S:g} s after SIGSTOP")

    def heal(self, context: FaultContext) -> None:
        """Sends SIGCONT, which does nothing to a process that runs."""
        for process in crowd.victims(self.id, self.spec, context):
            process.kill(SIGCONT)

    def is_healed(self, context: FaultContext) -> bool:
        """Whether none of them stands still."""
        return not any(process.is_stopped() for process in crowd.victims(self.id, self.spec, context))

    def prove(self, evidence: Evidence) -> Proof:
        """EFFECTIVE if the operating system saw processes stand still, and the target lost leases by it."""
        wanted = self.spec.victims_of(crowd.several_of(self.spec, evidence))
        requested = {"signal": "SIGSTOP", "target": self.spec.target, "processes": wanted}
        names = set(members(self.spec.target, evidence.lives))
        stopped = sorted(
            {
                seen.process
                for seen in evidence.sightings
                if seen.stopped and seen.process in names and evidence.window.holds(seen.t_s)
            }
        )
        observed: dict[str, Any] = {"stopped": stopped}
        if not stopped:
            sentence = f"no process of {self.spec.target!r} was seen to stand still during the window"
            return Proof(ProofVerdict.INEFFECTIVE, sentence, requested, observed)
        sentence = f"{', '.join(stopped)} stood still"
        if len(stopped) < wanted:
            return Proof(ProofVerdict.UNPROVEN, f"{sentence}, but {wanted} should have", requested, observed)
        return crowd.noticed(sentence, evidence, requested, observed)

    @classmethod
    def undo(cls, record: Mapping[str, Any]) -> str | None:
        """Wakes what still stands still of the processes it names."""
        try:
            identities = [ProcessIdentity.from_json(each) for each in record["processes"]]
        except (KeyError, TypeError, ValueError) as error:
            raise FaultError(f"pause: the journal does not say which processes to wake: {error}") from error
        woken = [identity for identity in identities if identity.send(SIGCONT)]
        return f"woke {', '.join(f'pid {identity.pid}' for identity in woken)}" if woken else None
