"""What a service's methods take and give, from its own descriptors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from holdfast_loadtests.hints import nearest

_HOW: Final = "Make one with 'protoc --include_imports --descriptor_set_out=FILE'"

MethodType = Literal["unary", "client_stream", "server_stream", "bidi_stream"]

_TYPES: Final[dict[tuple[bool, bool], MethodType]] = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
"""(the client streams, the server streams) → the value of the label grpc_type, as go-grpc names it."""


class UnknownMethodError(LookupError):
    """The descriptors hold no such service or method; the text says which are nearest."""


class NoDescriptorsError(ValueError):
    """Some bytes are no FileDescriptorSet; the text says why and how one is made."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method and the classes of its messages."""

    service: str
    name: str
    grpc_type: MethodType
    request_class: type[Message]
    response_class: type[Message]

    @property
    def path(self) -> str:
        """As gRPC calls it: `/package.Service/Method`."""
        return f"/{self.service}/{self.name}"


class Descriptors:
    """The files that describe a target's services.

    Args:
        file_set: a serialised FileDescriptorSet in order of dependency, as protoc writes it.

    Raises:
        NoDescriptorsError: it is none, or lacks a file that another one needs.
    """

    def __init__(self, file_set: bytes) -> None:
        self.file_set = file_set
        self._pool = descriptor_pool.DescriptorPool()
        self._services: dict[str, ServiceDescriptor] = {}
        try:
            for file in descriptor_pb2.FileDescriptorSet.FromString(file_set).file:
                self._pool.AddSerializedFile(file.SerializeToString())
                for name in _service_names(file):
                    self._services[name] = self._pool.FindServiceByName(name)
        except (DecodeError, TypeError) as error:
            raise NoDescriptorsError(f"no whole FileDescriptorSet: {str(error).strip()[:200]}. {_HOW}") from error

    @property
    def services(self) -> list[str]:
        """Full names of all services described, sorted."""
        return sorted(self._services)

    def methods(self, service: str) -> list[str]:
        """Names of a service's methods, in the order in which they are declared."""
        return [method.name for method in self._services[service].methods]

    def method(self, call: str) -> Method:
        """The method that `package.Service/Method` names.

        Raises:
            UnknownMethodError: there is none.
        """
        service_name, _, method_name = call.partition("/")
        service = self._services.get(service_name)
        if service is None:
            raise UnknownMethodError(
                f"the target has no service {service_name!r}; {nearest(service_name, self.services)}"
            )
        methods: dict[str, MethodDescriptor] = dict(service.methods_by_name)
        if method_name not in methods:
            raise UnknownMethodError(f"{service_name} has no method {method_name!r}; {nearest(method_name, methods)}")
        found = methods[method_name]
        return Method(
            service=service_name,
            name=method_name,
            grpc_type=_TYPES[found.client_streaming, found.server_streaming],
            request_class=_message_class(found.input_type),
            response_class=_message_class(found.output_type),
        )


def _service_names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    for service in file.service:
        yield f"{file.package}.{service.name}" if file.package else service.name


def _message_class(descriptor: Descriptor) -> type[Message]:
    found: Any = message_factory.GetMessageClass(descriptor)
    return found  # type: ignore[no-any-return]  # made at run time: all that is known is that it is a message
