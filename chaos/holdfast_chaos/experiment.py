"""The experiment file: what to load, what to break, what must hold.

One file describes a run whole; `holdfast plan` says what it resolves to, `holdfast run` carries it out. Its JSON Schema
is published beside this module and is what editors check against.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model, model_validator

from holdfast.cli import InputError
from holdfast_chaos import timeline
from holdfast_chaos.companions import PLACEHOLDER, Companion
from holdfast_chaos.coordination_checks import CheckName
from holdfast_chaos.faults import KINDS, Fault
from holdfast_chaos.timeline import PlannedFault, PlannedPhase
from holdfast_loadtests import spec as load_spec
from holdfast_loadtests.access import PLAIN, Access, Tls
from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.descriptors import Descriptors, NoDescriptorsError
from holdfast_loadtests.security import Security
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.tables import load_table
from holdfast_slo.documents import Document, Strict, apply_overrides, load_document
from holdfast_slo.durations import Duration
from holdfast_slo.openslo import Objective, load_objective
from holdfast_slo.phases import BASELINE, RECOVERY, matching

PACKAGED = files("holdfast_chaos") / "experiments"
PACKAGED_DATA = files("holdfast_chaos") / "data"
PACKAGED_OBJECTIVES = files("holdfast_slo") / "objectives"

_ABORT_RULE = re.compile(r"^(error_ratio|p95_ms)\s*(>|>=)\s*(\d+(?:\.\d+)?)$")

SERVER = "server"
"""What the target's process is called."""

