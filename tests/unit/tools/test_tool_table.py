"""The table of tools: complete, consistent, and its patterns read what the programs print."""

import re
from importlib.resources import files

import pytest

from holdfast_chaos.tools import TOOLS
from holdfast_chaos.tools.recipes import describe
from holdfast_chaos.tools.spec import Accepts, GoInstall, GoModule, parse_version

PRINTED = {
    "toxiproxy-server": ("toxiproxy-server version 2.12.0\n", "2.12.0"),
    "prometheus": ("prometheus, version 2.42.0+ds (branch: debian/sid)\n  go version: go1.19.8\n", "2.42.0"),
    "promtool": ("promtool, version 3.5.0 (branch: HEAD, revision: abc)\n", "3.5.0"),
    "alertmanager": ("alertmanager, version 0.28.1 (branch: , revision: unknown)\n", "0.28.1"),
    "etcd": ("etcd Version: 3.6.16\nGit SHA: Not provided\nGo Version: go1.26.8\n", "3.6.16"),
    "grpcurl": ("grpcurl v1.9.3\n", "1.9.3"),
    "grpc-interop-server": ("grpc-interop-server r2 of grpc-go 1.85.0\n", "1.85.0"),
    "ghz": ("0.120.0\n", "0.120.0"),
    "ghz-0.93": ("0.93.0\n", "0.93.0"),
    "chromium": ("Chromium 156.0.8078.79 built on Debian GNU/Linux 12 (bookworm)\n", "156.0.8078"),
}


@pytest.mark.parametrize("name", TOOLS)
def test_each_version_pattern_reads_what_the_program_prints(name):
    printed, version = PRINTED[name]
    assert re.search(TOOLS[name].version_regex, printed)[1] == version
    assert version in TOOLS[name].accepts


def test_google_chrome_counts_as_chromium():
    assert re.search(TOOLS["chromium"].version_regex, "Google Chrome 140.0.7339.80")[1] in TOOLS["chromium"].accepts


def test_a_toxiproxy_built_without_its_version_is_not_taken_for_one():
    assert re.search(TOOLS["toxiproxy-server"].version_regex, "toxiproxy-server version git") is None


@pytest.mark.parametrize("name", TOOLS)
def test_each_tool_can_be_had_on_debian_and_macos(name):
    assert {"debian", "macos"} <= set(TOOLS[name].recipes)
    assert all(describe(recipe) for recipe in TOOLS[name].recipes.values())


def test_what_go_installs_is_pinned_and_accepted():
    for spec in TOOLS.values():
        for recipe in spec.recipes.values():
            if isinstance(recipe, GoInstall):
                assert recipe.version == spec.pinned
                assert recipe.version in spec.accepts


@pytest.mark.parametrize(
    ("name", "module"), [("etcd", "go.etcd.io/etcd/server/v3"), ("grpc-interop-server", "google.golang.org/grpc")]
)
def test_a_main_of_our_own_is_built_of_the_version_that_is_pinned(name, module):
    [folder] = {recipe.data_folder for recipe in TOOLS[name].recipes.values() if isinstance(recipe, GoModule)}
    go_mod = files("holdfast_chaos.tools").joinpath("data", folder, "go.mod").read_text()
    assert re.search(rf"{re.escape(module)} v(\S+)", go_mod)[1] == TOOLS[name].pinned


def test_runs_need_nothing_that_is_not_brought_by_default():
    assert all(spec.by_default for spec in TOOLS.values() if spec.for_runs)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("3.5.9", False), ("3.6.0", True), ("3.6.16", True), ("3.10.0", False), ("3.7.0", False), ("4.0.0", False)],
)
def test_a_range_includes_its_least_and_excludes_its_end(version, accepted):
    assert (version in Accepts("3.6", "3.7")) is accepted


def test_versions_compare_as_numbers():
    assert parse_version("2.9.0") < parse_version("2.12.0")
