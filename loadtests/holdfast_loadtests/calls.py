"""Steps made ready to be sent: templates compiled, methods resolved, every request tried on its message beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from holdfast_loadtests.assembly import Encode, compile_message
from holdfast_loadtests.descriptors import Descriptors, Method, UnknownMethodError
from holdfast_loadtests.draws import Draws
from holdfast_loadtests.messages import MisfitError, Path, descriptor_of, encode
from holdfast_loadtests.paced import ON_ANSWER
from holdfast_loadtests.spec import Blame, LoadSpec, Loc, Scenario, Step, plain_blame, step_place
from holdfast_loadtests.templates import BUILT_IN, Render, Scope, compile_template, has_holes, names_in

ROWS_TRIED_MAX: Final = 10_000
"""Rows of a table whose requests are tried before the run; a later one that does not fit ends the load."""

Tables = Mapping[str, Sequence[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """A step and all that is needed to send it and to read its answer."""

    step: Step
    method: Method
    is_constant: bool
    """Whether every call sends the same."""
    encoders: tuple[Encode, ...]
    captures: tuple[tuple[str, Path], ...]
    asserts: tuple[tuple[Path, Render], ...]
    deadline_s: float
    needs: frozenset[str]
    """Captures that its requests and assertions use; without them it is left out."""

    def bodies(self, scope: Scope) -> list[bytes]:
        """The messages to send, serialised."""
        return [encode_body(scope) for encode_body in self.encoders]

    @property
    def reads_answer(self) -> bool:
        """Whether the answer's content matters, so that it must be parsed."""
        return bool(self.captures or self.asserts)

    def violation(self, answer: Message, scope: Scope) -> str:
        """What the first assertion that does not hold found; `""` where all hold."""
        for path, render in self.asserts:
            found, expected = path.value_in(answer), render(scope)
            # Compared as text: tables hold text only, and int64 is text in JSON.
            if found != expected and str(found) != str(expected):
                return f"{path.text} is {found!r}, expected {expected!r}"
        return ""


def compile_calls(
    spec: LoadSpec, descriptors: Descriptors, tables: Tables | None = None, blame: Blame = plain_blame
) -> dict[str, tuple[CompiledStep, ...]]:
    """Every scenario's steps, ready to send, by the scenario's name.

    Args:
        spec: the load, already through `spec.check`.
        descriptors: what the target's services take and give.
        tables: rows to try the requests with.
        blame: makes the error; give one that knows the document's lines.

    Raises:
        InputError: (whatever `blame` makes) a service, method, field or capture is unknown, or a value does not fit.
    """
    return {
        scenario.name: tuple(_compile_scenario(spec, index, scenario, descriptors, tables or {}, blame))
        for index, scenario in enumerate(spec.all_scenarios())
    }


def _compile_scenario(
    spec: LoadSpec, index: int, scenario: Scenario, descriptors: Descriptors, tables: Tables, blame: Blame
) -> list[CompiledStep]:
    captured: dict[str, Any] = {}
    compiled = []
    for position, step in enumerate(scenario.steps):
        loc = step_place(spec, index, position)
        ready = _compile_step(step, spec.deadline_s(step), descriptors, loc, blame)
        _try(ready, scenario, tables, captured, loc, blame)
        captured |= {name: path.sample for name, path in ready.captures}
        compiled.append(ready)
    return compiled


def _compile_step(step: Step, deadline_s: float, descriptors: Descriptors, loc: Loc, blame: Blame) -> CompiledStep:
    try:
        method = descriptors.method(step.call)
    except UnknownMethodError as error:
        raise blame((*loc, "call"), "a method of the target", str(error)) from error
    _check_shape(step, method, loc, blame)
    _check_fields(step, method, loc, blame)
    answer = descriptor_of(method.response_class)
    return CompiledStep(
        step=step,
        method=method,
        is_constant=not has_holes(step.bodies),
        encoders=tuple(compile_message(method.request_class, body) for body in step.bodies),
        captures=tuple(
            (name, _path(answer, text, (*loc, "capture", name), blame)) for name, text in step.capture.items()
        ),
        asserts=tuple(
            (_path(answer, text, (*loc, "assert", text), blame), compile_template(value))
            for text, value in step.asserts.items()
        ),
        deadline_s=deadline_s,
        needs=frozenset(name for name in names_in([*step.bodies, step.asserts]) if "." not in name) - BUILT_IN,
    )


def _check_shape(step: Step, method: Method, loc: Loc, blame: Blame) -> None:
    if step.messages is not None and method.grpc_type in ("unary", "server_stream"):
        raise blame((*loc, "messages"), "`request`: one message", f"{step.call} takes no stream")
    if step.receive is not None and method.grpc_type in ("unary", "client_stream"):
        raise blame((*loc, "receive"), "no `receive`", f"{step.call} gives one answer, no stream")
    if step.pace is not None and method.grpc_type in ("unary", "server_stream"):
        raise blame((*loc, "pace"), "no `pace`", f"{step.call} takes one message, no stream")
    if step.pace == ON_ANSWER and method.grpc_type == "client_stream":
        raise blame((*loc, "pace"), "an interval, like 20ms", f"{step.call} answers once, after the last message")


def _check_fields(step: Step, method: Method, loc: Loc, blame: Blame) -> None:
    key = "messages" if step.messages is not None else "request"
    try:
        for body in step.bodies:
            compile_message(method.request_class, body)
    except MisfitError as error:
        expected = f"a {descriptor_of(method.request_class).full_name}"
        raise blame((*loc, key), expected, str(error)) from error


def _path(descriptor: Descriptor, text: str, loc: Loc, blame: Blame) -> Path:
    try:
        return Path(descriptor, text)
    except MisfitError as error:
        raise blame(loc, "the path of a field of the answer", str(error)) from error


def _try(
    ready: CompiledStep, scenario: Scenario, tables: Tables, captured: Mapping[str, Any], loc: Loc, blame: Blame
) -> None:
    table = scenario.table
    rows = tables.get(table, ())[:ROWS_TRIED_MAX] if table else ()
    key = "messages" if ready.step.messages is not None else "request"
    reads_row = any("." in name for name in names_in(ready.step.bodies))
    renders = [compile_template(body) for body in ready.step.bodies]
    for number, row in enumerate(rows if reads_row else [{}], start=1):
        scope = Scope(row, captured, 0, Draws(0, 0, 0))
        try:
            for render in renders:
                encode(ready.method.request_class, render(scope))
        except MisfitError as error:
            of_row = f" (row {number} of {table})" if row else ""
            raise blame(
                (*loc, key), f"a {descriptor_of(ready.method.request_class).full_name}", f"{error}{of_row}"
            ) from error
