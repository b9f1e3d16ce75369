"""The `load:` part of an experiment: who calls what, how often, and which answers are right.

    load:
      arrivals: [{rate: 40/s}]                    # open model: calls are due whether or not earlier ones were answered
      scenarios:
        - name: life
          rows: agents                            # holds one row of the table `agents` for as long as it runs
          steps:
            - {call: pkg.Registry/Register, request: {id: "{{agents.id}}"}, capture: {fence: agent.fence}}
            - {call: pkg.Registry/Leave, request: {id: "{{agents.id}}", fence: "{{fence}}"}, after: 1s, always: true}

`check` finds what only the tables and the scenarios together can show.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from holdfast.cli import InputError
from holdfast_loadtests.access import Tls
from holdfast_loadtests.codes import CODE_NAMES
from holdfast_loadtests.hints import nearest
from holdfast_loadtests.step_types import Metadata, PaceOption, Request
from holdfast_loadtests.templates import BUILT_IN, names_in, problem_in
from holdfast_slo.documents import Strict
from holdfast_slo.durations import Duration

RATE_MAX_PER_S: Final = 100_000.0
CONCURRENCY_MAX: Final = 2_000
"""Users of a pool, each with a connection of its own unless `connections` says otherwise: with more, one process is the
wrong tool."""
CONCURRENCY_DEFAULT: Final = 100
TRACE_COLUMN: Final = "at_s"
TRACE_MAX_S: Final = 7 * 24 * 3600.0
"""A replayed trace is at most a week long."""
_PER_S: Final = {"s": 1.0, "m": 1 / 60, "h": 1 / 3600}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([smh])")

Loc = tuple[str | int, ...]
Blame = Callable[[Loc, str, str], Exception]
"""Makes the error about the value at a place inside `load`, from what was expected and a hint."""


def _rate(value: object) -> float:
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a rate like '40/s', '600/m' or '1000/h', got {value!r}")
    per_s = float(match[1]) * _PER_S[match[2]]
    if not 0 < per_s <= RATE_MAX_PER_S:
        raise ValueError(f"expected a rate above 0 and at most {RATE_MAX_PER_S:g}/s, got {value!r}")
    return per_s


def _code(name: str) -> str:
    if name not in CODE_NAMES:
        raise ValueError(f"expected the name of a gRPC code, got {name!r}; {nearest(name, CODE_NAMES)}")
    return name


def _rate_text(per_s: float) -> str:
    # All digits: the worker reads this back and must find the very same schedule.
    return f"{Decimal(per_s):f}/s"


Rate = Annotated[
    float,
    BeforeValidator(_rate),
    PlainSerializer(_rate_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*/\s*[smh]$", "examples": ["40/s", "600/m"]}),
]
Call = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*/[A-Za-z_]\w*$", examples=["pkg.Service/Method"])]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][\w-]{0,62}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,62}$")]
Code = Annotated[str, AfterValidator(_code), WithJsonSchema({"type": "string", "enum": list(CODE_NAMES)})]


class Arrivals(Strict):
    """A stretch of the open model: scenarios fall due at `rate` for `for`, evenly or as a Poisson process.

    With `to` the rate grows or falls steadily from `rate` to that one. A stretch with `trace` has no rate: it replays
    the times in the column `at_s` of that table, in seconds from its beginning.
    """

    rate: Rate | None = None
    to: Rate | None = None
    trace: str | None = None
    for_: Duration | None = Field(default=None, alias="for")
    process: Literal["constant", "poisson"] = "constant"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.rate is None) == (self.trace is None):
            raise ValueError("either `rate` or `trace`")
        if self.trace is not None and (self.to is not None or self.process != "constant"):
            raise ValueError("nothing but `for` beside `trace`: it has its own times")
        if self.to is not None and self.for_ is None:
            raise ValueError("`for` beside `to`: how long the rate takes to get there")
        return self

    @property
    def rates_per_s(self) -> tuple[float, float]:
        """The rate at the beginning and at the end; both 0 where a trace is replayed."""
        start = self.rate or 0.0
        return start, start if self.to is None else self.to


class Step(Strict):
    """One call of a scenario.

    Without `after` it is due as soon as the step before was answered; with it, that long after the scenario was due,
    however late the step before ended. A step whose answer is not in `expect`, or fails an `assert`, ends the
    scenario but for `always` steps; a step that uses what was not captured is left out. `until_definite` repeats a
    call that got no definite answer for at most so long, with the same request. `receive` ends a stream, as OK, after
    so many messages. `messages` may be empty; with `pace` they are sent one by one: each when the one before was
    answered (`on_answer`), or at an interval. `metadata` goes with the call.
    """

    call: Call
    request: Request | None = None
    messages: list[Request] | None = Field(default=None, max_length=1000)
    pace: PaceOption | None = None
    metadata: Metadata = Field(default_factory=dict)
    after: Duration | None = None
    receive: int | None = Field(default=None, ge=1, le=100_000)
    deadline: Duration | None = None
    capture: dict[Identifier, str] = Field(default_factory=dict)
    expect: list[Code] = Field(default_factory=lambda: ["OK"], min_length=1)
    asserts: Request = Field(default_factory=dict, alias="assert")
    always: bool = False
    until_definite: Duration | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.request is not None and self.messages is not None:
            raise ValueError("either `request` (one message) or `messages` (a stream of them), not both")
        return self

    @property
    def bodies(self) -> Sequence[Request]:
        """The messages to send."""
        return [self.request or {}] if self.messages is None else self.messages

    @property
    def service(self) -> str:
        """Full name of the service."""
        return self.call.partition("/")[0]

    @property
    def method(self) -> str:
        """Name of the method alone."""
        return self.call.partition("/")[2]


class Scenario(Strict):
    """Steps in order, run by one user; with `rows`, holding one row of that table for itself meanwhile."""

    name: Name
    weight: float = Field(default=1.0, gt=0, le=1e6)
    rows: str | None = None
    steps: list[Step] = Field(min_length=1, max_length=100)

    @property
    def table(self) -> str | None:
        """The table a row is drawn from: `rows`, else the one its templates read (shared with others)."""
        return self.rows or next(iter(self.tables_read()), None)

    def tables_read(self) -> list[str]:
        """Tables that templates name, in order of appearance."""
        names = (name for step in self.steps for value in (step.bodies, step.asserts) for name in names_in(value))
        return list(dict.fromkeys(name.partition(".")[0] for name in names if "." in name))


class MixEntry(Strict):
    """A scenario of one step, written short."""

    call: Call
    weight: float = Field(default=1.0, gt=0, le=1e6)
    request: Request = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict)
    deadline: Duration | None = None
    expect: list[Code] = Field(default_factory=lambda: ["OK"], min_length=1)


class LoadSpec(Strict):
    """The whole load: open (`arrivals`) or closed model (`users`), over scenarios and single calls by weight.

    Without `tls` it is plain text; `tls: {}` trusts the system's CAs. The server's certificate must name `authority`,
    or else the host of the target's address (127.0.0.1 where the run starts the target). `metadata` goes with every
    call; values of names that end in `-bin` are in base64. `protoset` is a file with a FileDescriptorSet, beside the
    experiment, for targets without reflection. With `compression` requests are compressed; answers may be anyway.
    """

    arrivals: list[Arrivals] | None = Field(default=None, min_length=1, max_length=1000)
    users: int | None = Field(default=None, ge=1, le=CONCURRENCY_MAX)
    scenarios: list[Scenario] = Field(default_factory=list)
    mix: list[MixEntry] = Field(default_factory=list)
    deadline: Duration = timedelta(seconds=2)
    connections: int | None = Field(default=None, ge=1, le=CONCURRENCY_MAX)
    concurrency: int | None = Field(default=None, ge=1, le=CONCURRENCY_MAX)
    via: Literal["proxy", "direct"] = "proxy"
    tls: Tls | None = None
    authority: str = Field(default="", pattern=r"^[!-~]*$")
    metadata: Metadata = Field(default_factory=dict)
    protoset: str | None = None
    compression: Literal["gzip"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.arrivals is None) == (self.users is None):
            raise ValueError("either `arrivals` (open model) or `users` (closed model)")
        if not self.scenarios and not self.mix:
            raise ValueError("at least one of `scenarios` and `mix`: there is nothing to call")
        if self.users is not None and self.concurrency not in (None, self.users):
            raise ValueError("no `concurrency` beside `users`: the closed model's users are its concurrency")
        if any(stretch.for_ is None for stretch in (self.arrivals or [])[:-1]):
            raise ValueError("`for` on every stretch of `arrivals` but the last, which may go on until the run ends")
        if any(stretch.for_ == timedelta() for stretch in self.arrivals or []):
            raise ValueError("stretches of `arrivals` that last longer than 0s")
        return self

    @property
    def length_s(self) -> float | None:
        """How long arrivals last; None where they go on until the run ends."""
        lengths = [stretch.for_ for stretch in self.arrivals or []]
        if not lengths or lengths[-1] is None:
            return None
        return sum(length.total_seconds() for length in lengths if length is not None)

    def without_end(self) -> Self:
        """The same load whose last stretch of arrivals goes on until it is stopped."""
        if self.length_s is None or self.arrivals is None:
            return self
        *before, last = self.arrivals
        if last.trace is not None:
            return self
        if last.to is not None:  # the ramp keeps its length; where it got to goes on
            return self.model_copy(
                update={"arrivals": [*self.arrivals, Arrivals.model_validate({"rate": _rate_text(last.to)})]}
            )
        return self.model_copy(update={"arrivals": [*before, last.model_copy(update={"for_": None})]})

    def all_scenarios(self) -> tuple[Scenario, ...]:
        """Scenarios, then each entry of the mix as one, named after its method."""
        taken = [scenario.name for scenario in self.scenarios]
        result = list(self.scenarios)
        for entry in self.mix:
            method = entry.call.partition("/")[2]
            count = sum(name == method or name.startswith(f"{method}-") for name in taken)
            taken.append(f"{method}-{count + 1}" if count else method)
            step = Step(
                call=entry.call,
                request=entry.request,
                metadata=entry.metadata,
                deadline=entry.deadline,
                expect=entry.expect,
            )
            result.append(Scenario(name=taken[-1], weight=entry.weight, steps=[step]))
        return tuple(result)

    def deadline_s(self, step: Step) -> float:
        """A step's deadline, in seconds from its sending."""
        return (step.deadline or self.deadline).total_seconds()

    def user_count(self, tables: Mapping[str, Sequence[Mapping[str, str]]]) -> int:
        """Size of the pool: `users`, `concurrency`, else the rows of the largest table held by row, else 100."""
        held = [len(tables[scenario.rows]) for scenario in self.scenarios if scenario.rows]
        default = min(max(held, default=CONCURRENCY_DEFAULT), CONCURRENCY_MAX)
        return self.users or self.concurrency or default


