"""Requests made from the descriptors: fitting ones, ones a step beyond a rule, and what nobody would send."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from holdfast.core.updates import MUTABLE
from holdfast.registry.v1.agent_registry_service_pb2 import (
    BatchRegisterAgentsRequest,
    RegisterAgentRequest,
    UpdateAgentRequest,
)
from holdfast.rules.v1 import rules_pb2

PARENT = "namespaces/test"
AGENTS = [f"{PARENT}/agents/{each}" for each in "aabbc"]
LEASES = [f"{PARENT}/leases/id{number}" for number in range(6)]
RESOURCES = {
    "agents": AGENTS,
    "leases": LEASES,
    "activations": [f"{PARENT}/activations/id{number}" for number in range(6)],
    "handoffs": [f"{PARENT}/handoffs/id{number}" for number in range(6)],
    "locks": [f"{PARENT}/locks/{each}" for each in "ll2"],
    "elections": [f"{PARENT}/elections/{each}" for each in "ll2"],
}
"""Names of resources by collection."""

MANY_BYTES_MAX = 8 << 20
"""Most bytes of a list that holds too many; requests that are too large are tested by themselves."""

Values: TypeAlias = st.SearchStrategy[Any]

TEXTS = [
    "\0",
    "\n",
    "%s%n{0}",
    "../../etc/passwd",
    "namespaces/test\n",
    "namespaces/test/agents/a\0",
    "'; DROP TABLE kv; --",
    "\U0001f600" * 300,
    "\u202e\ufeff\u0000\uffff",
    "x" * 5000,
    "é" * 2048,
]
FILTERS = [
    "",
    "domain = d",
    "labels.k = v AND NOT (tier = 3_TASK OR status = IDLE)",
    "capabilities.id = review",
    "liveness = EXPIRED",
    "agents:a",
    "fence > 0",
    "create_time > '2020-01-01T00:00:00Z'",
]
WRONG_FILTERS = [
    "(" * 2000,
    "NOT " * 1000,
    "-" * 4000,
    "a=" + "'" * 4000,
    "labels." * 500,
    "fence > 99999999999999999999999999",
    "tier = 1e400",
    "create_time > '9999999-99-99T00:00:00Z'",
    "domain = " + "*" * 4000,
    "x y z",
    "\\",
    "'\\",
]
TOKENS = ["AAAA", "====", "Zm9yZ2Vk", "\u00e9", "A" * 1000]
POOLS: dict[str, Sequence[Any]] = {
    "parent": [PARENT],
    "agent_id": ["a", "b", "c", "d"],
    "filter": FILTERS,
    "page_token": [""],
    "request_id": ["", "r1", "r2"],
    "fence": [0, 0, *((1 << 40) + revision for revision in range(1, 9))],
    "wait": [Duration(), Duration(nanos=5_000_000)],
    "etag": ["", "1", "2", "3"],
    "start_revision": [0, 1, 2, 5],
    "id": ["review", "test"],
    "holder": ["a", "b"],
    "candidate": ["a", "b"],
    "resource": [f"{PARENT}/{each}" for each in ("locks/l", "elections/l", "agents/a", "activations/x")],
    "leases": [*LEASES, f"{PARENT}/leases/none"],
}
"""Values of a field by its name, with which requests meet each other's agents and leases."""

WILD_POOLS: dict[str, Sequence[Any]] = {"filter": WRONG_FILTERS, "page_token": TOKENS}


