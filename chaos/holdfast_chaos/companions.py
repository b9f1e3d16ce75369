"""Further processes of an experiment, beside its target: what the target serves, such as a fleet of agents.

The run starts them once target and Toxiproxy are up, and journals, watches, scrapes and stops them as it does the
target. Those of one entry are called `name-0`, `name-1` and so on. Pure: what they are, and what their commands say.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from holdfast_slo.documents import Strict
from holdfast_slo.durations import Duration

PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
"""`{name}` in a command; a program's own braces look otherwise."""

GIVEN: Final = ("data", "history", "index", "proxy", "seed", "target")
"""Placeholders that the run fills in for a process: a fresh folder that all share, the folder for histories, the number
of the process among those of its entry, the faulted path to the target, the run's seed, and the untouched path."""

COUNT_MAX: Final = 100
"""Processes of one entry: more than one machine runs beside what it measures."""


class Companion(Strict):
    """One entry of `processes`.

    In `command` and `metrics`, `{proxy}` is the target through Toxiproxy, by a proxy of the process's own, `{target}`
    the target itself, `{index}` the number of the process, `{seed}` the run's, `{data}` a fresh folder that all share
    and `{history}` the folder whose files `checks` read. A name out of `values` is its value; every other `{name}` a
    loopback address of the process's own, which stays the same when it is restarted.
    """

    command: list[str] = Field(min_length=1)
    count: int = Field(1, ge=1, le=COUNT_MAX)
    metrics: str | None = Field(None, pattern=r"^https?://")
    values: dict[Annotated[str, Field(pattern=r"^[a-z_]+$")], str | int | float] = Field({})
    ready_within: Duration = timedelta(seconds=30)
    stop_within: Duration = timedelta(seconds=10)

    @field_validator("values")
    @classmethod
    def _no_given_name(cls, values: dict[str, str | int | float]) -> dict[str, str | int | float]:
        if taken := sorted(set(values) & set(GIVEN)):
            raise ValueError(f"names other than {', '.join(GIVEN)}, which the run fills in: rename {taken[0]!r}")
        return values

    @model_validator(mode="after")
    def _values_used(self) -> "Companion":
        if unused := sorted(set(self.values) - set(self._named())):
            raise ValueError(f"`{{{unused[0]}}}` somewhere in `command` or `metrics`, or no value of that name")
        return self

    @property
    def addresses(self) -> list[str]:
        """Names of the placeholders that are loopback addresses, in order of appearance."""
        return [name for name in self._named() if name not in self.values and name not in GIVEN]

    @property
    def is_proxied(self) -> bool:
        """Whether each of its processes is told of a proxy of its own."""
        return "proxy" in self._named()

    def names(self, entry: str) -> list[str]:
        """What its processes are called."""
        return [f"{entry}-{index}" for index in range(self.count)]

    def filled(self, text: str, given: Mapping[str, str]) -> str:
        """The text with each placeholder's value in its place; `given` has those of the run and the addresses."""
        values = {**{name: str(value) for name, value in self.values.items()}, **given}
        return PLACEHOLDER.sub(lambda found: values[found[1]], text)

    def _named(self) -> list[str]:
        return list(dict.fromkeys(PLACEHOLDER.findall(" ".join([*self.command, self.metrics or ""]))))


def members(name: str, processes: Iterable[str]) -> list[str]:
    """The processes that a fault means by a name: that one, or all of an entry, by their numbers."""
    of_entry = re.compile(rf"{re.escape(name)}-(\d+)")
    found = [(int(match[1]), match[0]) for process in processes if (match := of_entry.fullmatch(process))]
    return [name] if name in processes else [process for _, process in sorted(found)]
