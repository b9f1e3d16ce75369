"""Imports point one way: the service knows nothing of the harness, and load and objectives know nothing of chaos."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "holdfast": ROOT / "server" / "holdfast",
    "holdfast_slo": ROOT / "slo" / "holdfast_slo",
    "holdfast_loadtests": ROOT / "loadtests" / "holdfast_loadtests",
    "holdfast_chaos": ROOT / "chaos" / "holdfast_chaos",
}
MAY_IMPORT = {
    "holdfast": set(),
    "holdfast_slo": {"holdfast"},
    "holdfast_loadtests": {"holdfast", "holdfast_slo"},
    "holdfast_chaos": {"holdfast", "holdfast_slo", "holdfast_loadtests"},
}


def imported_packages(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FOLDERS)
def test_package_imports_only_what_it_may(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    modules = sorted(FOLDERS[package].rglob("*.py"))
    assert modules, f"no modules below {FOLDERS[package]}"
    wrong = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in modules
        if (bad := (imported_packages(path.read_text()) & FOLDERS.keys()) - allowed)
    }
    assert wrong == {}


def test_the_check_sees_a_wrong_import() -> None:
    assert "holdfast_chaos" in imported_packages("def f():\n    from holdfast_chaos.runner import run\n")
    assert "holdfast_slo" in imported_packages("import holdfast_slo.verdict as v\n")
