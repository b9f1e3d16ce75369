"""Steps with what all their calls share: header block, deadline, labels, and the bytes where they never change."""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from holdfast_loadtests.calls import CompiledStep
from holdfast_loadtests.channels import Prepared
from holdfast_loadtests.draws import Draws
from holdfast_loadtests.framing import frame
from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.records import labels_of
from holdfast_loadtests.targets import Target
from holdfast_loadtests.templates import Scope

if TYPE_CHECKING:
    from holdfast_loadtests.tally import Lane


class ReadyStep:
    """A step with what every call of it shares: header block, and the framed messages where they never change."""

    __slots__ = (
        "_labels",
        "_scenario",
        "after_s",
        "always",
        "compiled",
        "compressed",
        "constant",
        "digest",
        "expect",
        "lane",
        "needs",
        "phase",
        "prepared",
        "until_definite_s",
    )

    def __init__(
        self, scenario: str, compiled: CompiledStep, prepared: Prepared, keeps_digest: bool, compressed: bool
    ) -> None:
        self._scenario = scenario
        self._labels: dict[str, str] = {}
        self.compiled = compiled
        self.prepared = prepared
        self.compressed = compressed
        self.expect = frozenset(compiled.step.expect)
        self.always = compiled.step.always
        self.needs = compiled.needs
        after, limit = compiled.step.after, compiled.step.until_definite
        self.after_s = after.total_seconds() if after is not None else None
        self.until_definite_s = limit.total_seconds() if limit is not None else None
        bodies = compiled.bodies(Scope({}, {}, 0, Draws(0, 0, 0))) if compiled.is_constant else None
        self.constant = frame(bodies, compressed) if bodies is not None else None
        self.digest = digest(bodies) if bodies is not None and keeps_digest else ""
        self.phase = ""
        self.lane: Lane | None = None

    def labels(self, phase: str) -> str:
        """What lines of its calls in a phase have in common, in the record."""
        found = self._labels.get(phase)
        if found is None:
            method = self.compiled.method
            labels = labels_of(phase, self._scenario, method.service, method.name, method.grpc_type)
            found = self._labels[phase] = labels
        return found


def make_ready(scenario: str, step: CompiledStep, target: Target, keeps_digest: bool) -> ReadyStep:
    """A step of a scenario for calls to a target; `keeps_digest` for what a record says of each."""
    method = step.method
    pace = step.step.pace
    prepared = Prepared(
        block=target.block(method.path, step.deadline_s, wire_metadata(step.step.metadata.items())),
        deadline_s=step.deadline_s,
        takes_many=method.grpc_type in ("server_stream", "bidi_stream"),
        receive=step.step.receive,
        pace=pace.total_seconds() if isinstance(pace, timedelta) else pace,
    )
    return ReadyStep(scenario, step, prepared, keeps_digest, target.compressed)


def digest(bodies: Sequence[bytes]) -> str:
    """A short digest of the messages sent, to tell whether two runs sent the same."""
    state = blake2b(digest_size=8)
    for body in bodies:
        state.update(len(body).to_bytes(4, "big"))
        state.update(body)
    return state.hexdigest()
