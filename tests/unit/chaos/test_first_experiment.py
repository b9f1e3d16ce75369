import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2

from holdfast.cli import InputError
from holdfast_chaos.experiment import PACKAGED_OBJECTIVES, load_experiment
from holdfast_chaos.first_experiment import READS, first_experiment, services_called
from holdfast_chaos.first_objectives import first_objectives
from holdfast_loadtests.calls import compile_calls
from holdfast_loadtests.descriptors import Descriptors
from holdfast_slo.openslo import load_objective
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


def test_a_protoset_is_named_and_its_methods_are_checked_as_the_experiment_is_read(tmp_path):
    (tmp_path / "registry.binpb").write_bytes(registry_descriptors().file_set)
    path = tmp_path / "experiment.yaml"
    text = first_experiment("127.0.0.1:9000", registry_descriptors(), "registry.binpb")
    path.write_text(text)
    assert load_experiment(str(path), ()).descriptors == registry_descriptors().file_set
    path.write_text(text.replace("AgentRegistryService/GetAgent,", "AgentRegistryService/GetAgnt,"))
    with pytest.raises(InputError, match=r"(?s)experiment.yaml:\d+: .*did you mean 'GetAgent'"):
        load_experiment(str(path), ())
    (tmp_path / "registry.binpb").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"(?s)experiment.yaml:\d+: .*protoset.*no whole FileDescriptorSet"):
        load_experiment(str(path), ())


@pytest.mark.parametrize(
    "services", [["a.b.One"], ["grpc.health.v1.Health", "a.b.One"]], ids=["one service", "more than one"]
)
def test_the_first_objectives_hold_the_services_that_are_called(services, tmp_path):
    expected = services[0] if len(services) == 1 else r"grpc\.health\.v1\.Health|a\.b\.One"
    for name, text in first_objectives(services).items():
        path = tmp_path / name
        path.write_text(text)
        objective, packaged = load_objective(path), load_objective(PACKAGED_OBJECTIVES / name)
        for part in ("total", "good", "bad"):
            mine, theirs = getattr(objective, part), getattr(packaged, part)
            assert (mine is None) == (theirs is None)
            if theirs is None:
                continue
            added = [one for one in mine.matchers if one not in theirs.matchers]
            assert [(one.label, one.value) for one in added] == [("grpc_service", expected)]
            assert len(mine.matchers) == len(theirs.matchers) + 1


def test_the_services_called_are_those_of_the_experiment():
    text = first_experiment("127.0.0.1:9000", registry_descriptors())
    called = {
        line.split("{call: ")[1].split("/")[0] for line in text.splitlines() if line.strip().startswith("- {call")
    }
    assert set(services_called(registry_descriptors())) == called
