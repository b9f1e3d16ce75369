"""The registry's descriptors as reflection would give them, for tests without a server."""

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from holdfast.registry.v1 import agent_registry_service_pb2, lease_service_pb2
from holdfast_loadtests.descriptors import Descriptors


def registry_descriptors() -> Descriptors:
    """Both services of the registry, with every file they need."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in files:
            for dependency in file.dependencies:
                add(dependency)
            files[file.name] = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(files[file.name])

    add(agent_registry_service_pb2.DESCRIPTOR)
    add(lease_service_pb2.DESCRIPTOR)
    return Descriptors(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())