_TAKEN = (SERVER, "load", "toxiproxy", "prometheus")
"""Names that processes of every run have; jobs of Prometheus are called alike."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Metadata(Strict):
    """What the experiment is called and what it is for."""

    name: Slug
    description: str = ""


class Target(Strict):
    """What is put under fire: a process that the run starts and may kill, or an address where one already runs.

    In `command` and `metrics`, `{data}` is a fresh folder, and every other `{name}` a loopback address of its own that
    stays the same when the process is restarted; `{grpc}` is the one the load dials.
    """

    command: list[str] | None = Field(None, min_length=1)
    address: str | None = Field(None, pattern=r"^[^\s:]+:\d+$")
    metrics: str | None = Field(None, pattern=r"^https?://")
    ready_within: Duration = timedelta(seconds=30)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Target":
        if (self.command is None) == (self.address is None):
            raise ValueError("either `command` (a process to start) or `address` (host:port of a running one)")
        if self.command is not None and "grpc" not in self.placeholders:
            raise ValueError("`{grpc}` somewhere in `command`: it is the address the load dials")
        if self.address is not None and self.placeholders:
            raise ValueError(
                f"a `metrics` URL without {{{self.placeholders[0]}}}: the run starts nothing at an address"
            )
        if self.address is not None and not 0 < int(self.address.rpartition(":")[2]) < 65536:
            raise ValueError(f"a port between 1 and 65535 in `address`, got {self.address}")
        return self

    @property
    def placeholders(self) -> list[str]:
        """Names of the placeholders used, `data` left out, in order of appearance."""
        text = " ".join([*(self.command or []), self.metrics or ""])
        return list(dict.fromkeys(name for name in PLACEHOLDER.findall(text) if name != "data"))

    @staticmethod
    def filled(text: str, values: Mapping[str, str]) -> str:
        """The text with each placeholder's value in its place; other braces (a program's own) are left as they are."""
        return PLACEHOLDER.sub(lambda found: values[found[1]], text)


class DataSource(Strict):
    """A table of values for requests; the path is looked up beside the experiment, then among the packaged data."""

    csv: str | None = None
    jsonl: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "DataSource":
        if (self.csv is None) == (self.jsonl is None):
            raise ValueError("either `csv` or `jsonl`")
        return self


class Phases(Strict):
    """How long the judged phases outside the faults last, at least.

    A phase is extended, to `extend_up_to` at most, until it has the samples its objectives need; the number is fixed
    before the run, so that when to stop looking never depends on what is seen.
    """

    warmup: Duration = timedelta(seconds=2)
    baseline: Duration = timedelta(seconds=15)
    recovery: Duration = timedelta(seconds=20)
    extend_up_to: Duration = timedelta(seconds=60)


class FaultEntryBase(Strict):
    """One fault: its place in the run and exactly one kind with its settings."""

    id: Slug
    at: Duration
    for_: Duration | None = Field(None, alias="for")

    @model_validator(mode="after")
    def _one_kind(self) -> "FaultEntryBase":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one kind of fault out of: {', '.join(sorted(KINDS))}; given: {given or 'none'}")
        return self

    def build(self) -> Fault[Any]:
        """The fault itself."""
        kind = next(kind for kind in KINDS if getattr(self, kind) is not None)
        return KINDS[kind](self.id, getattr(self, kind))


_KIND_KEYS: dict[str, Any] = {kind: (fault.model | None, None) for kind, fault in KINDS.items()}
FaultEntry: type[FaultEntryBase] = create_model("FaultEntry", __base__=FaultEntryBase, **_KIND_KEYS)


class ObjectiveEntry(Strict):
    """An objective with the phases it is judged in; `target` overrides the file's.

    Each phase by itself, unless `pooled`: then the events of all are judged as one, for phases too short to bring the
    samples that each would need. One that is by itself proven below the target fails the objective then, too.
    """

    name: Slug | None = None
    openslo: str
    phases: list[str] = Field(default=[BASELINE, RECOVERY], min_length=1)
    pooled: bool = False
    target: float | None = Field(None, gt=0, lt=1)


class RecoveryLimit(Strict):
    """How soon after each heal every objective must hold again."""

    within: Duration = timedelta(seconds=10)


def _abort_rule(text: str) -> str:
    if not _ABORT_RULE.match(text):
        raise ValueError("`error_ratio > X` or `p95_ms > X`")
    return text


class AbortRule(Strict):
    """Ends the run early, faults healed, when something is worse than the experiment is meant to make it."""

    when: Annotated[str, AfterValidator(_abort_rule)]
    for_: Duration = Field(alias="for")

    @property
    def measure(self) -> str:
        """`error_ratio` or `p95_ms`."""
        return self._parts()[0]

    @property
    def limit(self) -> float:
        """The value above which the rule counts time; with `>=`, the first that counts."""
        return float(self._parts()[2])

    def exceeded_by(self, value: float) -> bool:
        """Whether time counts at this value."""
        return value > self.limit or (value == self.limit and self._parts()[1] == ">=")

    def _parts(self) -> tuple[str, ...]:
        match = _ABORT_RULE.match(self.when)
        assert match is not None, "validated on construction"
        return match.groups()


class Coverage(Strict):
    """A check on the load: at least so many rows of its table had an OK of this method."""

    name: Slug
    call: str
    rows_min: int = Field(gt=0)


class Experiment(Strict):
    """A whole experiment."""

    api_version: Literal["holdfast/v1"] = Field(alias="apiVersion")
    kind: Literal["Experiment"]
    metadata: Metadata
    seed: int = Field(0, ge=0, lt=2**63)
    target: Target
    processes: dict[Slug, Companion] = Field({})
    load: LoadSpec
    data: dict[str, DataSource] = Field({})
    phases: Phases = Phases()
    faults: list[FaultEntry] = Field([])  # type: ignore[valid-type]  # the class is made from the fault registry
    objectives: list[str | ObjectiveEntry] = Field([])
    recovery: RecoveryLimit = RecoveryLimit()
    abort: list[AbortRule] = Field([])
    coverage: list[Coverage] = Field([])
    checks: list[CheckName] = Field([])


@dataclass(frozen=True)
class JudgedObjective:
    """An objective and the phases in which it is judged, each by itself unless `pooled`."""

    objective: Objective
    phases: tuple[str, ...]
    pooled: bool = False

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The phases that are judged together."""
        return (self.phases,) if self.pooled else tuple((phase,) for phase in self.phases)


@dataclass(frozen=True)
class Resolved:
    """An experiment with everything it names found, read and cross-checked."""

    experiment: Experiment
    source: str
    sha256: str
    faults: tuple[Fault[Any], ...]
    windows: tuple[PlannedFault, ...]
    phases: tuple[PlannedPhase, ...]
    objectives: tuple[JudgedObjective, ...]
    tables: Mapping[str, Sequence[Mapping[str, str]]]
    access: Access = PLAIN
    descriptors: bytes = b""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment.metadata.name


