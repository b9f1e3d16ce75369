"""Parts of the view: each keeps one kind of resource, and is fed with the store's records of that kind.

To add one: write it, make it an attribute of the `View`, and list it in `View._parts`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.core.state import AgentEntry
from holdfast.store.interface import KeyValue
from holdfast.topics import Changed


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done with the records of one prefix. Names are keys without it.

    Attributes:
        put: Takes a record in, by its name; may raise `DecodeError`.
        delete: Drops the record of a name, at a revision.
        mod_revision: The revision that last wrote the record of a name; 0 without one. Only of records that
            transactions compare does it have to be right.
    """

    put: Callable[[str, KeyValue], None]
    delete: Callable[[str, int], None]
    mod_revision: Callable[[str], int] = lambda _name: 0


class Part:
    """One kind of resource as the view has it.

    Records of a revision are met after its leases, rulings and agents, which are therefore what they will be when a
    part is told anything; what is deleted goes before them.
    """

    def kinds(self) -> Mapping[str, Kind]:
        """What is done with its records, by prefix."""
        raise NotImplementedError

    def lease_ended(self, name: str, revision: int) -> None:
        """A lease ended, or was dropped, at a revision: what it held is held no more from there on."""

    def agent_changed(self, name: str, entry: AgentEntry | None, before: AgentEntry | None) -> None:
        """An agent is another than before, or is gone: at the end of its lease, a registration, a ruling, an update."""

    def take_changes(self) -> Sequence[Changed]:
        """What changed since this was last asked, for those who watch; asked at the end of each revision."""
        return ()
