"""The load of a Locust user class: the `load:` of an experiment, with the number of users left to Locust."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from holdfast.cli import InputError
from holdfast_loadtests import spec as load_spec
from holdfast_loadtests.shares import Share
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.tables import Table, load_table
from holdfast_slo.documents import load_document

HOW_TO_REACH: Final = {
    "tls": "`ca`, `cert` and `key`, or a host that begins with grpcs://",
    "authority": "`authority`",
    "metadata": "`metadata`",
}


@dataclass(frozen=True)
class Load:
    """A spec and its tables."""

    spec: LoadSpec
    tables: Mapping[str, Table]

    @property
    def is_open(self) -> bool:
        """Whether calls fall due at rates of the spec, however many users Locust has."""
        return self.spec.arrivals is not None

    def users_max(self, share: Share) -> int:
        """The most users that one generator can have: each holds a row for itself, where scenarios hold rows."""
        held = [share.rows(len(self.tables[one.rows])) for one in self.spec.scenarios if one.rows]
        return min([load_spec.CONCURRENCY_MAX, *held])


def load_of(load: Mapping[str, Any] | str, tables: Mapping[str, str], folder: Path) -> Load:
    """Reads a load.

    Args:
        load: what stands under `load:` in an experiment, or the path of a YAML file with it.
        tables: files of the tables, CSV or JSONL, by name.
        folder: where relative paths begin.

    Raises:
        InputError: it is no load, a table cannot be read, or a name leads nowhere.
    """
    read = {name: load_table(folder / path) for name, path in tables.items()}
    content = load if isinstance(load, Mapping) else load_document(folder / load).data
    if not isinstance(content, Mapping):
        raise InputError(f"load: expected a mapping like an experiment's `load:`, got {str(content)[:80]!r}")
    if "users" in content:
        raise InputError(
            f"load.users is {content['users']!r}: Locust says how many users there are (-u, or its page); leave it out"
        )
    for key in ("tls", "authority", "metadata"):
        if key in content:
            raise InputError(f"load.{key}: give it as an attribute of the user class: {HOW_TO_REACH[key]}")
    closed = {} if "arrivals" in content else {"users": 1}
    try:
        spec = LoadSpec.model_validate({**content, **closed})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("load", *first["loc"]))
        raise InputError(f"{where}: {first['msg']}, got {str(first['input'])[:80]!r}") from error
    load_spec.check(spec, read)
    return Load(spec, read)
