"""A target's descriptors, asked of the target itself by gRPC server reflection."""

import queue
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from holdfast.cli import InputError
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.security import Security

PROTOCOLS: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Asked in this order; their messages are the same on the wire."""

FILES_MAX: Final = 2_000
"""More files than any real service has: a server that keeps naming new ones is broken."""

_PROBLEMS: Final = {
    grpc.StatusCode.UNIMPLEMENTED: "it has no server reflection. Turn it on in the server: the load is made from it",
    grpc.StatusCode.UNAVAILABLE: "nothing that speaks gRPC answers there. Start it first, or check the address",
    grpc.StatusCode.DEADLINE_EXCEEDED: "it did not answer in time. Check that the address is a gRPC server's",
}


def fetch(address: str, timeout_s: float = 5.0, security: Security | None = None) -> Descriptors:
    """Descriptors of every service at `host:port`, reflection's own left out.

    Args:
        address: where the server listens.
        timeout_s: limit for the whole conversation.
        security: TLS, if any.

    Raises:
        InputError: nothing answers there, or it has no usable reflection.
    """
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with _channel(address, security, options) as channel:
        for protocol in PROTOCOLS:
            try:
                with _Conversation(channel, protocol, timeout_s) as conversation:
                    return Descriptors(_file_set(conversation).SerializeToString())
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED or protocol == PROTOCOLS[-1]:
                    raise _unusable(address, error) from error
    raise AssertionError("the last protocol either answers or raises")


def _channel(address: str, security: Security | None, options: list[tuple[str, int]]) -> grpc.Channel:
    if security is None:
        return grpc.insecure_channel(address, options=options)
    security.context()  # names the file that is no good
    ca, key, cert = (Path(name).read_bytes() if name else None for name in (security.ca, security.key, security.cert))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options=options)


def _unusable(address: str, error: grpc.RpcError) -> InputError:
    problem = _PROBLEMS.get(error.code(), f"it answered {error.code().name}: {error.details()}")
    return InputError(f"cannot learn the services of {address} by gRPC reflection: {problem}.")


class _Conversation:
    """Questions and answers, one at a time, on one reflection stream."""

    def __init__(self, channel: grpc.Channel, protocol: str, timeout_s: float) -> None:
        self._questions: queue.SimpleQueue[reflection_pb2.ServerReflectionRequest | None] = queue.SimpleQueue()
        call = channel.stream_stream(
            f"/{protocol}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._answers = call(iter(self._questions.get, None), timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._questions.put(None)
        self._answers.cancel()

    def services(self) -> list[str]:
        answer = self._ask(reflection_pb2.ServerReflectionRequest(list_services="*"))
        return [service.name for service in answer.list_services_response.service]

    def files_of_symbol(self, symbol: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        yield from self._files(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))

    def files_by_name(self, name: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        yield from self._files(reflection_pb2.ServerReflectionRequest(file_by_filename=name))

    def _files(self, question: reflection_pb2.ServerReflectionRequest) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        for raw in self._ask(question).file_descriptor_response.file_descriptor_proto:
            yield descriptor_pb2.FileDescriptorProto.FromString(raw)

    def _ask(self, question: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        self._questions.put(question)
        answer = next(self._answers, None)
        if answer is None:
            raise InputError("the target ended the reflection stream without an answer. Check its reflection service.")
        return answer


def _file_set(conversation: _Conversation) -> descriptor_pb2.FileDescriptorSet:
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for service in conversation.services():
        if not service.startswith("grpc.reflection."):
            files.update((file.name, file) for file in conversation.files_of_symbol(service))
    wanted = [name for file in files.values() for name in file.dependency]
    while wanted:
        name = wanted.pop()
        if name not in files:
            for file in [_well_known(name)] if _is_well_known(name) else conversation.files_by_name(name):
                files[file.name] = file
                wanted.extend(file.dependency)
        if len(files) > FILES_MAX:
            raise InputError(
                f"the target's reflection names more than {FILES_MAX} files. Check its reflection service."
            )
    return descriptor_pb2.FileDescriptorSet(file=_in_order(files))


def _is_well_known(name: str) -> bool:
    # Some servers leave these out: every protobuf runtime has them.
    return name.startswith("google/protobuf/")


def _well_known(name: str) -> descriptor_pb2.FileDescriptorProto:
    from google.protobuf import (  # noqa: F401  # importing registers them in the default pool
        any_pb2,
        api_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        wrappers_pb2,
    )

    file = descriptor_pb2.FileDescriptorProto()
    descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
    return file


def _in_order(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> list[descriptor_pb2.FileDescriptorProto]:
    ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(name: str) -> None:
        if name not in ordered and name in files:
            for dependency in files[name].dependency:
                add(dependency)
            ordered[name] = files[name]

    for name in files:
        add(name)
    return list(ordered.values())