def requests(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Requests of one type, most of them within every rule, so that they meet each other's agents."""
    fitting = _messages(descriptor, is_wild=False)
    wild = _messages(descriptor, is_wild=True)
    return st.one_of(fitting, st.tuples(fitting, st.sampled_from(AGENTS)).map(_consistent), wild)


def _consistent(drawn: tuple[Message, str]) -> Message:
    """Leaves out what no rule forbids but the calls do: an agent's name and lease are told by other fields."""
    request, name = drawn
    match request:
        case RegisterAgentRequest():
            request.agent.ClearField("name")
            request.agent.ClearField("lease")
        case BatchRegisterAgentsRequest():
            for number, each in enumerate(request.requests):
                each.agent_id += str(number)
                each.ClearField("request_id")
                _consistent((each, name))
        case UpdateAgentRequest():
            request.agent.name = name
            request.agent.ClearField("lease")
        case _:
            pass
    return request


@cache
def _messages(descriptor: Descriptor, is_wild: bool) -> st.SearchStrategy[Message]:
    if descriptor.full_name == Duration.DESCRIPTOR.full_name:
        return st.builds(Duration, seconds=_numbers(64), nanos=_numbers(32)) if is_wild else st.builds(Duration)
    if descriptor.full_name == FieldMask.DESCRIPTOR.full_name:
        return _masks(is_wild)
    required: dict[str, Values] = {}
    optional: dict[str, Values] = {}
    for field in descriptor.fields:
        rules = field.GetOptions().Extensions[rules_pb2.field]
        keep = required if rules.required and not is_wild else optional
        if not rules.output_only or is_wild:
            keep[field.name] = _field(field, rules, is_wild)
    make: Callable[[dict[str, Any]], Message] = lambda values: GetMessageClass(descriptor)(**values)  # noqa: E731 - typed
    return st.fixed_dictionaries(required, optional=optional).map(make)


def _masks(is_wild: bool) -> st.SearchStrategy[Message]:
    paths = st.sampled_from([*MUTABLE, "labels.k", "*"])
    if is_wild:
        paths = paths | st.sampled_from(["", ".", "name", "labels.", "agent.name", *TEXTS])
    return st.lists(paths, max_size=4).map(lambda each: FieldMask(paths=each))


def _field(field: FieldDescriptor, rules: rules_pb2.FieldRules, is_wild: bool) -> Values:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _maps(rules, is_wild)
    values = _values(field, rules, is_wild)
    if not field.is_repeated:
        return values
    lists: Values = st.lists(values, min_size=int(rules.required and not is_wild), max_size=3)
    if is_wild and rules.items_max:
        lists = lists | values.map(lambda value: _too_many(value, rules.items_max))
    return lists


def _too_many(value: object, items_max: int) -> list[object]:
    """One more than fits; one alone if that would have more bytes than a message may: too many of too many of too long
    ones made 20 GB.
    """
    size_bytes = value.ByteSize() if isinstance(value, Message) else len(str(value))
    return [value] * (items_max + 1 if size_bytes * items_max <= MANY_BYTES_MAX else 1)


def _maps(rules: rules_pb2.FieldRules, is_wild: bool) -> Values:
    key: Values = st.sampled_from(["k", "a.b/c", "team"])
    value: Values = st.sampled_from(["", "v", "é" * 100])
    if not is_wild:
        return st.dictionaries(key, value, max_size=3)
    many: Values = st.just({f"k{number}": "v" for number in range(rules.items_max + 1)})
    return many | st.dictionaries(key | _texts(), value | _texts(), max_size=3)


def _values(field: FieldDescriptor, rules: rules_pb2.FieldRules, is_wild: bool) -> Values:
    fitting = _fitting(field, rules)
    return fitting | _unfitting(field, rules) if is_wild else fitting


def _fitting(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Values:
    if field.name in POOLS:
        return st.sampled_from(POOLS[field.name])
    resources = next((those for each, those in RESOURCES.items() if f"/{each}/" in rules.pattern), None)
    if resources is not None:
        return st.sampled_from(resources)
    if field.message_type is not None:
        if rules.HasField("duration_ms_gte"):
            return st.integers(rules.duration_ms_gte, rules.duration_ms_lte).map(_duration)
        return _messages(field.message_type, is_wild=False)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.from_regex(rules.pattern, fullmatch=True) if rules.pattern else st.text("ab é", max_size=8)
    return st.integers(rules.gte if rules.HasField("gte") else 0, rules.lte if rules.HasField("lte") else 1000)


def _unfitting(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Values:
    if field.message_type is not None:
        return _messages(field.message_type, is_wild=True)
    if field.enum_type is not None:
        return _numbers(32)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.sampled_from([b"\0\xff", b"x" * (rules.bytes_max + 1)])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.sampled_from(WILD_POOLS.get(field.name, TEXTS)) | _texts()
    bits = 64 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else 32
    return st.sampled_from([rules.gte - 1, rules.lte + 1]) | _numbers(bits)


def _numbers(bits: int) -> st.SearchStrategy[int]:
    """Integers of a signed type, its ends among them."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return st.sampled_from([low, low + 1, -1, 0, 1, 10**9, high - 1, high]) | st.integers(low, high)


def _texts() -> st.SearchStrategy[str]:
    return st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def _duration(ms: int) -> Duration:
    found = Duration()
    found.FromMilliseconds(ms)
    return found
