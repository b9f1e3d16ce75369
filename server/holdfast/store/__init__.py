"""The revisioned key space everything durable lives in, and its engines."""

from holdfast.store.interface import Change, Committed, Conflict, KeyValue, Store, StoreFileError, Txn

__all__ = ["Change", "Committed", "Conflict", "KeyValue", "Store", "StoreFileError", "Txn"]
