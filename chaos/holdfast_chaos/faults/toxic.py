"""What the faults made of Toxiproxy's toxics share: whose connections they hit, and taking them away from any process.

Load and processes reach the target through proxies. Unless it is told whom to hit, a fault is on all of them, and is
proven by the load's calls; aimed at an entry of `processes`, it is on the proxies of those it hits, and is proven by
probes along their paths against probes along the paths of the others.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from pydantic import Field

from holdfast.cli import InputError
from holdfast_chaos import tools
from holdfast_chaos.companions import members
from holdfast_chaos.faults import crowd
from holdfast_chaos.faults.base import Availability, Fault, FaultContext, FaultError, Support
from holdfast_chaos.faults.crowd import CrowdSpec
from holdfast_chaos.proof import Evidence, Proof, ProofVerdict
from holdfast_chaos.toxiproxy import Toxiproxy, ToxiproxyError, ToxiproxyUnreachableError

EVERYONE = CrowdSpec.model_fields["target"].default
"""The target of a fault on everybody's connections: the server, where all of them end."""

SIDE_BY_SIDE_MAX = 16
"""Toxics taken away at a time: each may wait for what it holds back."""


class PathSpec(CrowdSpec):
    """Whose connections: everybody's, or with `target: agents` those of `count` or a `share` of that entry."""

    def problem_with(self, several: int) -> str | None:
        """As for processes; and of everybody's connections none are chosen by the seed."""
        if self.target == EVERYONE and (self.count, self.share) != (None, None):
            return (
                "`target: <entry of processes>` beside `count` or `share`, or neither: it is on everybody's connections"
            )
        return super().problem_with(several)


class ToxicSpec(PathSpec):
    """Settings of faults that may touch some connections only."""

    toxicity: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    """Share of connections it touches. Toxiproxy draws it once for each connection, not for each call, and without a
    seed."""

    def problem_with(self, several: int) -> str | None:
        """As for paths; and some connections of a process cannot be told from the probe's own."""
        if self.target != EVERYONE and self.toxicity < 1:
            return "`toxicity: 1` beside `target`: the probes that prove it have connections of their own"
        return super().problem_with(several)


PathSpecT = TypeVar("PathSpecT", bound=PathSpec)


