"""Keys that only replicas know: made when they are first needed, and kept in the store, so that all have the same."""

from holdfast import names
from holdfast.core.state import Plan, Reader
from holdfast.store.interface import Txn

PAGES = "pages"
"""Signs the tokens of pages."""


def keep(reader: Reader, name: str, made: bytes) -> Plan[bytes]:
    """Decides what a key is: what it was from the first time on, or else what was made for this call."""
    kept = reader.secret(name)
    if kept:
        return Plan(Txn(), lambda _: kept)
    key = names.secret_key(name)
    return Plan(Txn(compares=((key, 0),), puts=((key, made),)), lambda _: made)
