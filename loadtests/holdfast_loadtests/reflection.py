"""A target's descriptors, asked of the target itself by gRPC server reflection, over the engine's own connections.

So reflection has the same TLS, authority and metadata as the load, and the same words for what is wrong.
"""

import asyncio
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from holdfast.cli import InputError
from holdfast_loadtests.answers import Answer
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.targets import Target

PROTOCOLS: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Asked in this order; their messages are the same on the wire."""

FILES_MAX: Final = 2_000
"""More files than any real service has: a server that keeps naming new ones is broken."""

_PROBLEMS: Final = {
    "Unimplemented": "it has no server reflection. Turn it on in the server, or give its descriptors with --protoset",
    "DeadlineExceeded": "it did not answer in time. Check that the address is a gRPC server's",
}


def fetch(target: Target, timeout_s: float = 5.0) -> Descriptors:
    """Descriptors of every service of a target, reflection's own left out. Not to be called where an event loop runs.

    Args:
        target: where it listens, its TLS and the metadata it wants.
        timeout_s: limit for the whole conversation, from when the connection is made.

    Raises:
        InputError: nothing answers there, or it has no usable reflection.
    """
    return Descriptors(asyncio.run(_fetch(target, timeout_s)).SerializeToString())


async def _fetch(target: Target, timeout_s: float) -> descriptor_pb2.FileDescriptorSet:
    expiry = Expiry(asyncio.get_running_loop(), expire)
    channel = Channel(0, target, expiry)
    try:
        if failure := await channel.connect():
            raise _unusable(
                target, f"nothing that speaks gRPC answers there: {failure}. Start it, or check the address"
            )
        return await _Conversation(channel, target, timeout_s).file_set()
    finally:
        channel.close()
        expiry.close()
        await channel.wait_closed()


def _unusable(target: Target, problem: str) -> InputError:
    return InputError(f"cannot learn the services of {target.address} by gRPC reflection: {problem}.")


class _Conversation:
    """Questions and answers, one at a time, each a call of its own."""

    def __init__(self, channel: Channel, target: Target, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._target = target
        self._timeout_s = timeout_s
        self._ends_s = self._loop.time() + timeout_s
        self._protocol = PROTOCOLS[0]

    async def file_set(self) -> descriptor_pb2.FileDescriptorSet:
        """The files of every service, those they need first."""
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        served = [service for service in await self._services() if not service.startswith("grpc.reflection.")]
        for service in served:
            files.update((file.name, file) for file in await self._files_of(service))
        wanted = [name for file in files.values() for name in file.dependency]
        while wanted:
            name = wanted.pop()
            if name not in files:
                for file in [_well_known(name)] if _is_well_known(name) else await self._files_by_name(name):
                    files[file.name] = file
                    wanted.extend(file.dependency)
            if len(files) > FILES_MAX:
                raise _unusable(self._target, f"it names more than {FILES_MAX} files. Check its reflection service")
        for file in files.values():
            _keep_served(file, served)
        return descriptor_pb2.FileDescriptorSet(file=_in_order(files))

    async def _services(self) -> list[str]:
        question = reflection_pb2.ServerReflectionRequest(list_services="*")
        answer = await self._ask(question)
        if answer.code == "Unimplemented":  # an older server
            self._protocol = PROTOCOLS[1]
            answer = await self._ask(question)
        return [service.name for service in self._response(answer).list_services_response.service]

    async def _files_of(self, service: str) -> list[descriptor_pb2.FileDescriptorProto]:
        """None where the server lists a service that it cannot describe: the load may not need it."""
        response = await self._respond(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        return self._files(response)

    async def _files_by_name(self, name: str) -> list[descriptor_pb2.FileDescriptorProto]:
        response = await self._respond(reflection_pb2.ServerReflectionRequest(file_by_filename=name))
        if response.HasField("error_response"):
            raise _unusable(self._target, f"it does not know {name!r}: {response.error_response.error_message}")
        return self._files(response)

    def _files(self, response: reflection_pb2.ServerReflectionResponse) -> list[descriptor_pb2.FileDescriptorProto]:
        raw = response.file_descriptor_response.file_descriptor_proto
        try:
            return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in raw]
        except DecodeError as error:
            raise _unusable(self._target, f"its reflection gave what is no file's descriptor: {error}") from error

    async def _respond(
        self, question: reflection_pb2.ServerReflectionRequest
    ) -> reflection_pb2.ServerReflectionResponse:
        return self._response(await self._ask(question))

    def _response(self, answer: Answer) -> reflection_pb2.ServerReflectionResponse:
        if answer.code != "OK":
            told = f"it answered {answer.code}: {answer.details}"
            raise _unusable(self._target, _PROBLEMS.get(answer.code, told))
        if answer.message is None:
            raise _unusable(self._target, "it ended the reflection stream without an answer")
        try:
            return reflection_pb2.ServerReflectionResponse.FromString(answer.message)
        except DecodeError as error:
            raise _unusable(self._target, f"its reflection gave what is no answer: {error}") from error

    async def _ask(self, question: reflection_pb2.ServerReflectionRequest) -> Answer:
        left_s = max(self._ends_s - self._loop.time(), 0.001)
        ended: asyncio.Future[Answer] = self._loop.create_future()
        block = self._target.block(f"/{self._protocol}/ServerReflectionInfo", left_s)
        prepared = Prepared(block, left_s, takes_many=True)
        self._channel.start(prepared, frame([question.SerializeToString()]), ended.set_result)
        return await ended


def _keep_served(file: descriptor_pb2.FileDescriptorProto, served: list[str]) -> None:
    """Leaves out the services that a file describes beside those that are there: calling them finds nobody."""
    prefix = f"{file.package}." if file.package else ""
    kept = [service for service in file.service if prefix + service.name in served]
    del file.service[:]
    file.service.extend(kept)


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
