"""The first objectives for a service: the packaged ones, held to the services that its first experiment calls. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from holdfast_chaos.experiment import PACKAGED_OBJECTIVES

NAMES: Final = ("availability.yaml", "latency-p95.yaml")
"""What every service can be held to without knowing it; the first experiment names them."""

_METRIC: Final = re.compile(r"(?P<metric>grpc_client_\w+)(?P<brace>\{?)")

_HEAD: Final = "# For {services}: set the target to what you promise your callers.\n#\n"


def first_objectives(services: Sequence[str]) -> dict[str, str]:
    """The texts of the files, by name, for services by their full names, at least one."""
    chosen = "|".join(re.escape(service).replace("\\", "\\\\") for service in services)
    matcher = f'grpc_service=~"{chosen}"' if len(services) > 1 else f'grpc_service="{services[0]}"'

    def restricted(found: re.Match[str]) -> str:
        return f"{found['metric']}{{{matcher}" + ("," if found["brace"] else "}")

    texts = {}
    for name in NAMES:
        packaged = (PACKAGED_OBJECTIVES / name).read_text()
        text = _METRIC.sub(restricted, packaged).replace("service: grpc\n", f"service: {services[0]}\n")
        texts[name] = _HEAD.format(services=", ".join(services)) + text
    return texts
