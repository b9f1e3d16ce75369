"""What the README shows is true."""

import re
from pathlib import Path

import pytest

from holdfast.registry.v1 import agent_registry_service_pb2, lease_service_pb2
from holdfast.service.agents import AgentRegistry
from holdfast.service.leases import LeaseHandlers
from holdfast_chaos.experiment import load_experiment
from holdfast_chaos.planning import make_plan
from support.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def rpcs() -> dict[str, bool]:
    """Every rpc of the registry, and whether a handler of its name is there."""
    services = {
        agent_registry_service_pb2.DESCRIPTOR.services_by_name["AgentRegistryService"]: AgentRegistry,
        lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]: LeaseHandlers,
    }
    return {
        method.name: hasattr(handlers, snake(method.name))
        for service, handlers in services.items()
        for method in service.methods
    }


def test_the_whole_registry_is_built_as_it_says() -> None:
    assert "Built is the whole of `holdfast.registry.v1`" in README
    assert [name for name, built in rpcs().items() if not built] == []


def test_its_python_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    with ServerProcess(tmp_path) as server:
        exec(block.replace("127.0.0.1:50051", server.grpc), {"__name__": "example"})  # its own words
    name = "namespaces/default/agents/reviewer-1"
    assert capsys.readouterr().out == f"registered as {name}\ncan review: {[name]}\n"


def test_its_experiment_resolves_and_brings_enough_samples(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    (tmp_path / "users.csv").write_text("id\n1\n2\n")
    plan = make_plan(load_experiment(str(tmp_path / "mine.yaml")))
    assert [sample for sample in plan.samples if sample.enough is False] == []


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_its_two_commands_are_there(command: str) -> None:
    assert re.search(rf"^{command}$", README, re.MULTILINE)
    assert f"\n{command.partition(' ')[2]}:" in (ROOT / "Makefile").read_text()


def test_files_it_names_exist() -> None:
    for path in re.findall(r"`((?:deploy|runbooks|slo|chaos|server|proto|tests)/[\w./-]*)`", README):
        assert (ROOT / path).exists(), path