def find_experiment(name: str) -> Path | Traversable:
    """The file of an experiment given by path, or by the name of a packaged one.

    Raises:
        InputError: there is no such file and no such packaged experiment.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = PACKAGED / f"{name}.yaml"
    if packaged.is_file():
        return packaged
    raise InputError(
        f"no experiment {name!r}: no such file, and the packaged ones are: {', '.join(packaged_names())}.\n"
        "Give the path of an experiment file or one of these names."
    )


def packaged_names() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in PACKAGED.iterdir() if item.name.endswith(".yaml"))


def load_experiment(
    name: str,
    overrides: Sequence[str] = (),
    *,
    target: str | None = None,
    seed: int | None = None,
    tls: Tls | None = None,
) -> Resolved:
    """Reads an experiment and everything it refers to; starts nothing.

    Args:
        name: a path, or the name of a packaged experiment.
        overrides: `key=value` pairs with dotted keys, applied before validation.
        target: `host:port` of a running service, in place of the experiment's target.
        seed: in place of the experiment's.
        tls: in place of the experiment's, its files looked up from here.

    Raises:
        InputError: anything about it is wrong; the message names file, line, key and value.
    """
    source = find_experiment(name)
    flags = [] if seed is None else [f"seed={seed}"]
    flags += [] if target is None else [f"target={{address: {json.dumps(target)}}}"]
    if tls is not None:
        files_here = {key: str(Path(file).absolute()) for key, file in tls.files.items()}
        flags.append(f"load.tls={json.dumps(files_here)}")
    document = apply_overrides(load_document(source), [*overrides, *flags])
    experiment = document.parse(Experiment)
    beside = source.parent if isinstance(source, Path) else PACKAGED
    tables = {key: load_table(_table_file(document, key, entry, beside)) for key, entry in experiment.data.items()}
    load_spec.check(experiment.load, tables, lambda loc, *why: document.error(("load", *loc), *why))
    descriptors = _descriptors(document, experiment, beside, tables)
    _check_processes(document, experiment)
    faults = tuple(_fault(document, index, entry, experiment) for index, entry in enumerate(experiment.faults))
    windows = tuple(_planned_fault(document, index, entry) for index, entry in enumerate(experiment.faults))
    phases = _phases(document, experiment, windows)
    return Resolved(
        experiment=experiment,
        source=str(source),
        sha256=_sha256(document.text, [*overrides, *flags]),
        faults=faults,
        windows=windows,
        phases=tuple(phases),
        objectives=tuple(
            _objective(document, index, entry, beside, {phase.name for phase in phases})
            for index, entry in enumerate(experiment.objectives)
        ),
        tables=tables,
        access=_access(document, experiment, beside),
        descriptors=descriptors,
    )


def _access(document: Document, experiment: Experiment, beside: Path | Traversable) -> Access:
    load, found = experiment.load, dict[str, str]()
    for key, name in load.tls.files.items() if load.tls else ():
        path = _first_file(name, beside)
        if path is None:
            raise document.error(("load", "tls", key), "a PEM file beside the experiment", f"no file {name!r} there")
        found[key] = str(Path(str(path)).absolute())
    security = Security(**found) if load.tls else None
    try:
        if security is not None:
            security.context()
    except InputError as error:
        raise document.error(("load", "tls"), "PEM files that belong together", error.message) from error
    named = load.authority or (experiment.target.address or "" if security else "")
    return Access(security, named, tuple(load.metadata.items()))


def _sha256(text: str, overrides: Sequence[str]) -> str:
    """Of the text as it was read, and of each override on a line of its own: without any, that of the file."""
    return hashlib.sha256("\n".join([text, *overrides]).encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an experiment file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema(by_alias=True)}


def _table_file(document: Document, key: str, entry: DataSource, beside: Path | Traversable) -> Path | Traversable:
    name = entry.csv or entry.jsonl or ""
    found = _first_file(name, beside, PACKAGED_DATA)
    if found is None:
        loc = ("data", key, "csv" if entry.csv else "jsonl")
        raise document.error(loc, "a file beside the experiment or a packaged one", f"no file {name!r} there")
    return found


def _descriptors(
    document: Document,
    experiment: Experiment,
    beside: Path | Traversable,
    tables: Mapping[str, Sequence[Mapping[str, str]]],
) -> bytes:
    """The load's FileDescriptorSet, by which its calls are checked already; empty where the target is to be asked."""
    name = experiment.load.protoset
    if name is None:
        return b""
    loc = ("load", "protoset")
    try:
        found = (beside / name).read_bytes()
        described = Descriptors(found)
    except (OSError, NoDescriptorsError) as error:
        raise document.error(loc, "a FileDescriptorSet beside the experiment", f"{name}: {error}") from error
    compile_calls(experiment.load, described, tables, lambda loc, *why: document.error(("load", *loc), *why))
    return found


