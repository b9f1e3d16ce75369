"""Carries an experiment out: brings the stand up, drives the load through the phases, injects and heals each fault.

What it leaves is evidence, not opinion: `judgement` decides what it means. Three rules hold on every way out, be it the
end, an error, an interrupt or an abort rule: what was injected is healed, what was started is stopped, and both are in
the journal.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast_chaos import prometheus_server, timeline
from holdfast_chaos.abort import AbortWatch
from holdfast_chaos.companions import members
from holdfast_chaos.events import on_client_metrics
from holdfast_chaos.experiment import Resolved
from holdfast_chaos.faults import Fault, FaultContext, FaultError
from holdfast_chaos.journal import Journal
from holdfast_chaos.probe import PATH_INTERVAL_S, ControlProbe, ProbeSample, stop_all
from holdfast_chaos.processes import ManagedProcess, ProcessError, ProcessIdentity, ProcessLife
from holdfast_chaos.progress import Progress, Scene
from holdfast_chaos.proof import Sighting
from holdfast_chaos.samples import EXTENDED, needs, unmet
from holdfast_chaos.stand import PROXY_NAME, StandBuilder
from holdfast_chaos.timeline import PlannedFault, PlannedPhase
from holdfast_chaos.toxiproxy import ToxiproxyError
from holdfast_loadtests.engine import LoadError, LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.summary import LoadSummary
from holdfast_slo.evaluate import PhaseWindow
from holdfast_slo.openslo import Objective
from holdfast_slo.phases import BASELINE
from holdfast_slo.prometheus import Prometheus
from holdfast_slo.verdict import Reason

TICK_S = 0.1
HEAL_WITHIN_S = 30.0
LAST_SCRAPE_WITHIN_S = 5.0


class EndEarly(Exception):  # noqa: N818  # no error: the run ends as it should, only sooner
    """The run cannot or must not go on; carries the reason."""

    def __init__(self, code: str, subject: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code=code, subject=subject, message=message)


@dataclass
class FaultRecord:
    """What was done with one fault, in unix seconds."""

    fault: Fault[Any]
    injected_s: float | None = None
    healed_s: float | None = None
    in_force_s: float | None = None
    """When its injection was done."""
    heal_began_s: float | None = None
    connected: set[str] = field(default_factory=set)
    """The processes it aims at that had a connection by a path of their own when it began or ended."""


@dataclass
class Evidence:
    """Everything a run found, for others to judge."""

    started_s: float
    windows: list[PhaseWindow] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    control: Sequence[ProbeSample] = ()
    load: LoadSummary | None = None
    reasons: list[Reason] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    target_address: str = ""
    sightings: list[Sighting] = field(default_factory=list)
    """The processes that a fault aims at, ten times a second while it is in force."""
    paths: dict[str, Sequence[ProbeSample]] = field(default_factory=dict)
    """Probes along the paths of processes whose connections a fault aims at, by process."""

    def window(self, phase: str) -> PhaseWindow | None:
        """The first window of that name."""
        return next((window for window in self.windows if window.name == phase), None)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where metrics are read: the run's own Prometheus, which alone scrapes the load, and the user's if given."""

    own: Prometheus
    given: Prometheus | None = None

    def of(self, objective: Objective) -> Prometheus:
        """The one that has an objective's metrics."""
        return self.own if self.given is None or on_client_metrics(objective) else self.given


BaselineGate = Callable[[Evidence, Sources], Sequence[Reason]]
"""Says why the baseline does not hold; empty when it does."""

Judge = Callable[[Evidence, Sources], None]
"""Reads from Prometheus, while it still runs, what the verdict will need."""


