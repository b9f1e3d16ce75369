import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2

from holdfast.cli import InputError
from holdfast_chaos.experiment import load_experiment
from holdfast_chaos.first_experiment import READS, first_experiment
from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.descriptors import Descriptors
from support.echo_server_descriptors import registry_descriptors


def described(*files):
    protos = []
    for file in files:
        proto = descriptor_pb2.FileDescriptorProto()
        file.DESCRIPTOR.CopyToProto(proto)
        protos.append(proto)
    return Descriptors(descriptor_pb2.FileDescriptorSet(file=protos).SerializeToString())


@pytest.mark.parametrize("descriptors", [registry_descriptors(), described(health_pb2)])
def test_the_first_experiment_is_one_whose_load_fits_the_service(descriptors, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(first_experiment("127.0.0.1:9000", descriptors))
    resolved = load_experiment(str(path), ())
    compiled = compile_calls(resolved.experiment.load, descriptors)
    assert compiled
    assert resolved.experiment.faults


def test_methods_that_may_change_things_are_left_out():
    text = first_experiment("127.0.0.1:9000", registry_descriptors())
    calls = [line.strip() for line in text.splitlines() if "{call:" in line]
    assert any(line.startswith("- {call: holdfast.registry.v1.AgentRegistryService/GetAgent,") for line in calls)
    assert all(line.startswith("#") for line in calls if "RegisterAgent" in line or "RevokeLease" in line)


@pytest.mark.parametrize(
    "name",
    [
        "EmptyTrash",
        "Checkout",
        "GetOrCreateUser",
        "FindAndModify",
        "ReadAndDelete",
        "QueryAndLock",
        "Getaway",
        "Rangers",
    ],
)
def test_a_name_that_only_begins_like_reading_is_not_called(name):
    assert not READS.match(name)


@pytest.mark.parametrize("name", ["Get", "GetAgent", "List2", "Check", "EmptyCall", "Read_All", "Range"])
def test_names_that_read_are_called(name):
    assert READS.match(name)


def test_a_service_without_unary_methods_is_refused():
    with pytest.raises(InputError, match="no unary method"):
        first_experiment("127.0.0.1:9000", Descriptors(b""))
