"""Finding tools: the folder first, then PATH, an accepted version only, and an answer that says what was seen."""

import pytest

from holdfast.cli import InputError
from holdfast_chaos.tools import default_dir, find, status


def program(path, prints, code=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    return tmp_path / "tools"


def test_the_folder_comes_before_path(folder, tmp_path):
    program(tmp_path / "path" / "etcd", "etcd Version: 3.6.1")
    own = program(folder / "bin" / "etcd", "etcd Version: 3.6.2")
    found = find("etcd", folder)
    assert (found.path, found.version) == (own, "3.6.2")


def test_a_wrong_version_in_the_folder_gives_way_to_a_right_one_on_path(folder, tmp_path):
    program(folder / "bin" / "etcd", "etcd Version: 3.4.23")
    right = program(tmp_path / "path" / "etcd", "etcd Version: 3.6.16")
    assert find("etcd", folder).path == right


def test_a_program_under_its_packages_name_is_found(folder, tmp_path):
    there = program(tmp_path / "path" / "prometheus-alertmanager", "alertmanager, version 0.25.0")
    assert find("alertmanager", folder).path == there


@pytest.mark.parametrize(
    ("prints", "seen"),
    [
        ("etcd Version: 3.4.23", "is version 3.4.23, and >=3.6,<3.7 is needed"),
        ("Segmentation fault", "names no version: it printed 'Segmentation fault'"),
    ],
)
def test_a_missing_tool_says_what_was_seen_instead_and_how_to_get_it(folder, tmp_path, prints, seen):
    program(tmp_path / "path" / "etcd", prints)
    with pytest.raises(InputError) as error:
        find("etcd", folder)
    assert seen in error.value.message
    assert str(tmp_path / "path" / "etcd") in error.value.message
    assert error.value.message.endswith("holdfast tools etcd")


def test_a_file_that_is_no_program_is_seen_and_refused(folder):
    path = program(folder / "bin" / "etcd", "etcd Version: 3.6.16")
    path.write_bytes(b"\x7fELF rubbish")
    (found,) = status(folder, ["etcd"])
    assert found.tool is None
    assert "does not start" in found.rejected[0]


def test_an_unknown_name_suggests_the_nearest(folder):
    with pytest.raises(InputError, match="Did you mean 'prometheus'"):
        find("promethius", folder)


def test_the_variable_decides_where_tools_live(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_TOOLS", str(tmp_path / "chosen"))
    assert default_dir() == tmp_path / "chosen"


def test_a_folder_of_tools_here_comes_before_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("HOLDFAST_TOOLS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_dir() != tmp_path / ".tools"
    (tmp_path / ".tools").mkdir()
    assert default_dir() == tmp_path / ".tools"
