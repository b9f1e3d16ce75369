"""What every fault is: made from its settings, undoable by another process, proven by what it did to traffic."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from holdfast_chaos.companions import members
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.proof import Evidence, Proof
from holdfast_chaos.toxiproxy import Toxiproxy
from holdfast_slo.documents import Strict

SpecT = TypeVar("SpecT", bound=Strict)


class FaultError(Exception):
    """A fault could not be injected or healed; the message says which and why."""


class Availability(StrEnum):
    """Whether this machine can do a kind of fault."""

    SUPPORTED = "supported"
    NEEDS_PRIVILEGE = "needs-privilege"
    NOT_HERE = "not-here"


@dataclass(frozen=True, slots=True)
class Support:
    """The answer of `Fault.supported`; `why` says what is missing and how to get it."""

    availability: Availability
    why: str = ""


@dataclass(frozen=True)
class FaultContext:
    """What faults act on."""

    toxiproxy: Toxiproxy | None = None
    proxies: Sequence[str] = ()
    """Every proxy in front of the target: that of the load first, and one for each process with a path of its own,
    called as the process is."""
    processes: Mapping[str, ManagedProcess] = field(default_factory=dict)
    """What the run started and faults may aim at, by name."""
    seed: int = 0
    """The run's, which chooses among several."""

    def aimed_at(self, name: str, fault: str) -> list[ManagedProcess]:
        """The process of that name, or all of an entry.

        Raises:
            FaultError: there is none.
        """
        found = members(name, self.processes)
        if not found:
            known = ", ".join(sorted(self.processes)) or "none (it runs at an address of its own)"
            raise FaultError(f"{fault}: no process {name!r} that this run started; there are: {known}")
        return [self.processes[each] for each in found]


class Fault(ABC, Generic[SpecT]):
    """One fault of an experiment.

    The order is: `undo_record` (journalled) → `inject` → `heal` → `is_healed`. Healing may be repeated, and may come
    without an injection, because a crash can fall between any two of them.
    """

    kind: ClassVar[str]
    """Its key in an experiment."""

    model: ClassVar[type[Strict]]
    """Its settings in an experiment."""

    stops_target: ClassVar[bool] = False
    """Whether the processes it aims at end by it, as they should."""

    on_paths: ClassVar[bool] = False
    """Whether it acts on the connections of the processes it aims at, rather than on the processes."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Counters of the target, as plain selectors, that its proof asks for: see `proof.Evidence.counters`."""

    def __init__(self, id: str, spec: SpecT) -> None:  # noqa: A002  # the experiment's own word
        self.id = id
        self.spec = spec

    @classmethod
    @abstractmethod
    def supported(cls) -> Support:
        """Whether this machine can do it."""

    def window(self, given: timedelta | None) -> timedelta | None:
        """How long it lasts, where the experiment says `for: given`; None where it must be said and was not.

        Raises:
            ValueError: `given` contradicts its settings; the text says what was expected.
        """
        return given

    def needs_process(self) -> str | None:
        """Name of the process it aims at, or of an entry of several, if it aims at any."""
        return None

    def problem_with(self, count: int) -> str | None:
        """What was expected instead, where its settings do not fit an entry of so many processes."""
        del count
        return None

    @abstractmethod
    def undo_record(self, context: FaultContext) -> dict[str, Any]:
        """What another process needs to undo it: plain JSON values, with `kind`. Journalled before `inject`."""

    @abstractmethod
    def inject(self, context: FaultContext) -> None:
        """Puts it in force, and returns once it is.

        Raises:
            FaultError, ToxiproxyError, ProcessError: it could not be.
        """

    @abstractmethod
    def heal(self, context: FaultContext) -> None:
        """Takes it back. Repeatable.

        Raises:
            FaultError, ToxiproxyError, ProcessError: it may still be in force.
        """

    @abstractmethod
    def is_healed(self, context: FaultContext) -> bool:
        """Whether nothing of it is left, as read from what it acted on."""

    @abstractmethod
    def prove(self, evidence: Evidence) -> Proof:
        """Decides from traffic and the operating system whether it bit."""

    @classmethod
    @abstractmethod
    def undo(cls, record: Mapping[str, Any]) -> str | None:
        """Undoes it from what was journalled, in any process. Repeatable.

        Returns:
            what was undone, as a sentence; None if nothing was left of it.

        Raises:
            FaultError, ToxiproxyError: it may still be in force.
        """