def _first_file(name: str, *folders: Path | Traversable) -> Path | Traversable | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _check_processes(document: Document, experiment: Experiment) -> None:
    for name in experiment.processes:
        if name in _TAKEN:
            raise document.error(("processes", name), f"another name: every run has a process {name!r}")
        if re.search(r"-\d+$", name):
            raise document.error(("processes", name), "a name that does not end in a number: its processes' names do")
    told = " ".join(part for entry in experiment.processes.values() for part in entry.command)
    if experiment.checks and "{history}" not in told:
        raise document.error(
            ("checks", 0), "a process with `{history}` in its `command`", "checks read what processes wrote there"
        )


def _fault(document: Document, index: int, entry: FaultEntryBase, experiment: Experiment) -> Fault[Any]:
    fault = entry.build()
    aimed_at = fault.needs_process()
    if aimed_at is None:
        if problem := fault.problem_with(1):
            raise document.error(("faults", index, fault.kind), problem)
        return fault
    counts = {name: entry.count for name, entry in experiment.processes.items()}
    if aimed_at not in counts and experiment.target.command is None:
        raise document.error(
            ("faults", index, fault.kind), "`target.command`", "a run touches only processes that it started itself"
        )
    counts[SERVER] = 1
    if aimed_at not in counts:
        raise document.error(
            ("faults", index, fault.kind, "target"), f"a process the run starts: {', '.join(sorted(counts))}"
        )
    if fault.on_paths and not experiment.processes[aimed_at].is_proxied:
        raise document.error(
            ("faults", index, fault.kind, "target"),
            f"an entry with `{{proxy}}` in its `command`; {aimed_at!r} has none",
        )
    if problem := fault.problem_with(counts[aimed_at]):
        raise document.error(("faults", index, fault.kind), problem)
    return fault


def _planned_fault(document: Document, index: int, entry: FaultEntryBase) -> PlannedFault:
    try:
        length = entry.build().window(entry.for_)
    except ValueError as error:
        raise document.error(("faults", index, "for"), str(error)) from error
    if length is None:
        raise document.error(("faults", index), "`for: <duration>`", "this kind of fault lasts until it is healed")
    return PlannedFault(entry.id, entry.at.total_seconds(), length.total_seconds())


def _phases(document: Document, experiment: Experiment, windows: Sequence[PlannedFault]) -> list[PlannedPhase]:
    ids = [window.id for window in windows]
    for index, fault_id in enumerate(ids):
        if fault_id in ids[:index]:
            raise document.error(("faults", index, "id"), "an id no other fault has", "it is the second of that name")
    try:
        return timeline.resolve(
            baseline_s=experiment.phases.baseline.total_seconds(),
            recovery_s=experiment.phases.recovery.total_seconds(),
            within_s=experiment.recovery.within.total_seconds(),
            faults=windows,
            load_s=experiment.load.length_s,
        )
    except timeline.TimelineError as error:
        loc = ("faults", error.fault_index, error.key) if error.fault_index >= 0 else (error.key,)
        raise document.error(loc, error.expected, "move the fault, or change the lengths under `phases`") from error


def _objective(
    document: Document, index: int, entry: str | ObjectiveEntry, beside: Path | Traversable, known: set[str]
) -> JudgedObjective:
    full = ObjectiveEntry.model_validate({"openslo": entry}) if isinstance(entry, str) else entry
    loc = ("objectives", index) if isinstance(entry, str) else ("objectives", index, "openslo")
    found = _first_file(full.openslo, beside, PACKAGED_OBJECTIVES)
    if found is None:
        packaged = ", ".join(sorted(item.name for item in PACKAGED_OBJECTIVES.iterdir() if item.name.endswith(".yaml")))
        raise document.error(
            loc, "an OpenSLO file beside the experiment or a packaged one", f"the packaged ones are: {packaged}"
        )
    for position, pattern in enumerate(full.phases):
        if not matching(pattern, known):
            raise document.error(
                ("objectives", index, "phases", position), f"one of the run's phases: {', '.join(sorted(known))}"
            )
    objective = load_objective(found)
    named = replace(objective, name=full.name or objective.name, target=full.target or objective.target)
    chosen = tuple(phase for pattern in full.phases for phase in matching(pattern, sorted(known)))
    return JudgedObjective(named, chosen, full.pooled)