def place(spec: LoadSpec, index: int) -> Loc:
    """Where the scenario at `index` of `all_scenarios()` is written."""
    own = len(spec.scenarios)
    return ("scenarios", index) if index < own else ("mix", index - own)


def step_place(spec: LoadSpec, index: int, step: int) -> Loc:
    """Where a step of that scenario is written."""
    return (*place(spec, index), "steps", step) if index < len(spec.scenarios) else place(spec, index)


def plain_blame(loc: Loc, expected: str, hint: str) -> InputError:
    """The error where no file with lines is at hand."""
    where = ".".join(str(part) for part in ("load", *loc))
    return InputError(f"{where}: expected {expected}" + (f"\n    {hint}" if hint else ""))


def check(spec: LoadSpec, tables: Mapping[str, Sequence[Mapping[str, str]]], blame: Blame = plain_blame) -> None:
    """Checks names across the load and its tables: tables, columns, captures, unique scenarios, deadlines above zero.

    Args:
        spec: the load.
        tables: rows by table name.
        blame: makes the error; give one that knows the document's lines.

    Raises:
        InputError: (whatever `blame` makes) for the first name that leads nowhere.
    """
    names = [scenario.name for scenario in spec.all_scenarios()]
    for index, scenario in enumerate(spec.all_scenarios()):
        loc = place(spec, index)
        if scenario.name in names[:index]:
            raise blame((*loc, "name"), "a name no other scenario has", f"{scenario.name!r} is used twice")
        _check_rows(spec, scenario, loc, tables, blame)
        _check_templates(spec, index, scenario, tables, blame)
    for number, stretch in enumerate(spec.arrivals or []):
        if stretch.trace is not None:
            _check_trace(stretch.trace, tables, ("arrivals", number, "trace"), blame)
    if spec.deadline <= timedelta():
        raise blame(("deadline",), "a duration above 0s", "a call without time cannot be answered")