class ToxicFault(Fault[PathSpecT], Generic[PathSpecT]):
    """A fault that is a toxic on proxies in front of the target."""

    streams: ClassVar[tuple[str, ...]] = ("downstream",)
    """Directions: from the target to its clients, and `upstream` from them to it."""

    on_paths = True

    @abstractmethod
    def attributes(self) -> dict[str, int]:
        """The toxic's own settings, in Toxiproxy's words."""

    @abstractmethod
    def prove_on(self, evidence: Evidence) -> Proof:
        """Decides by calls that went through the fault, `load`, and others that did not, `control`."""

    @classmethod
    def supported(cls) -> Support:
        """Where Toxiproxy is installed."""
        try:
            tools.find("toxiproxy-server")
        except InputError as missing:
            return Support(Availability.NOT_HERE, missing.message)
        return Support(Availability.SUPPORTED)

    def needs_process(self) -> str | None:
        """The entry whose connections it hits, unless it hits everybody's."""
        return None if self.spec.target == EVERYONE else self.spec.target

    def problem_with(self, count: int) -> str | None:
        """As its settings say."""
        return self.spec.problem_with(count)

    def undo_record(self, context: FaultContext) -> dict[str, Any]:
        """Where the toxics will be."""
        toxics = [{"proxy": proxy, "name": name} for proxy, name, _ in self._toxics(context)]
        return {"kind": self.kind, "address": _toxiproxy(self.id, context).address, "toxics": toxics}

    def inject(self, context: FaultContext) -> None:
        """Adds each toxic and reads it back."""
        toxicity = self.spec.toxicity if isinstance(self.spec, ToxicSpec) else 1.0
        for proxy, name, stream in self._toxics(context):
            _toxiproxy(self.id, context).add_toxic(proxy, name, self.kind, stream, toxicity, self.attributes())

    def heal(self, context: FaultContext) -> None:
        """Removes the toxics."""
        _remove(_toxiproxy(self.id, context), [(proxy, name) for proxy, name, _ in self._toxics(context)])

    def is_healed(self, context: FaultContext) -> bool:
        """Whether Toxiproxy lists none of them any more."""
        toxiproxy = _toxiproxy(self.id, context)
        return not any(name in toxiproxy.toxics(proxy) for proxy, name, _ in self._toxics(context))

    def prove(self, evidence: Evidence) -> Proof:
        """By the load's calls, or by probes along the paths of the processes it aims at."""
        if self.spec.target == EVERYONE:
            return self.prove_on(evidence)
        several = members(self.spec.target, evidence.paths)
        hit = crowd.chosen(self.id, self.spec, several, evidence.seed) if several else []
        spared = [name for name in several if name not in hit]
        requested = {"target": self.spec.target, "processes": len(hit)}
        if astray := [name for name in hit if name not in evidence.connected] or (not hit and [self.spec.target]):
            sentence = f"{', '.join(astray)} had no connection to the target through a proxy that could be acted on"
            return Proof(ProofVerdict.INEFFECTIVE, sentence, requested, {"hit": hit})
        proof = self.prove_on(evidence.along(hit, spared))
        beside = f"{len(spared)} spared" if spared else "the control path"
        return replace(
            proof,
            sentence=f"{', '.join(hit)} beside {beside}: {proof.sentence}",
            requested={**proof.requested, **requested},
            observed={**proof.observed, "hit": hit},
        )

    @classmethod
    def undo(cls, record: Mapping[str, Any]) -> str | None:
        """Removes the toxics, if Toxiproxy is still there: toxics live in its memory and end with it."""
        try:
            toxiproxy = Toxiproxy(str(record["address"]))
            toxics = [(str(each["proxy"]), str(each["name"])) for each in record["toxics"]]
        except (KeyError, TypeError, ValueError) as error:
            raise FaultError(f"the journal's undo record {dict(record)!r} is malformed: {error!r}") from error
        try:
            removed = _remove(toxiproxy, toxics)
            left = [(proxy, name) for proxy, name in toxics if name in toxiproxy.toxics(proxy)]
        except ToxiproxyUnreachableError:
            return None
        except ToxiproxyError as error:
            raise FaultError(f"{error}; by hand: {_by_hand(toxiproxy, toxics)}") from error
        if left:
            raise FaultError(f"still there: {_named(toxiproxy, left)}; by hand: {_by_hand(toxiproxy, left)}")
        return f"removed {_named(toxiproxy, removed)} ({cls.kind})" if removed else None

    def _toxics(self, context: FaultContext) -> Iterator[tuple[str, str, str]]:
        """Proxy, name and direction of each toxic.

        Raises:
            FaultError: there is no Toxiproxy, or no proxy for the processes it aims at.
        """
        _toxiproxy(self.id, context)
        for proxy in self._proxies(context):
            for stream in self.streams:
                yield proxy, f"holdfast-{self.id}" + ("" if stream == "downstream" else f"-{stream}"), stream

    def _proxies(self, context: FaultContext) -> Sequence[str]:
        if self.spec.target == EVERYONE:
            return context.proxies
        several = members(self.spec.target, context.proxies)
        if not several:
            raise FaultError(f"{self.id}: no process {self.spec.target!r} has a proxy of its own in this run")
        return crowd.chosen(self.id, self.spec, several, context.seed)


def whole_ms(duration: timedelta) -> int:
    """Milliseconds, rounded: Toxiproxy takes whole ones."""
    return round(duration / timedelta(milliseconds=1))


def _remove(toxiproxy: Toxiproxy, toxics: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Takes toxics away, side by side; those that were there."""
    with ThreadPoolExecutor(SIDE_BY_SIDE_MAX) as pool:
        found = list(pool.map(lambda toxic: toxiproxy.remove_toxic(*toxic), toxics))
    return [toxic for toxic, was_there in zip(toxics, found, strict=True) if was_there]


def _named(toxiproxy: Toxiproxy, toxics: Sequence[tuple[str, str]]) -> str:
    each = [f"toxic {name!r} of proxy {proxy!r}" for proxy, name in toxics]
    return f"{', '.join(each)} of Toxiproxy at {toxiproxy.address}"


def _by_hand(toxiproxy: Toxiproxy, toxics: Sequence[tuple[str, str]]) -> str:
    return "; ".join(
        f"curl -X DELETE http://{toxiproxy.address}/proxies/{quote(proxy)}/toxics/{quote(name)}"
        for proxy, name in toxics
    )


def _toxiproxy(fault_id: str, context: FaultContext) -> Toxiproxy:
    if context.toxiproxy is None or not context.proxies:
        raise FaultError(f"{fault_id} needs Toxiproxy between load and target, and this run has none")
    return context.toxiproxy
