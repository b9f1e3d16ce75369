"""The first experiment for a service: what its descriptors allow to be written down without knowing it. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from holdfast.cli import InputError
from holdfast_loadtests.descriptors import Descriptors, Method
from holdfast_loadtests.messages import descriptor_of

READS: Final = re.compile(
    r"(EmptyCall|(Get|List|Check|Read|Find|Search|Query|Count|Describe|Lookup|Range|Status|Ping)(?=[A-Z0-9_]|$))"
    r"(?!.*(And|Or)[A-Z])"
)
"""Names of methods that only read are of this form, and not GetOrCreate, Checkout or ReadAndDelete; others could change
what they are pointed at, and are left out."""

FIELDS_MAX: Final = 6
DEPTH_MAX: Final = 2
"""Fields of a request that are written down, and how deep: enough to see what there is to fill in."""

_HEAD: Final = """\
# A first experiment for {address}. Fill the requests in, then: holdfast plan, holdfast run.
apiVersion: holdfast/v1
kind: Experiment
metadata: {{name: first}}
seed: 1

target: {{address: "{address}"}}

load:
  arrivals: [{{rate: 50/s}}]
"""

_PROTOSET: Final = "  protoset: {file} # what the methods take: it is not asked by reflection\n"

_TAIL: Final = """
phases: {baseline: 20s, recovery: 20s}

faults: # each must be shown to have bitten, or the run proves nothing
  - {id: slow-net, at: 20s, for: 10s, latency: {delay: 100ms, jitter: 20ms}}

objectives:
  - {openslo: availability.yaml, phases: [baseline, recovery]}
  - {openslo: latency-p95.yaml, phases: [baseline, recovery]}

recovery: {within: 10s}
"""


def first_experiment(address: str, descriptors: Descriptors, protoset: str = "") -> str:
    """The file's text.

    Args:
        address: of the target, `host:port`.
        descriptors: of its services.
        protoset: the file they are from, as the experiment is to name it; empty where they were asked by reflection.

    Raises:
        InputError: there is no unary method that could be called.
    """
    unary = [method for method in _methods(descriptors) if method.grpc_type == "unary"]
    if not unary:
        raise InputError(f"{address} has no unary method: write an experiment by hand, with streams in `scenarios`")
    chosen = _chosen(unary)
    left_out = [method for method in unary if method not in chosen]
    lines = [_HEAD.format(address=address)]
    lines += [_PROTOSET.format(file=json.dumps(protoset))] if protoset else []
    lines.append("  mix:\n")
    if not READS.match(chosen[0].name):
        lines.append("    # No method here only reads, by its name: is it safe to call this one?\n")
    lines += [f"    - {{call: {_call(method)}, request: {_request(method)}}}\n" for method in chosen]
    if left_out:
        lines.append("    # They may change things, and are left out until you say so:\n")
        lines += [f"    # - {{call: {_call(method)}, request: {_request(method)}}}\n" for method in left_out]
    return "".join([*lines, _TAIL])


def services_called(descriptors: Descriptors) -> list[str]:
    """Full names of the services that the first experiment calls; empty where it cannot be written."""
    unary = [method for method in _methods(descriptors) if method.grpc_type == "unary"]
    return list(dict.fromkeys(method.service for method in _chosen(unary)))


def _chosen(unary: list[Method]) -> list[Method]:
    return [method for method in unary if READS.match(method.name)] or unary[:1]


def _methods(descriptors: Descriptors) -> Iterator[Method]:
    for service in descriptors.services:
        for name in descriptors.methods(service):
            yield descriptors.method(f"{service}/{name}")


def _call(method: Method) -> str:
    return f"{method.service}/{method.name}"


def _request(method: Method) -> str:
    return json.dumps(_sample(descriptor_of(method.request_class), DEPTH_MAX))


def _sample(descriptor: Descriptor, depth: int) -> dict[str, Any]:
    """An object with the message's first fields, each at its default; one field of each oneof."""
    found: dict[str, Any] = {}
    chosen: set[str] = set()
    for field in list(descriptor.fields)[:FIELDS_MAX]:
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in chosen:
            continue
        if oneof is not None:
            chosen.add(oneof.name)
        value = _value(field, depth)
        if value is not None:
            found[field.name] = value
    return found


def _value(field: FieldDescriptor, depth: int) -> object:
    """The default as JSON has it; None where nothing can be said."""
    if field.is_repeated:
        return None
    inner = field.message_type
    if inner is not None:
        is_plain = not inner.full_name.startswith("google.protobuf.")
        return (_sample(inner, depth - 1) or None) if is_plain and depth > 1 else None
    if field.enum_type is not None:
        return str(field.enum_type.values[0].name)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return ""
    return False if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else 0
