"""What to load, with what: said by who starts a load, read by the process that makes it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from holdfast_loadtests.security import Security
from holdfast_loadtests.shares import WHOLE, Share
from holdfast_loadtests.spec import LoadSpec

RECORD_NAME: Final = "calls.csv.gz"


@dataclass(frozen=True)
class LoadPlan:
    """What to load, with what.

    `target` is `host:port`; `descriptors` a serialised FileDescriptorSet, asked of the target by reflection where
    empty. Calls due before the first `set_phase` belong to `first_phase`. Without `security` there is no TLS;
    `authority` is what the server is to be called, the target where empty; `metadata` goes with every call, values of
    names that end in `-bin` in base64. Without `records` only totals and histograms are kept, in bounded memory.
    `share` is the part of the schedule that this load makes, where others make the rest. One that is `held` connects
    and then waits for `begin`. The closed model begins with `users`, where given, instead of the spec's.
    """

    target: str
    spec: LoadSpec
    tables: Mapping[str, Sequence[Mapping[str, str]]]
    seed: int
    descriptors: bytes = b""
    first_phase: str = "baseline"
    security: Security | None = None
    authority: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    records: bool = True
    share: Share = WHOLE
    users: int | None = None
    held: bool = False


def wire_plan(plan: LoadPlan, descriptors: bytes, record: Path) -> dict[str, Any]:
    """The plan as the load's process reads it; `record` is the file for its calls, if it is to write one."""
    return {
        "target": plan.target,
        "spec": plan.spec.model_dump(mode="json", by_alias=True),
        "tables": {name: list(rows) for name, rows in plan.tables.items()},
        "seed": plan.seed,
        "descriptors": base64.b64encode(descriptors).decode(),
        "phase": plan.first_phase,
        "security": asdict(plan.security) if plan.security else None,
        "authority": plan.authority,
        "metadata": list(plan.metadata),
        "record": str(record.absolute()) if plan.records else "",
        "share": plan.share.as_json(),
        "held": plan.held,
        "users": plan.users,
    }