def _check_trace(table: str, tables: Mapping[str, Sequence[Mapping[str, str]]], loc: Loc, blame: Blame) -> None:
    if table not in tables:
        raise blame(loc, "a table declared under `data`", nearest(table, tables))
    before_s = 0.0
    for number, row in enumerate(tables[table], start=1):
        text = row.get(TRACE_COLUMN, "")
        try:
            at_s = float(text)
        except ValueError:
            at_s = -1.0
        if not before_s <= at_s < TRACE_MAX_S:
            raise blame(
                loc,
                f"a table whose column `{TRACE_COLUMN}` holds ascending seconds from 0",
                f"row {number} of {table} has {text!r} after {before_s:g}",
            )
        before_s = at_s


def _check_rows(
    spec: LoadSpec,
    scenario: Scenario,
    loc: Loc,
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    blame: Blame,
) -> None:
    if scenario.rows is not None and scenario.rows not in tables:
        raise blame((*loc, "rows"), "a table declared under `data`", nearest(scenario.rows, tables))
    if scenario.rows is not None and spec.users is not None and spec.users > len(tables[scenario.rows]):
        rows = len(tables[scenario.rows])
        raise blame(
            ("users",),
            f"at most {rows}, the rows of {scenario.rows!r}",
            f"each user of scenario {scenario.name!r} holds a row for itself; {spec.users} users would wait for rows",
        )
    read = {*scenario.tables_read(), *([scenario.rows] if scenario.rows else [])}
    if len(read) > 1:
        raise blame(loc, "templates that read one table", f"this scenario reads {', '.join(sorted(read))}: join them")


