"""What faults on several have in common: which of an entry's processes they hit, and what the target noticed of it."""

from collections.abc import Sequence
from math import ceil
from random import Random
from typing import Any, Final, Self

from pydantic import Field, model_validator

from holdfast_chaos.companions import members
from holdfast_chaos.faults.base import FaultContext
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict
from holdfast_slo.documents import Strict

LEASES_LOST: Final = "holdfast_lease_expirations_total"
"""The target's own count of those who fell silent: what a fault on its clients must show in."""


class CrowdSpec(Strict):
    """Which processes: `target` names the server or an entry of `processes`, of which `count` or a `share` is hit."""

    target: str = "server"
    count: int | None = Field(None, ge=1)
    share: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.count is not None and self.share is not None:
            raise ValueError("either `count` or `share`")
        return self

    def victims_of(self, several: int) -> int:
        """How many out of so many; one unless told."""
        return self.count or (1 if self.share is None else ceil(round(self.share * several, 9)))  # 7 % of 100 are 7

    def problem_with(self, several: int) -> str | None:
        """What was expected of the settings for an entry of so many; None where they fit."""
        if self.count is not None and self.count > several:
            return f"`count` of at most {several}: that is how many {self.target!r} processes there are"
        return None


def chosen(fault: str, spec: CrowdSpec, several: Sequence[str], seed: int) -> list[str]:
    """Which of several a fault hits, in their order: the same at each call of one run, since seed and fault choose.

    Raises:
        ValueError: the settings do not fit so many.
    """
    if problem := spec.problem_with(len(several)):
        raise ValueError(problem)
    hit = Random(f"{seed}/{fault}").sample(range(len(several)), spec.victims_of(len(several)))
    return [several[index] for index in sorted(hit)]


def victims(fault: str, spec: CrowdSpec, context: FaultContext) -> list[ManagedProcess]:
    """The processes that a fault hits.

    Raises:
        FaultError: there is no process of that name.
    """
    several = {process.name: process for process in context.aimed_at(spec.target, fault)}
    return [several[name] for name in chosen(fault, spec, list(several), context.seed)]


def several_of(spec: CrowdSpec, evidence: Evidence) -> int:
    """How many processes there were to choose from."""
    return len(members(spec.target, evidence.lives))


def noticed(sentence: str, evidence: Evidence, requested: dict[str, Any], observed: dict[str, Any]) -> Proof:
    """EFFECTIVE if the target lost leases in the window; `sentence` says what happened to the processes."""
    lost = evidence.grown(LEASES_LOST)
    observed = {**observed, "leases_expired": lost}
    if lost is None:
        text = f"{sentence}; the target has no {LEASES_LOST} in that time to show what it noticed"
        return Proof(ProofVerdict.UNPROVEN, text, requested, observed)
    if not lost:
        text = f"{sentence}, and the target noticed nothing: no lease expired; make it last longer than a lease's TTL"
        return Proof(ProofVerdict.INEFFECTIVE, text, requested, observed)
    return Proof(
        ProofVerdict.EFFECTIVE, f"{sentence}, and {lost:.0f} leases expired at the target", requested, observed
    )