class Runner:
    """One run of one experiment. `run` may be called once."""

    def __init__(
        self, resolved: Resolved, out: Path, journal: Journal, progress: Progress, given: Prometheus | None = None
    ) -> None:
        self._resolved = resolved
        self._out = out
        self._journal = journal
        self._progress = progress
        self._given = given
        self._scene = Scene()
        self._needs = needs(resolved.objectives)
        self._abort = AbortWatch(resolved.experiment.abort)
        self._open_phase: tuple[str, float] | None = None
        self._down_on_purpose: Sequence[str] = ()
        self._watched: Sequence[str] = ()
        self._processes: Mapping[str, ManagedProcess] = {}
        self.evidence = Evidence(started_s=time.time(), faults=[FaultRecord(fault) for fault in resolved.faults])

    def run(self, stack: ExitStack, gate: BaselineGate, judge: Judge) -> None:
        """Runs to the end, or to the reason for an early one, which is added to the evidence.

        Args:
            stack: takes everything down that is brought up here; the caller closes it.
            gate: asked at the end of the baseline; any reason it gives ends the run before anything is injected.
            judge: called once the load has ended and its last counters were scraped.

        Raises:
            InputError: a tool is missing or nothing answers at the target; nothing is left behind.
            ProcessError: something did not start.
        """
        self._progress.say("starting the target and Toxiproxy")
        builder = StandBuilder(self._out, self._journal, stack)
        self._stand = builder.build(self._resolved)
        self._processes = self._stand.processes
        self.evidence.versions = self._stand.versions
        self.evidence.target_address = self._stand.target_address
        self._load = self._start_load(stack)
        self._prometheus = builder.start_prometheus(self._jobs())
        self._sources = Sources(self._prometheus, self._given)
        probe = ControlProbe(self._stand.target_address, access=self._resolved.access)
        stack.callback(probe.stop)
        paths = self._probe_paths()
        stack.callback(stop_all, paths.values())
        try:
            self._conduct(gate)
        except EndEarly as end:
            if end.reason not in self.evidence.reasons:
                self.evidence.reasons.append(end.reason)
        except LoadError as error:  # what was injected is healed, and Prometheus knows of the calls until then
            self.evidence.reasons.append(Reason(code="LOAD_FAILED", subject="load", message=str(error)))
        except KeyboardInterrupt:
            message = "ended by the user before its last phase was over"
            self.evidence.reasons.append(Reason(code="INTERRUPTED", subject="run", message=message))
        self._leave_phase()
        stop_all([probe, *paths.values()])
        self.evidence.control = probe.samples()
        self.evidence.paths = {name: each.samples() for name, each in paths.items()}
        self._end_load(judge)

    def lives(self) -> dict[str, tuple[ProcessLife, ...]]:
        """The lives of the processes that faults may aim at, by name."""
        return {name: process.lives for name, process in self._processes.items()}

    # ── the course of a run

    def _conduct(self, gate: BaselineGate) -> None:
        self._warm_up()
        plan = {phase.name: phase for phase in self._resolved.phases}
        self._phase(plan[BASELINE])
        self._leave_phase()
        reasons = gate(self.evidence, self._sources)
        if reasons:
            self.evidence.reasons.extend(reasons[1:])
            raise EndEarly(reasons[0].code, reasons[0].subject, reasons[0].message)
        windows = {window.id: window for window in self._resolved.windows}
        by_phase = {windows[record.fault.id].phase: record for record in self.evidence.faults}
        for phase in self._resolved.phases[1:]:
            if phase.name in by_phase:
                self._fault(by_phase[phase.name], windows[by_phase[phase.name].fault.id])
            else:
                self._phase(phase)

    def _warm_up(self) -> None:
        """Waits until both jobs are scraped, so that no judged second lacks metrics."""
        self._scene.note = "waiting for the first scrape (Prometheus takes about 5 s)"
        self._enter(timeline.WARMUP, self._resolved.experiment.phases.warmup.total_seconds())
        deadline_s = time.monotonic() + prometheus_server.FIRST_SCRAPE_WITHIN_S
        for job in self._jobs():
            while not prometheus_server.scrapes(self._prometheus, job):
                if time.monotonic() > deadline_s:
                    raise EndEarly("METRICS_MISSING", job, f"Prometheus could not scrape {self._jobs()[job]}")
                self._tick()
        self._hold(self._resolved.experiment.phases.warmup.total_seconds())

    def _phase(self, phase: PlannedPhase) -> None:
        """A stretch without a fault, extended until it has its samples."""
        length_s = phase.end_s - phase.start_s
        self._enter(phase.name, length_s)
        self._hold(length_s)
        if phase.name not in EXTENDED:
            return
        latest_s = time.monotonic() + self._resolved.experiment.phases.extend_up_to.total_seconds()
        while (missing := unmet(self._needs, phase.name, self._load.snapshot().counts)) and time.monotonic() < latest_s:
            self._scene.note = f"waiting for samples of {missing[0].objective.name}"
            self._tick()

    def _fault(self, record: FaultRecord, window: PlannedFault) -> None:
        fault, context = record.fault, self._fault_context()
        self._journal.write("intent", fault=fault.id, kind=fault.kind, undo=fault.undo_record(context))
        self._enter(window.phase, window.for_s)
        aimed_at = members(fault.needs_process() or "", self._processes)
        self._watched = () if fault.on_paths else aimed_at
        self._down_on_purpose = aimed_at if fault.stops_target else ()
        try:
            record.connected |= self._connected(fault, aimed_at)
            record.injected_s = time.time()
            self._inject(fault, context)
            record.in_force_s = time.time()
            self._hold(window.for_s)
            record.connected |= self._connected(fault, aimed_at)
        except EndEarly as end:
            self.evidence.reasons.append(end.reason)  # the heal may fail as well, and must not hide it
            raise
        finally:
            self._watched = ()
            self._heal(record, context)
            self._down_on_purpose = ()

    def _connected(self, fault: Fault[Any], aimed_at: Sequence[str]) -> set[str]:
        if not fault.on_paths:
            return set()
        paths = self._stand.paths
        return {name for name in aimed_at if name in paths and self._processes[name].is_connected_to(paths[name])}

    def _inject(self, fault: Fault[Any], context: FaultContext) -> None:
        try:
            fault.inject(context)
        except (FaultError, ToxiproxyError, ProcessError) as error:
            raise EndEarly("FAULT_UNPROVEN", fault.id, f"it could not be injected: {error}") from error
        self._journal.write("injected", fault=fault.id)
        self._progress.say(f"injected {fault.id} ({fault.kind})")

    def _heal(self, record: FaultRecord, context: FaultContext) -> None:
        record.heal_began_s = time.time()
        try:
            self._journal.write("heal_started", fault=record.fault.id)
        finally:  # a journal that cannot be written is no reason to leave a fault in force
            self._take_back(record, context)

    def _take_back(self, record: FaultRecord, context: FaultContext) -> None:
        """Heals and makes sure of it; what is not healed stays outstanding in the journal, for the clean-up."""
        fault = record.fault
        try:
            fault.heal(context)
            healed = _within(HEAL_WITHIN_S, lambda: fault.is_healed(context))
        except ProcessError as error:
            self._journal.write("healed", fault=fault.id)  # a process that is down does no harm to anybody else
            raise EndEarly("TARGET_DIED", fault.id, f"it did not come back after {fault.kind}: {error}") from error
        except (FaultError, ToxiproxyError) as error:
            self._journal.write("heal_failed", fault=fault.id, error=str(error))
            raise EndEarly("FAULT_UNPROVEN", fault.id, f"its heal failed: {error}") from error
        if not healed:
            self._journal.write("heal_failed", fault=fault.id, error="still in force")
            raise EndEarly("FAULT_UNPROVEN", fault.id, f"it was still in force {HEAL_WITHIN_S:g} s after its heal")
        record.healed_s = time.time()
        self._journal.write("healed", fault=fault.id)
        self._progress.say(f"healed   {fault.id}")

    def _probe_paths(self) -> dict[str, ControlProbe]:
        """Probes along the path of each process of the entries whose connections a fault aims at."""
        entries = {fault.needs_process() for fault in self._resolved.faults if fault.on_paths} - {None}
        names = {name for entry in entries for name in members(str(entry), self._stand.paths)}
        access = self._resolved.access
        return {name: ControlProbe(self._stand.paths[name], PATH_INTERVAL_S, access) for name in sorted(names)}

    # ── load

    def _start_load(self, stack: ExitStack) -> LoadRun:
        experiment = self._resolved.experiment
        direct = experiment.load.via == "direct"
        plan = LoadPlan(
            target=self._stand.target_address if direct else self._stand.proxy_address,
            # Warm-up and phases that wait for samples take time that no experiment can foresee: `for` is the least.
            spec=experiment.load.without_end(),
            tables=self._resolved.tables,
            seed=experiment.seed,
            descriptors=self._resolved.descriptors,
            first_phase=timeline.WARMUP,
            security=self._resolved.access.security,
            authority=self._resolved.access.authority,
            metadata=self._resolved.access.metadata,
        )
        self._progress.say(f"starting the load ({'direct' if direct else 'through Toxiproxy'})")
        load = LoadRun.start(plan, self._out)
        identity = ProcessIdentity.of(load.pid)
        stack.callback(self._journal.write, "process_stopped", name="load", identity=identity)
        stack.callback(load.close)
        self._journal.write("process_started", name="load", identity=identity, command=["load worker"])
        return load

    def _end_load(self, judge: Judge) -> None:
        """Lets calls in flight finish and the last counters be scraped, then has the run judged."""
        self._scene.note = "finishing calls in flight"
        self._progress.show(self._scene)
        try:
            self.evidence.load = self._load.finish()
        except LoadError as error:
            self.evidence.reasons.append(Reason(code="LOAD_FAILED", subject="load", message=str(error)))
        time.sleep(3 * prometheus_server.SCRAPE_INTERVAL_S)  # two scrapes of counters that no longer move
        judge(self.evidence, self._sources)

    # ── time

    def _enter(self, name: str, length_s: float) -> None:
        self._leave_phase()
        since_s = self._load.set_phase(name)
        self._open_phase = (name, since_s)
        self._journal.write("phase", name=name)
        self._scene.phase, self._scene.phase_length_s, self._scene.phase_ends_s = name, length_s, since_s + length_s

    def _leave_phase(self) -> None:
        if self._open_phase is not None:
            name, start_s = self._open_phase
            self.evidence.windows.append(PhaseWindow(name, start_s, time.time()))
            self._open_phase = None

    def _hold(self, length_s: float) -> None:
        end_s = time.monotonic() + length_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._tick(min(TICK_S, left_s))

    def _tick(self, length_s: float = TICK_S) -> None:
        """Waits a moment, with an eye on everything that would make going on pointless or harmful."""
        time.sleep(length_s)
        if not self._load.alive():
            raise EndEarly("LOAD_FAILED", "load", f"the load generator ended by itself; see {self._out / 'logs'}")
        for process in self._stand.own:
            if not process.alive():
                raise EndEarly("RUN_FAILED", process.name, f"it ended by itself with code {process.returncode}")
        for name, process in self._processes.items():
            if name not in self._down_on_purpose and not process.alive():
                raise EndEarly(
                    "TARGET_DIED", name, f"{name} ended by itself with code {process.returncode}; no fault killed it"
                )
        self._look()
        snapshot = self._load.snapshot()
        self._scene.follow(snapshot)
        self._progress.show(self._scene)
        rule = self._abort.broken(snapshot, time.monotonic())
        if rule is not None:
            raise EndEarly(
                "ABORTED", "abort", f"{rule.when} for {rule.for_.total_seconds():g} s: the run was ended, faults healed"
            )

    def _look(self) -> None:
        now_s = time.time()
        self.evidence.sightings.extend(
            Sighting(now_s, name, self._processes[name].is_stopped()) for name in self._watched
        )

    def _jobs(self) -> dict[str, str]:
        jobs = {prometheus_server.LOAD_JOB: f"http://{self._load.metrics_address}/metrics"}
        if self._stand.target_metrics:
            jobs[prometheus_server.TARGET_JOB] = self._stand.target_metrics
        jobs.update(self._stand.companion_metrics)
        return jobs

    def _fault_context(self) -> FaultContext:
        return FaultContext(
            toxiproxy=self._stand.toxiproxy,
            proxies=(PROXY_NAME, *self._stand.paths),
            processes=self._stand.processes,
            seed=self._resolved.experiment.seed,
        )


def _within(limit_s: float, condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(TICK_S)
    return True