def _check_templates(
    spec: LoadSpec,
    index: int,
    scenario: Scenario,
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    blame: Blame,
) -> None:
    captured: set[str] = set()
    for position, step in enumerate(scenario.steps):
        loc = step_place(spec, index, position)
        if step.deadline is not None and step.deadline <= timedelta():
            raise blame((*loc, "deadline"), "a duration above 0s", "a call without time cannot be answered")
        for key, value in _templated(step):
            if wrong := problem_in(value):
                raise blame((*loc, key), "functions that there are", wrong)
            for name in names_in(value):
                problem = _unknown_name(name, tables, captured)
                if problem:
                    raise blame((*loc, key), "templates whose names are known", f"{{{{{name}}}}}: {problem}")
        for name in BUILT_IN & step.capture.keys():
            raise blame((*loc, "capture", name), "another name", f"{{{{{name}}}}} has a meaning already")
        captured |= set(step.capture)


def _templated(step: Step) -> Iterator[tuple[str, object]]:
    yield "messages" if step.messages is not None else "request", step.bodies
    yield "assert", step.asserts


def _unknown_name(name: str, tables: Mapping[str, Sequence[Mapping[str, str]]], captured: set[str]) -> str:
    table, dot, column = name.partition(".")
    if dot and table not in tables:
        return f"no table {table!r} under `data`{nearest(table, tables, prefix='; ')}"
    if dot:
        columns = list(tables[table][0])
        return (
            ""
            if column in columns
            else f"table {table!r} has no column {column!r}{nearest(column, columns, prefix='; ')}"
        )
    known = {*BUILT_IN, *captured}
    return "" if name in known else f"nothing of that name was captured before{nearest(name, known, prefix='; ')}"
