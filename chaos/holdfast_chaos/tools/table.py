"""The external programs that runs and tests use: versions and where each comes from."""

from holdfast_chaos.tools.spec import (
    Accepts,
    AptInstall,
    BrewInstall,
    DebUnpack,
    GoInstall,
    GoModule,
    Platform,
    Recipe,
    ToolSpec,
)


def _everywhere(recipe: Recipe) -> dict[Platform, Recipe]:
    return {"debian": recipe, "macos": recipe, "other": recipe}


def _ghz(name: str, version: str, accepts: Accepts) -> ToolSpec:
    package = "github.com/bojand/ghz/cmd/ghz"
    return ToolSpec(
        name=name,
        purpose="a peer in the benchmarks of the load engine",
        pinned=version,
        accepts=accepts,
        version_args=("--version",),
        version_regex=r"^v?(\d+\.\d+\.\d+)",
        recipes=_everywhere(GoInstall(package, version, built_as="ghz", version_variable="main.version")),
    )


_SPECS = (
    ToolSpec(
        name="toxiproxy-server",
        purpose="injects network faults",
        pinned="2.12.0",
        accepts=Accepts("2.12", "2.13"),
        version_args=("-version",),
        version_regex=r"version v?(\d+\.\d+\.\d+)",
        # `@latest` of the module without /v2 gives 2.5.0, whose API differs.
        recipes=_everywhere(
            GoInstall(
                "github.com/Shopify/toxiproxy/v2/cmd/server",
                "2.12.0",
                built_as="server",
                version_variable="github.com/Shopify/toxiproxy/v2.Version",
            )
        ),
        for_runs=True,
        by_default=True,
    ),
    ToolSpec(
        name="prometheus",
        purpose="records the metrics that verdicts are read from",
        pinned="the system's package",
        accepts=Accepts("2.40", "4"),
        version_args=("--version",),
        version_regex=r"version (\d+\.\d+\.\d+)",
        recipes={"debian": DebUnpack("prometheus", "usr/bin/prometheus"), "macos": BrewInstall("prometheus")},
        for_runs=True,
        by_default=True,
    ),
    ToolSpec(
        name="promtool",
        purpose="checks and tests Prometheus rules",
        pinned="the system's package",
        accepts=Accepts("2.40", "4"),
        version_args=("--version",),
        version_regex=r"version (\d+\.\d+\.\d+)",
        recipes={"debian": DebUnpack("prometheus", "usr/bin/promtool"), "macos": BrewInstall("prometheus")},
        for_runs=True,
        by_default=True,
    ),
    ToolSpec(
        name="alertmanager",
        purpose="routes alerts",
        pinned="0.28.1",
        accepts=Accepts("0.25", "1"),
        version_args=("--version",),
        version_regex=r"version (\d+\.\d+\.\d+)",
        # Debian's package unpacked is no use: it reads its templates from /usr/share and will not start without them.
        recipes=_everywhere(
            GoInstall(
                "github.com/prometheus/alertmanager/cmd/alertmanager",
                "0.28.1",
                built_as="alertmanager",
                version_variable="github.com/prometheus/common/version.Version",
            )
        ),
        by_default=True,
        aliases=("prometheus-alertmanager",),
    ),
    ToolSpec(
        name="etcd",
        purpose="the distributed store",
        pinned="3.6.16",
        accepts=Accepts("3.6", "3.7"),
        version_args=("--version",),
        version_regex=r"etcd Version: (\d+\.\d+\.\d+)",
        # etcd's own go.mod holds replace directives, which `go install` refuses; hence a main of our own.
        recipes=_everywhere(GoModule("etcd")),
        by_default=True,
    ),
    ToolSpec(
        name="grpcurl",
        purpose="calls the service by reflection, in tests and runbooks",
        pinned="1.9.3",
        accepts=Accepts("1.9", "2"),
        version_args=("--version",),
        version_regex=r"grpcurl v?(\d+\.\d+\.\d+)",
        recipes=_everywhere(
            GoInstall(
                "github.com/fullstorydev/grpcurl/cmd/grpcurl",
                "1.9.3",
                built_as="grpcurl",
                version_variable="main.version",
            )
        ),
    ),
    _ghz("ghz", "0.120.0", Accepts("0.100", "1")),
    # Versions after this one cost twice as much processor time for each call.
    _ghz("ghz-0.93", "0.93.0", Accepts("0.93", "0.94")),
    ToolSpec(
        name="grpc-interop-server",
        purpose="answers load as grpc-go does, in tests and benchmarks",
        pinned="1.85.0",
        accepts=Accepts("1.80", "2"),
        version_args=("-version",),
        version_regex=r"grpc-interop-server r2 of grpc-go (\d+\.\d+\.\d+)",
        recipes=_everywhere(GoModule("grpc-interop")),
    ),
    ToolSpec(
        name="chromium",
        purpose="opens the report in tests",
        pinned="the system's package",
        accepts=Accepts("110", "1000"),
        version_args=("--version",),
        version_regex=r"(?:Chromium|Chrome)\D*(\d+\.\d+\.\d+)",
        recipes={"debian": AptInstall("chromium"), "macos": BrewInstall("chromium", cask=True)},
        aliases=(
            "chromium-browser",
            "google-chrome",
            "/Applications/Chromium.app/Contents/MacOS/Chromium",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        ),
    ),
)

TOOLS: dict[str, ToolSpec] = {spec.name: spec for spec in _SPECS}
"""Every tool by name, in the order in which they are installed: what runs need first."""
